"""Before a bundle leaves: the frozen network's logits are the trained one's, bit by bit, on a window of real data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from metseg.decide.threshold import member_labels
from metseg.errors import WeightsError
from metseg.network.segresnet import VAE_PREFIX
from metseg.space.blocks import cut_padded
from training.data.cache import find_problem, open_entry
from training.data.whole import lay_out_channels
from training.network import TrainingNetwork
from training.recipe import Recipe
from training.runs.checkpoint import trained_weights


@dataclass(frozen=True, slots=True)
class Equality:
    """What the comparison on one window found; the two float32 networks were equal to the bit.

    Attributes:
        case_id: whose window.
        rounding: largest difference of the logits that storing in half precision makes; 0 without it.
        changed_voxels: voxels of the window whose label that changes.
    """

    case_id: str
    rounding: float
    changed_voxels: int


def check_equality(frozen: nn.Module, checkpoint: Path, recipe: Recipe, stored: torch.dtype, entry: Path) -> Equality:
    """Compares the frozen network with the trained one, VAE branch and all, on one window.

    Args:
        frozen: as `metseg.predict.weights.load_member` gives it.
        checkpoint: of the run.
        recipe: of the run.
        stored: the frozen weights' type on disk; the trained weights are rounded to it for the comparison.
        entry: cache entry of the case that the window is cut from, around a lesion where it has one.

    Raises:
        WeightsError: the logits differ, or the entry is broken.
    """
    problem = find_problem(entry)
    if problem is not None:
        raise WeightsError(f"cache entry {entry}: {problem}", hint="Name the cache that the run was trained with.")
    window = _cut_window(entry, recipe)
    weights = trained_weights(checkpoint)
    rounded = _logits(recipe, {key: _rounded(tensor, stored) for key, tensor in weights.items()}, window)
    with torch.inference_mode():
        difference = (rounded - frozen(window)).abs().max().item()
    if not difference == 0:  # a NaN is not equal either
        raise WeightsError(f"freezing {checkpoint}: the frozen logits differ from the trained ones by {difference:g}")
    exact = rounded if stored == torch.float32 else _logits(recipe, weights, window)
    labels, own = (member_labels(logits[0].sigmoid().numpy(), 0.5, recipe.regions) for logits in (exact, rounded))
    return Equality(open_entry(entry).case_id, float((exact - rounded).abs().max()), int((labels != own).sum()))


def _rounded(tensor: Tensor, stored: torch.dtype) -> Tensor:
    return tensor.to(stored).float() if tensor.is_floating_point() else tensor


def _logits(recipe: Recipe, weights: dict[str, Tensor], window: Tensor) -> Tensor:
    trained = TrainingNetwork(recipe)
    fit = trained.net.load_state_dict(weights, strict=False)  # a kept run has no VAE branch, logits need none
    wrong = [*fit.unexpected_keys, *(name for name in fit.missing_keys if not name.startswith(VAE_PREFIX))]
    if wrong:
        raise WeightsError(f"recipe {recipe.name}: {len(wrong)} tensors are not its network's, first {wrong[0]}")
    trained.eval()
    with torch.inference_mode():
        logits: Tensor = trained(window).logits
    return logits


def _cut_window(entry: Path, recipe: Recipe) -> Tensor:
    """A window of the crops' size around the case's first lesion, else around the brain's centre."""
    case = open_entry(entry)
    channels, _, _ = lay_out_channels(case, recipe)
    if len(case.lesion_voxels):
        centre = case.lesion_voxels[0, 2:] + np.array([first for first, _ in case.box])
    else:
        centre = np.array([(first + end) // 2 for first, end in case.box])
    size = recipe.crops.read_size
    x, y, z = (int(middle) - side // 2 for middle, side in zip(centre, size, strict=True))
    return torch.from_numpy(cut_padded(channels, (x, y, z), size))[None]
