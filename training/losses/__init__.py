"""The losses, each a documented `nn.Module`; all work on nested regions, one channel against the rest."""

from training.losses.blob import BlobLoss
from training.losses.dice_ce import DiceCELoss
from training.losses.objective import Counts, Objective, Outputs, Terms, count_terms
from training.losses.vae import VaeLoss

__all__ = ["BlobLoss", "Counts", "DiceCELoss", "Objective", "Outputs", "Terms", "VaeLoss", "count_terms"]
