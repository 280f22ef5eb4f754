"""Dice + binary cross-entropy for regions that overlap (Erdur et al. 2023, section 2.4)."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional


class DiceCELoss(nn.Module):
    """Soft Dice on sigmoid + binary cross-entropy with logits, 1:1, one channel at a time.

    Not MONAI's `DiceCELoss` with three channels: its cross-entropy is a softmax across WT, TC and ET, which are nested,
    not exclusive; it is 0 on background and constant on ET voxels.

    Args:
        smoothing: added above and below in Dice: an empty channel that is predicted empty has Dice 1.
        where_present: channels whose Dice counts only in samples that hold the region; elsewhere cross-entropy alone
            prices what is invented. If few samples hold a region, Dice in all of them teaches its absence alone: the
            empty ones bring the probability to 0, and Dice's gradient in the others goes with it.
    """

    def __init__(self, smoothing: float = 1e-5, where_present: Collection[int] = ()) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.where_present = list(where_present)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample.

        Args:
            logits: shape (batch, regions, x, y, z).
            target: same shape, 0 or 1, any number type.

        Returns:
            Shape (batch,), float32: mean over the regions of `1 - Dice + BCE`.
        """
        logits = logits.float()
        target = target.to(logits.dtype)
        axes = tuple(range(2, logits.ndim))
        probability = logits.sigmoid()
        intersection = (probability * target).sum(axes)
        total = probability.sum(axes) + target.sum(axes)
        dice = (2 * intersection + self.smoothing) / (total + self.smoothing)
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(axes)
        counted = torch.ones_like(dice)
        counted[:, self.where_present] = (target.amax(axes) > 0)[:, self.where_present].to(dice.dtype)
        return (counted * (1 - dice) + cross_entropy).mean(1)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean of `per_sample` over the batch, a scalar."""
        return self.per_sample(logits, target).mean()
