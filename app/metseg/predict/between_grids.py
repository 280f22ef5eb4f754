"""Members on a grid of their own: their logits on the grid that all members share.

A network at 2 mm sees an eighth of the voxels and twice as far: it tells oedema, core and enhancement of a large tumour
apart where one at 1 mm does not, and what it says of the edges is still finer than its voxels, because logits, not
labels, are interpolated.
"""

from typing import TYPE_CHECKING

import numpy as np

from metseg.predict.windows import Layout
from metseg.space.resampling import Resampling
from metseg.space.sampling import AxisSampling

if TYPE_CHECKING:
    from torch import Tensor


def logits_between_grids(
    logits: "Tensor", own: Layout, own_resampling: Resampling, layout: Layout, resampling: Resampling
) -> "Tensor":
    """Interpolates logits linearly between voxel centres, from a box of one network grid to one of another.

    Args:
        logits: shape (regions, *own.shape), on any device.
        own: the box they are on.
        own_resampling: between the case's files and the grid of `own`.
        layout: the box wanted.
        resampling: between the same files and the grid of `layout`.

    Returns:
        Shape (regions, *layout.shape), there; beyond `own` its border's value, which is background where the windows
        hold the brain.
    """
    import torch  # noqa: PLC0415 - heavy

    for axis in range(3):
        there, here = own_resampling.network.shape[axis], resampling.network.shape[axis]
        wanted = layout.start[axis] + np.arange(layout.shape[axis], dtype=np.float64)
        # Both grids have the centre of the files' grid (`metseg.space.resampling`).
        centred = (wanted - (here - 1) / 2) * resampling.steps[axis] / own_resampling.steps[axis]
        sampling = AxisSampling.at(centred + (there - 1) / 2 - own.start[axis], own.shape[axis])
        below, above, weight = (
            torch.from_numpy(part).to(logits.device) for part in (sampling.below, sampling.above, sampling.weight)
        )
        shape = [-1 if axis == other else 1 for other in range(3)]
        logits = torch.lerp(
            logits.index_select(axis + 1, below), logits.index_select(axis + 1, above), weight.reshape(shape)
        )
    return logits
