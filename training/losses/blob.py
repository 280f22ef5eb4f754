"""Blob loss: every lesion counts the same, whatever its size (Kofler et al., arXiv 2205.08209)."""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override


class BlobLoss(nn.Module):
    """Dice per blob, against the background without the other blobs, in one pass over the voxels.

    For blob n of one channel the prediction is masked, after the sigmoid, to background + blob n, and compared with
    blob n alone. With S0 the sum of p over the background, s_n the sum of p on blob n and c_n the voxels of blob n in
    the crop, that is `1 - (2 s_n + e) / (S0 + s_n + c_n + e)`: the published loss to rounding, at a cost that does not
    depend on the number of blobs. Mean over blobs, then over samples that have one, then over channels, one without
    any blob giving 0.

    Args:
        smoothing: e above.
    """

    def __init__(self, smoothing: float = 1e-5) -> None:
        super().__init__()
        self.smoothing = smoothing

    def per_sample(self, logits: Tensor, components: Tensor) -> Tensor:
        """The mean over blobs of each sample and channel.

        Args:
            logits: shape (batch, regions, x, y, z).
            components: same shape, integers: 0 background, else the number of the 26-connected component on the full
                volume; numbers may have gaps (blobs outside the crop) and don't matter otherwise.

        Returns:
            Shape (batch, regions), float32; 0, with a graph, where there is no blob.
        """
        batch, regions = logits.shape[:2]
        rows = batch * regions
        probability = logits.float().sigmoid().reshape(rows, -1)
        numbers = components.flatten()
        voxels = torch.nonzero(numbers).squeeze(1)
        background_sum, on_blob = _SumAndPick.apply(probability, voxels)  # type: ignore[no-untyped-call]
        row_of = voxels // (len(numbers) // rows)
        keys = row_of * (int(numbers.max()) + 1) + numbers[voxels].long()
        blobs, blob_of = torch.unique(keys, return_inverse=True)
        row_of_blob = torch.zeros_like(blobs).scatter_(0, blob_of, row_of)
        blob_sum = on_blob.new_zeros(blobs.shape).index_add(0, blob_of, on_blob)
        blob_voxels = torch.bincount(blob_of, minlength=len(blobs)).to(on_blob.dtype)
        loss = 1 - (2 * blob_sum + self.smoothing) / (
            background_sum[row_of_blob] + blob_sum + blob_voxels + self.smoothing
        )
        sums = (background_sum * 0).index_add(0, row_of_blob, loss)
        counts = torch.bincount(row_of_blob, minlength=rows).clamp(min=1)
        per_region: Tensor = (sums / counts).reshape(batch, regions)
        return per_region

    def forward(self, logits: Tensor, components: Tensor) -> Tensor:
        """Mean over the samples that have a blob, then over the channels; a scalar."""
        present = blobs_present(components)
        sums = self.per_sample(logits, components).sum(0)
        return (sums / present.sum(0).clamp(min=1)).mean()


class _SumAndPick(torch.autograd.Function):
    """Each row's sum without the picked voxels, and the picked voxels; the gradient is one pass, autograd's own four.

    Args:
        values: shape (rows, voxels).
        picked: shape (n,), int64: places in the flattened values, each at most once.
    """

    @staticmethod
    @override
    def forward(ctx: Any, values: Tensor, picked: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(picked)
        ctx.shape = values.shape
        flat = values.flatten()
        return flat.index_fill(0, picked, 0).reshape(values.shape).sum(1), flat[picked]

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        of_sums, of_picked = gradients
        (picked,) = ctx.saved_tensors
        gradient = of_sums[:, None].expand(ctx.shape).contiguous()
        gradient.view(-1)[picked] = of_picked
        return gradient, None


def blobs_present(components: Tensor) -> Tensor:
    """Whether each sample has a blob in each channel: shape (batch, regions), bool."""
    return components.flatten(2).amax(2) > 0
