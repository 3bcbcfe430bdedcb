"""What the loss costs beside others: `clp-basicsr bench`."""
