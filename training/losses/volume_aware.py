"""Volume-aware Dice: a voxel of a small tumour weighs more than one of a large tumour (Hu et al. 2019, section 2.2).

With g the reference, p the prediction and W diagonal, `W_ii = sqrt(lambda / volume(i))` inside a tumour and 0 outside:

    l = -(C g'Wp + e) / (p'p + g'Wg + e),   C = 1 + g'g / g'Wg

C makes a perfect prediction worth -1 whatever the weights. A prediction between 0 and 1 can be worth less than -1. For
one tumour of V voxels the best constant is p* = min(1, (lambda / V) ** 0.25). With a small constant lambda, large
tumours are best predicted by less than a half, and a threshold of a half then loses them.
"""

import torch
from torch import Tensor, nn

NO_TUMOUR_C = 2.0
"""C of a sample without tumour, where it multiplies zero: the value that all weights of 1 would give."""


class VolumeAwareDiceLoss(nn.Module):
    """Dice weighted by the volume of the whole tumour that a voxel belongs to.

    Args:
        constant_voxels: lambda, in voxels ("constant reweight"); None takes the largest tumour of the batch ("batch
            reweight"), under which weights are at least 1. In a batch whose tumours are all of one size that is Dice.
        smoothing: e above: an empty sample that is predicted empty is worth -1.
    """

    def __init__(self, constant_voxels: float | None = None, smoothing: float = 1e-5) -> None:
        super().__init__()
        self.constant_voxels = constant_voxels
        self.smoothing = smoothing

    def per_sample(self, logits: Tensor, volumes: Tensor, largest: Tensor | None = None) -> Tensor:
        """The loss of each sample.

        Args:
            logits: shape (batch, 1, x, y, z).
            volumes: same shape: 0 outside tumours, else the voxels of the whole tumour (26-connected, on the full
                volume, also where the sample cuts it), any number type.
            largest: scalar: voxels of the largest tumour of the whole batch, over all ranks; None takes these samples'
                largest. Unused with a constant lambda.

        Returns:
            Shape (batch,), float32 (float64 for logits of that type).
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        probability = logits.sigmoid().flatten(1)
        volumes = volumes.to(probability.dtype).flatten(1)
        weight = self._weights(volumes, largest)
        target = (volumes > 0).to(probability.dtype)
        weighted = weight.sum(1)
        correction = 1 + target.sum(1) / weighted
        correction = torch.where(weighted > 0, correction, torch.full_like(weighted, NO_TUMOUR_C))
        found = correction * (weight * probability).sum(1)
        return -(found + self.smoothing) / (probability.square().sum(1) + weighted + self.smoothing)

    def _weights(self, volumes: Tensor, largest: Tensor | None) -> Tensor:
        if self.constant_voxels is not None:
            scale = volumes.new_tensor(self.constant_voxels)
        else:
            scale = (largest_tumour(volumes) if largest is None else largest).to(volumes)
        return torch.where(volumes > 0, (scale / volumes.clamp(min=1)).sqrt(), torch.zeros_like(volumes))

    def forward(self, logits: Tensor, volumes: Tensor, largest: Tensor | None = None) -> Tensor:
        """Mean of `per_sample` over the batch, a scalar."""
        return self.per_sample(logits, volumes, largest).mean()


class SquaredDiceLoss(VolumeAwareDiceLoss):
    """The Dice loss that volume-aware Dice starts from: every weight is 1, so C is 2 (Hu et al. 2019, equation 1)."""

    def _weights(self, volumes: Tensor, largest: Tensor | None) -> Tensor:  # noqa: ARG002 - the same for any batch
        return (volumes > 0).to(volumes)


def largest_tumour(volumes: Tensor) -> Tensor:
    """Voxels of the largest tumour of a batch, a scalar; 0 without any. Over ranks: `Ranks.max`."""
    return volumes.amax()
