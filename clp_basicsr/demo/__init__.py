"""The demo: a real training run, from no data to pictures, in one command."""
