"""Pictures of what the loss sees and of how a training went; this alone needs matplotlib."""
