"""What the loss does on a GPU in its own way; everywhere else PyTorch's functions say the same."""
