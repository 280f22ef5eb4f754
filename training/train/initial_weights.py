"""A network begins with another run's weights (`train --init`)."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from metseg.errors import UsageError
from training.recipe import load_recipe
from training.runs.checkpoint import trained_weights
from training.runs.files import RECIPE_FILE
from training.widening import widen

logger = logging.getLogger(__name__)

FIRST_LAYER = "net.convInit.conv.weight"
"""Shape (filters, channels, 3, 3, 3): the only layer that knows the input channels."""


def load_initial_weights(network: nn.Module, checkpoint: Path, channels: Sequence[str]) -> None:
    """Starts from another run's weights (its moving average where it has one); the VAE branch where both have one.

    The first layer is matched by channel name: a channel that the other run did not read keeps its random weights. A
    network with a half or a third of the filters is widened (`training.widening`).

    Args:
        network: changed in place.
        checkpoint: with the other run's recipe.yaml beside it.
        channels: of `network`.

    Raises:
        UsageError: the segmentation parts don't fit, or there is no recipe beside the checkpoint.
        WeightsError: the checkpoint can't be read.
    """
    theirs = load_recipe(str(checkpoint.parent / RECIPE_FILE)).data.channels
    weights = {f"net.{name}": tensor for name, tensor in trained_weights(checkpoint).items()}
    own = network.state_dict()
    fitting = {}
    for name, tensor in own.items():
        given = weights.get(name)
        if name.startswith("net.vae"):
            fitting[name] = given if given is not None and given.shape == tensor.shape else tensor
        elif given is not None:
            of_images = name == FIRST_LAYER
            found = _matched_by_channel(given, theirs, tensor, channels) if of_images else widen(given, tensor.shape)
            if found is not None:
                fitting[name] = found
    missing = [name for name in own if name not in fitting]
    if missing:
        raise UsageError(
            f"--init {checkpoint}: {len(missing)} tensors don't fit this recipe's network, first {missing[0]}",
            hint="Start from a run with the same blocks and the same filters, or a half, a third... of them.",
        )
    network.load_state_dict(fitting)
    logger.info("begins with the weights of %s", checkpoint)


def _matched_by_channel(
    theirs: Tensor, their_channels: Sequence[str], own: Tensor, channels: Sequence[str]
) -> Tensor | None:
    """The first layer's kernel, shape (filters, channels, x, y, z): theirs where they read a channel, else our own."""
    wide = widen(theirs, torch.Size((own.shape[0], theirs.shape[1], *own.shape[2:])))
    if wide is None:
        return None
    result = own.clone()
    for index, channel in enumerate(channels):
        if channel in their_channels:
            result[:, index] = wide[:, their_channels.index(channel)]
    return result
