"""Linear interpolation along the axes of a volume, in time in proportion to the part that is not zero.

Grids here differ by spacing and offset along their axes, never by a rotation. So interpolation is one small two-tap
filter after the other. Everything outside the bounding box of what is not zero stays zero.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from metseg.space.components import Box, bounding_box
from metseg.space.grid import FloatVolume

Positions = NDArray[np.float64]
"""Shape (outputs,): where each output voxel lies along an axis, in input voxels; monotone."""

Plane = NDArray[np.float32]
"""Shape (rows, columns)."""

Element = TypeVar("Element", bound=np.generic)

KEPT_PLANES: Final = 3
"""Two are needed at a time; a third, because a flipped axis asks for them in the other order."""


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
    return _sample(volume, axes, np.dtype(np.float32), lambda plane: plane)


def sample_mask(
    mask: NDArray[np.bool_], axes: Sequence[AxisSampling], threshold: float
) -> tuple[NDArray[np.bool_], Box]:
    """Samples a mask, 0 or 1, and cuts it at a threshold; otherwise as `sample`, without the volume of floats."""
    return _sample(mask, axes, np.dtype(np.bool_), lambda plane: plane >= threshold)


def _sample(
    volume: NDArray[np.generic],
    axes: Sequence[AxisSampling],
    dtype: np.dtype[Element],
    finish: Callable[[Plane], NDArray[Any]],
) -> tuple[NDArray[Element], Box]:
    support = bounding_box(volume != 0)
    if support is None:
        return np.zeros((0, 0, 0), dtype=dtype), (slice(0, 0),) * 3
    restricted = [axis.within(side) for axis, side in zip(axes, support, strict=True)]
    inner, outputs = [axis for axis, _ in restricted], tuple(side for _, side in restricted)
    part = volume[tuple(axis.reach for axis in inner)]
    # Fortran order is what files come in: work on the transposed view, whose last axis is then contiguous.
    is_fortran = abs(part.strides[0]) < abs(part.strides[2])
    if is_fortran:
        part, inner = part.transpose(2, 1, 0), inner[::-1]
    out = np.empty([axis.below.size for axis in inner], dtype=dtype)
    for target, plane in zip(out, _planes(part, inner), strict=True):
        target[...] = finish(plane)
    return (out.transpose(2, 1, 0) if is_fortran else out), outputs


def _planes(part: NDArray[np.generic], axes: Sequence[AxisSampling]) -> Iterator[Plane]:
    """The output plane by plane, from at most three sampled input planes that stay in the cache."""
    outer, middle, inner = (_counted_from_reach(axis) for axis in axes)
    sampled: dict[int, Plane] = {}

    def plane_at(index: int) -> Plane:
        if index not in sampled:
            if len(sampled) >= KEPT_PLANES:
                del sampled[next(iter(sampled))]
            rows = _along(part[index].astype(np.float32, copy=False), middle, 0)
            sampled[index] = _along(rows, inner, 1)
        return sampled[index]

    for below, above, weight in zip(outer.below.tolist(), outer.above.tolist(), outer.weight, strict=True):
        plane = plane_at(below)
        yield plane if weight == 0 else plane + weight * (plane_at(above) - plane)


def _counted_from_reach(axis: AxisSampling) -> AxisSampling:
    start = axis.reach.start
    return AxisSampling(axis.below - start, axis.above - start, axis.weight)


def _along(values: Plane, sampling: AxisSampling, axis: int) -> Plane:
    if sampling.is_gather:
        is_same = sampling.below.size == values.shape[axis] and bool((np.diff(sampling.below) == 1).all())
        return values if is_same else np.take(values, sampling.below, axis=axis)
    below = np.take(values, sampling.below, axis=axis)
    above = np.take(values, sampling.above, axis=axis)
    above -= below
    above *= sampling.weight[:, None] if axis == 0 else sampling.weight
    above += below
    return above
