"""Equation 1 of Erdur et al. 2023, written so that any division of a batch gives the same gradient.

What a mean divides by is known before the network runs: the samples' weights, and which samples have a blob. These
counts are summed over micro-batches and ranks first; each part of the batch then adds its share of the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.losses.blob import BlobLoss, blobs_present
from training.losses.dice_ce import DiceCELoss
from training.losses.vae import VaeLoss
from training.ranks import Ranks
from training.recipe_sections import LossRecipe


class Outputs(NamedTuple):
    """What the network gives in training; a tuple, because DDP looks for tensors in tuples.

    Attributes:
        logits: shape (batch, regions, x, y, z).
        reconstruction: the VAE branch's picture of the input, shape (batch, channels, x, y, z); None without it.
        latent: its latent means, shape (batch, latent); None without it.
    """

    logits: Tensor
    reconstruction: Tensor | None = None
    latent: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What the means over one optimiser step divide by.

    Attributes:
        samples: scalar: sum of the samples' weights.
        with_blob: shape (regions,): sum of the weights of the samples that have a blob in that channel.
        largest: scalar: the largest of the step's components; where they hold volumes, batch reweighting scales by it.
    """

    samples: Tensor
    with_blob: Tensor
    largest: Tensor

    def packed(self) -> Tensor:
        """What is summed over ranks, in one vector: one message."""
        return torch.cat([self.samples.reshape(1), self.with_blob])

    def over(self, ranks: Ranks) -> "Counts":
        """Those of all ranks together."""
        summed = ranks.sum(self.packed())
        return Counts(summed[0], summed[1:], ranks.max(self.largest))


@dataclass(frozen=True, slots=True)
class Terms:
    """The parts of the loss, scalars that add up over micro-batches and ranks; `total` is weighted and has a graph."""

    total: Tensor
    dice_ce: Tensor
    blob: Tensor
    vae: Tensor

    def detached(self) -> Tensor:
        """Shape (4,): total, DiceCE, blob, VAE, without graph."""
        return torch.stack([self.total, self.dice_ce, self.blob, self.vae]).detach().double()


def count_terms(components: Tensor, weights: Tensor) -> Counts:
    """What a batch adds to the divisors.

    Args:
        components: shape (batch, regions, x, y, z), 0 or component numbers.
        weights: shape (batch,): 1, or 0 for a duplicate that only fills up a rank.
    """
    present = blobs_present(components).to(weights.dtype)
    largest = components.amax().to(weights.dtype)
    return Counts(weights.sum(), (present * weights[:, None]).sum(0), largest)


class Objective(nn.Module):
    """`dice_ce_weight` * DiceCE + `blob_weight` * blob[Dice] + `vae_weight` * VAE."""

    names = ("loss", "dice_ce", "blob", "vae")
    """Of `Terms.detached`."""

    def __init__(self, recipe: LossRecipe, regions: Sequence[str]) -> None:
        super().__init__()
        self.recipe = recipe
        self.dice_ce = DiceCELoss(recipe.dice_smoothing, [regions.index(name) for name in recipe.dice_where_present])
        self.blob = BlobLoss(recipe.blob_smoothing)
        self.vae = VaeLoss()

    def forward(self, outputs: Outputs, images: Tensor, components: Tensor, weights: Tensor, counts: Counts) -> Terms:
        """This part's share of the loss of the whole step.

        Args:
            outputs: of the network.
            images: its input, shape (batch, channels, x, y, z).
            components: shape of the logits, 0 or component numbers; the target is where they are not 0.
            weights: shape (batch,).
            counts: of the whole step: all micro-batches of all ranks.
        """
        logits = outputs.logits
        blob = vae = logits.new_zeros((), dtype=torch.float32)
        share = weights / counts.samples.clamp(min=1)
        dice_ce = (self.dice_ce.per_sample(logits, components > 0) * share).sum()
        if self.recipe.blob_weight > 0:
            per_channel = (self.blob.per_sample(logits, components) * weights[:, None]).sum(0)
            blob = (per_channel / counts.with_blob.clamp(min=1)).mean()
        if outputs.reconstruction is not None and outputs.latent is not None:
            vae = (self.vae.per_sample(images, outputs.reconstruction, outputs.latent) * share).sum()
        total = self.recipe.dice_ce_weight * dice_ce + self.recipe.blob_weight * blob + self.recipe.vae_weight * vae
        return Terms(total, dice_ce, blob, vae)
