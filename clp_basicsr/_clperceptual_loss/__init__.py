"""`from clperceptual_loss import CLPLoss`: the name the first documentation used."""

from clp_basicsr import CLPLoss

__all__ = ["CLPLoss"]
