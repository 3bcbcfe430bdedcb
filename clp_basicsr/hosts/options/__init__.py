"""Option files and flags of a BasicSR run: read as BasicSR reads them, and checked before it starts."""
