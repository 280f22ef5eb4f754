"""A network begins with the weights of another run, or of a frozen member (`train --init`)."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from metseg.errors import UsageError
from metseg.files.hashing import hash_file
from metseg.predict.weights import load_parameters
from training.recipe import Recipe, load_recipe
from training.runs.checkpoint import trained_weights
from training.runs.files import RECIPE_FILE
from training.runs.members import read_member_recipe
from training.widening import widen

logger = logging.getLogger(__name__)

FIRST_LAYER = "net.convInit.conv.weight"
"""Shape (filters, channels, 3, 3, 3): the only layer that knows the input channels."""

LAST_LAYER = ("net.conv_final.2.conv.weight", "net.conv_final.2.conv.bias")
"""Shapes (regions, filters, 1, 1, 1) and (regions): the only layer that knows the regions."""

FIRST_PROBABILITY: Final = 0.01
"""Of a region that is new beside trained ones: near its share of the voxels, so that it hardly disturbs the others."""


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """A trained network, to begin with.

    Attributes:
        path: its file.
        tensors: by the names that they have in `TrainingNetwork`; the moving average where the run has one.
        recipe: that it was trained with.
    """

    path: Path
    tensors: dict[str, Tensor]
    recipe: Recipe


def read_initial_weights(path: Path) -> InitialWeights:
    """Reads a run's checkpoint, with its recipe.yaml beside it, or the weights file of a frozen member.

    Raises:
        UsageError: there is no recipe.
        WeightsError: the file can't be read, or is not what its recipe makes.
    """
    if (path.parent / RECIPE_FILE).is_file():
        recipe, tensors = load_recipe(str(path.parent / RECIPE_FILE)), trained_weights(path)
    else:
        recipe = read_member_recipe(path)
        frozen = {"weights": path.name, "sha256": hash_file(path)}
        tensors = load_parameters(path.parent, recipe.member.model_copy(update=frozen))
    return InitialWeights(path, {f"net.{name}": tensor for name, tensor in tensors.items()}, recipe)


def begin_with(network: nn.Module, recipe: Recipe, initial: InitialWeights) -> None:
    """Gives a network the weights of another one; the VAE branch where both have one.

    The first layer is matched by channel name, the last by region: what the other network did not know keeps its random
    weights, and such a region begins with a probability of about `FIRST_PROBABILITY`. A network with a half or a third
    of the filters is widened (`training.widening`).

    Args:
        network: changed in place.
        recipe: of `network`.
        initial: the other one's.

    Raises:
        UsageError: the segmentation parts don't fit.
    """
    own = network.state_dict()
    fitting = {}
    for name, tensor in own.items():
        given = initial.tensors.get(name)
        if name.startswith("net.vae"):
            fitting[name] = given if given is not None and given.shape == tensor.shape else tensor
        elif given is not None:
            found = _fit(name, given, tensor, initial.recipe, recipe)
            if found is not None:
                fitting[name] = found
    missing = [name for name in own if name not in fitting]
    if missing:
        raise UsageError(
            f"--init {initial.path}: {len(missing)} tensors don't fit this recipe's network, first {missing[0]}",
            hint="Start from a run with the same blocks and the same filters, or a half, a third... of them.",
        )
    network.load_state_dict(fitting)
    logger.info("begins with the weights of %s", initial.path)


def _fit(name: str, given: Tensor, own: Tensor, theirs: Recipe, ours: Recipe) -> Tensor | None:
    """A tensor of the other network as it is in ours; None where it does not fit."""
    if name == FIRST_LAYER:
        wide = widen(given, torch.Size((own.shape[0], given.shape[1], *own.shape[2:])))
        return _matched(wide, theirs.data.channels, own, ours.data.channels, dim=1)
    if name in LAST_LAYER and theirs.member.regions != ours.member.regions:
        wide = widen(given, torch.Size((given.shape[0], *own.shape[1:])))
        new = torch.full_like(own, math.log(FIRST_PROBABILITY / (1 - FIRST_PROBABILITY))) if own.dim() == 1 else own
        return _matched(wide, theirs.member.regions, new, ours.member.regions, dim=0)
    return widen(given, own.shape)


def _matched(
    theirs: Tensor | None, their_names: Sequence[str], own: Tensor, names: Sequence[str], *, dim: int
) -> Tensor | None:
    """Our tensor with what theirs has under the same names along `dim`."""
    if theirs is None:
        return None
    result = own.clone()
    for index, name in enumerate(names):
        if name in their_names:
            result.select(dim, index).copy_(theirs.select(dim, their_names.index(name)))
    return result
