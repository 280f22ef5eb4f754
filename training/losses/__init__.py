"""The losses, each a documented `nn.Module`; all work on nested regions, one channel against the rest."""

from collections.abc import Sequence

from training.losses.blob import BlobLoss
from training.losses.dice_ce import DiceCELoss
from training.losses.objective import Counts, Objective, Outputs, Terms, count_terms
from training.losses.single import SingleTermObjective
from training.losses.vae import VaeLoss
from training.losses.volume_aware import SquaredDiceLoss, VolumeAwareDiceLoss, largest_tumour
from training.recipe_sections import LossRecipe, SingleLossRecipe

__all__ = [
    "BlobLoss",
    "Counts",
    "DiceCELoss",
    "Objective",
    "Outputs",
    "SingleTermObjective",
    "SquaredDiceLoss",
    "Terms",
    "VaeLoss",
    "VolumeAwareDiceLoss",
    "build_objective",
    "count_terms",
    "largest_tumour",
]


def build_objective(recipe: LossRecipe | SingleLossRecipe, regions: Sequence[str]) -> Objective | SingleTermObjective:
    """Builds the loss that a recipe names, for a network of these regions."""
    return SingleTermObjective(recipe) if isinstance(recipe, SingleLossRecipe) else Objective(recipe, regions)
