"""Mean of a frozen member's weights and of those that it was trained on from.

Robust fine-tuning of Wortsman et al. 2022 (WiSE-FT, arXiv 2109.01903, section 3). A run that began with another run's
weights lies in the same valley of the loss. A network between the two does what the later one learned. On images unlike
those of the training it keeps more of what the earlier one could do.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from metseg.errors import UsageError, WeightsError
from metseg.files.atomic import write_atomically
from metseg.plan.bundle import read_metadata
from training.runs.members import pack_weights, read_member_recipe
from training.widening import widen

SPOKEN_OF_THE_ONE = ("proven_on", "rounding", "validation")
"""Metadata that are of a network as it was trained, not of a mean."""


def average_members(later: Path, earlier: Path, share: float, output: Path) -> str:
    """Writes a member whose weights are share * later + (1 - share) * earlier, tensor by tensor, in float32.

    Args:
        later: weights file of a bundle; the mean has its name, network, recipe and precision.
        earlier: of the run that `later` began with (`train --init`). Where it has a half or a third... of the
            filters it is widened first (`training.widening`), evenly.
        share: of `later`, from 0 to 1.
        output: weights file, which `freeze` takes as a member.

    Returns:
        Its SHA-256.

    Raises:
        UsageError: `share` is outside 0..1, a file is not a member that `freeze` made, or the two don't fit together.
        WeightsError: a file is damaged.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"--share: expected a number from 0 to 1, found {share:g}")
    recipes = read_member_recipe(later), read_member_recipe(earlier)
    ours, theirs = (recipe.data.model_dump(mode="json") for recipe in recipes)
    for key in ("channels", "spacing_mm", "intensity"):
        if ours.get(key) != theirs.get(key):
            raise UsageError(
                f"{earlier}: data.{key} is {theirs.get(key)}, in {later} {ours.get(key)}",
                hint="Name a run's member and that of the run that it was trained on from (train --init).",
            )
    content, other = later.read_bytes(), earlier.read_bytes()
    weights, start = _tensors_in(content, later), _tensors_in(other, earlier)
    mean = {name: _mean(name, tensor, start.get(name), share, earlier) for name, tensor in weights.items()}
    metadata = {key: text for key, text in read_metadata(content, later).items() if key not in SPOKEN_OF_THE_ONE} | {
        "averaged": json.dumps(
            {
                "share": share,
                "later_sha256": hashlib.sha256(content).hexdigest(),
                "earlier": recipes[1].name,
                "earlier_sha256": hashlib.sha256(other).hexdigest(),
            }
        )
    }
    result = pack_weights(mean, metadata)
    write_atomically(output, result)
    return hashlib.sha256(result).hexdigest()


def _tensors_in(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return load(content)
    except SafetensorError as error:
        raise WeightsError(f"weights {path}: damaged: {error}", hint="Freeze the run once more.") from error


def _mean(name: str, later: Tensor, earlier: Tensor | None, share: float, path: Path) -> Tensor:
    start = None if earlier is None else widen(earlier.float(), later.shape, even=True)
    if start is None:
        raise UsageError(
            f"{path}: {name} does not fit: expected {tuple(later.shape)} or a whole part of it, "
            f"found {None if earlier is None else tuple(earlier.shape)}",
            hint="Both networks need the same blocks, and as many filters or a half, a third... of them.",
        )
    return torch.lerp(start, later.float(), share).to(later.dtype)
