"""The losses of arms that are not CLPLoss itself: to import it, or to name it behind ``--import``, registers them."""

from benchmarks.study.feature_l1 import FeatureL1Loss
from benchmarks.study.high_band import HighBandCLPLoss
from benchmarks.study.least_gap import LeastGapCLPLoss

__all__ = ["FeatureL1Loss", "HighBandCLPLoss", "LeastGapCLPLoss"]
