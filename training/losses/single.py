"""An objective of one loss, shared out so that any division of a batch gives the same gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.losses.objective import Counts, Outputs
from training.losses.volume_aware import SquaredDiceLoss, VolumeAwareDiceLoss
from training.recipe_sections import SingleLossRecipe


@dataclass(frozen=True, slots=True)
class SingleTerm:
    """A loss without parts."""

    total: Tensor

    def detached(self) -> Tensor:
        """Shape (1,), without graph."""
        return self.total.detach().double().reshape(1)


class CrossEntropyLoss(nn.Module):
    """Binary cross-entropy of log-odds, a mean over voxels: the cross-entropy of DeepMedic's two classes."""

    def per_sample(self, logits: Tensor, volumes: Tensor, largest: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The loss of each sample, shape (batch,), float32; arguments as in `VolumeAwareDiceLoss`."""
        target = (volumes > 0).float()
        voxels = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        return voxels.flatten(1).mean(1)


class SingleTermObjective(nn.Module):
    """The recipe's loss, a mean over the samples of a step."""

    names = ("loss",)
    """Of `SingleTerm.detached`."""

    def __init__(self, recipe: SingleLossRecipe) -> None:
        super().__init__()
        self.loss: VolumeAwareDiceLoss | CrossEntropyLoss
        match recipe.kind:
            case "volume_aware":
                self.loss = VolumeAwareDiceLoss(recipe.constant_voxels, recipe.smoothing)
            case "dice":
                self.loss = SquaredDiceLoss(smoothing=recipe.smoothing)
            case "cross_entropy":
                self.loss = CrossEntropyLoss()

    def forward(
        self,
        outputs: Outputs,
        images: Tensor,  # noqa: ARG002 - of the other objective
        volumes: Tensor,
        weights: Tensor,
        counts: Counts,
    ) -> SingleTerm:
        """This part's share of the loss of the whole step.

        Args:
            outputs: of the network.
            images: not used.
            volumes: shape (batch, 1, x, y, z): voxels of the tumour that each voxel belongs to, 0 outside.
            weights: shape (batch,).
            counts: of the whole step: all micro-batches of all ranks.
        """
        share = weights / counts.samples.clamp(min=1)
        per_sample = self.loss.per_sample(outputs.logits, volumes, torch.clamp(counts.largest, min=1))
        return SingleTerm((per_sample * share).sum())
