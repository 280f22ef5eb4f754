"""Linear interpolation along the axes of a volume, at the cost of what is not zero.

Grids here differ by spacing and offset along their axes only, never by a rotation, so interpolation is one small
two-tap filter after the other; and everything outside the bounding box of what is not zero stays zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metseg.components import Box, bounding_box
from metseg.domain import FloatVolume

Positions = NDArray[np.float64]
"""Shape (outputs,): where each output voxel lies along an axis, in input voxels; monotone."""


@dataclass(frozen=True, slots=True)
class AxisSampling:
    """How one axis is sampled: output j = (1 - weight[j]) * input[below[j]] + weight[j] * input[above[j]].

    Attributes:
        below: index of the input voxel at or before each position; positions outside take the border's voxel.
        above: index of the next one; the same where the weight is 0.
        weight: in [0, 1).
    """

    below: NDArray[np.intp]
    above: NDArray[np.intp]
    weight: NDArray[np.float32]

    @classmethod
    def at(cls, positions: Positions, size: int) -> "AxisSampling":
        """Sampling of an axis of `size` voxels; positions beyond the outermost voxel centres are clamped."""
        clamped = np.clip(positions, 0, size - 1)
        below = np.floor(clamped).astype(np.intp)
        weight = (clamped - below).astype(np.float32)
        above = np.where(weight > 0, np.minimum(below + 1, size - 1), below)
        return cls(below, above, weight)

    @property
    def is_gather(self) -> bool:
        """Whether every output is one input voxel as it is."""
        return not self.weight.any()

    def within(self, support: slice) -> tuple["AxisSampling", slice]:
        """Restricts to an input that is zero outside `support`.

        Returns:
            The sampling, its indices counted from the start of the input range it needs (`reach`), of the outputs that
            can be other than zero; and those outputs' range.
        """
        touched = np.flatnonzero((self.above >= support.start) & (self.below < support.stop))
        if not touched.size:
            return AxisSampling(self.below[:0], self.above[:0], self.weight[:0]), slice(0, 0)
        outputs = slice(int(touched[0]), int(touched[-1]) + 1)
        return AxisSampling(self.below[outputs], self.above[outputs], self.weight[outputs]), outputs

    @property
    def reach(self) -> slice:
        """The input voxels that are read."""
        if not self.below.size:
            return slice(0, 0)
        return slice(int(self.below.min()), int(self.above.max()) + 1)


def sample(volume: NDArray[np.generic], axes: Sequence[AxisSampling]) -> tuple[FloatVolume, Box]:
    """Samples a volume along its three axes.

    Args:
        volume: shape (x, y, z), any real type, any memory order.
        axes: one for each axis.

    Returns:
        The part of the result that can be other than zero, and where it lies in the whole (empty slices: nowhere).
    """
    support = bounding_box(volume != 0)
    if support is None:
        return np.zeros((0, 0, 0), dtype=np.float32), (slice(0, 0),) * 3
    restricted = [axis.within(side) for axis, side in zip(axes, support, strict=True)]
    inner, outputs = [axis for axis, _ in restricted], tuple(side for _, side in restricted)
    part = volume[tuple(axis.reach for axis in inner)]
    # Fortran order is what files come in: work on the transposed view, whose last axis is then contiguous.
    if not part.flags.c_contiguous and abs(part.strides[0]) < abs(part.strides[2]):
        return _sample_part(part.transpose(2, 1, 0), inner[::-1]).transpose(2, 1, 0), outputs
    return _sample_part(part, inner), outputs


def _sample_part(part: NDArray[np.generic], axes: Sequence[AxisSampling]) -> FloatVolume:
    """The two inner axes plane by plane, which fit into the cache, then the outer one."""
    outer, middle, inner = (_shifted(axis) for axis in axes)
    out = np.empty((part.shape[0], middle.below.size, inner.below.size), dtype=np.float32)
    for plane, target in zip(part, out, strict=True):
        target[...] = _along(_along(plane.astype(np.float32, copy=False), middle, 0), inner, 1)
    return _along(out, outer, 0)


def _shifted(axis: AxisSampling) -> AxisSampling:
    start = axis.reach.start
    return AxisSampling(axis.below - start, axis.above - start, axis.weight)


def _along(values: FloatVolume, sampling: AxisSampling, axis: int) -> FloatVolume:
    below = np.take(values, sampling.below, axis=axis)
    if sampling.is_gather:
        return below
    above = np.take(values, sampling.above, axis=axis)
    shape = [1] * values.ndim
    shape[axis] = -1
    above -= below
    above *= sampling.weight.reshape(shape)
    above += below
    return above
