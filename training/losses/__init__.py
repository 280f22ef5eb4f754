"""The losses, each a documented `nn.Module`; all work on nested regions, one channel against the rest."""

from training.losses.blob import BlobLoss
from training.losses.dice_ce import DiceCELoss
from training.losses.objective import Counts, Objective, Outputs, Terms, count_terms
from training.losses.radiosurgery import RadiosurgeryObjective
from training.losses.vae import VaeLoss
from training.losses.volume_aware import SquaredDiceLoss, VolumeAwareDiceLoss, largest_tumour

__all__ = [
    "BlobLoss",
    "Counts",
    "DiceCELoss",
    "Objective",
    "Outputs",
    "RadiosurgeryObjective",
    "SquaredDiceLoss",
    "Terms",
    "VaeLoss",
    "VolumeAwareDiceLoss",
    "count_terms",
    "largest_tumour",
]
