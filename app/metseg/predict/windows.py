"""Where the sliding window goes: MONAI's semantics, restricted to the brain's bounding box.

MONAI's `SlidingWindowInferer` scans the whole volume; most of a skull-stripped one is background. Here windows cover
the brain's box alone, or, with `extent: volume`, are those of the scan that see some of it. Where a window is larger
than the box it reaches into the surrounding voxels, and beyond the volume's border the border voxel is repeated
(replicate padding, as AURORA does).
"""

from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray

from metseg.plan.plan import WindowPlan
from metseg.space.blocks import Element, Triple, cut_repeated, paste
from metseg.space.components import Box

SIGMA_PER_SIDE = 0.125
"""Standard deviation of the Gaussian weighting, per side of the window (MONAI's default)."""

MIN_WEIGHT = 1e-3
"""No voxel of a window weighs less (MONAI's default)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Windows over a box of the network's grid.

    Attributes:
        start: first voxel of the box along each axis; negative where the box overhangs the volume.
        shape: voxels of the box along each axis.
        window: sides of every window.
        origins: first voxel of each window, relative to the box.
    """

    start: Triple
    shape: Triple
    window: Triple
    origins: tuple[Triple, ...]

    def window_at(self, origin: Triple) -> tuple[slice, slice, slice]:
        """The voxels of the box that the window with this first voxel covers."""
        x, y, z = (slice(first, first + side) for first, side in zip(origin, self.window, strict=True))
        return x, y, z

    def cut(self, volume: NDArray[np.float32]) -> NDArray[np.float32]:
        """Copies the box out of a volume (x, y, z), repeating border voxels where it overhangs."""
        return cut_repeated(volume, self.start, self.shape)

    def paste(self, box: NDArray[Element], volume_shape: Triple) -> NDArray[Element]:
        """Puts the box's voxels, shape (..., *shape), back into an empty volume; what overhangs is dropped."""
        return paste(box, self.start, volume_shape)

    def move(self, box: NDArray[Element], other: "Layout") -> NDArray[Element]:
        """Brings (channels, x, y, z) on this layout's box to another's, 0 where only the other reaches."""
        if (self.start, self.shape) == (other.start, other.shape):
            return box
        x, y, z = (here - there for here, there in zip(self.start, other.start, strict=True))
        return paste(box, (x, y, z), other.shape)


def lay_windows(volume_shape: Triple, brain: Box, plan: WindowPlan, multiples: Triple = (8, 8, 8)) -> Layout:
    """Places the windows that cover the brain's box.

    Args:
        volume_shape: the network's grid.
        brain: the box to cover; an empty one is covered by a single window.
        plan: sides, overlap, extent.
        multiples: what the sides of a window divide by (`Plan.side_multiples`).
    """
    axes = [
        _lay_axis(limit, box, side, multiple, plan)
        for limit, box, side, multiple in zip(volume_shape, brain, plan.size, multiples, strict=True)
    ]
    (x, y, z) = axes
    return Layout(
        start=(x.start, y.start, z.start),
        shape=(x.length, y.length, z.length),
        window=(x.side, y.side, z.side),
        origins=tuple(product(x.origins, y.origins, z.origins)),
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    start: int
    length: int
    side: int
    origins: tuple[int, ...]


def _lay_axis(limit: int, box: slice, side: int, multiple: int, plan: WindowPlan) -> _Axis:
    if plan.extent == "volume":
        return _lay_scan(limit, box, side, plan)
    box_start, box_side = box.start, max(box.stop - box.start, 1)
    rounded = ceil(box_side / multiple) * multiple
    if plan.extent == "whole":
        side = rounded
    elif plan.extent == "trimmed":
        side = min(side, rounded)
    if box_side <= side:
        centred = box_start - (side - box_side) // 2
        start = min(max(centred, 0), limit - side) if limit >= side else -((side - limit) // 2)
        return _Axis(start, side, side, (0,))
    return _Axis(box_start, box_side, side, _scan(box_side, side, plan.overlap))


def _scan(length: int, side: int, overlap: float) -> tuple[int, ...]:
    """First voxels of the windows over a length of voxels, the last one moved back to end with it (MONAI's places)."""
    step = max(int(side * (1 - overlap)), 1)
    count = ceil((length - side) / step) + 1
    return tuple(min(number * step, length - side) for number in range(count))


def _lay_scan(limit: int, box: slice, side: int, plan: WindowPlan) -> _Axis:
    """The windows of a scan over the whole volume that see some of the brain.

    Where several hold all of it along this axis, the most central one stands for them: away from a window's border a
    network answers alike wherever the brain lies in it, and group norm sees as much background.
    """
    if side >= limit:
        return _Axis(-((side - limit) // 2), side, side, (0,))
    first, last = box.start, max(box.stop, box.start + 1)
    seeing = [origin for origin in _scan(limit, side, plan.overlap) if origin < last and first < origin + side]
    holding = [origin for origin in seeing if origin <= first and last <= origin + side]
    if holding:
        seeing = [min(holding, key=lambda origin: abs(2 * origin + side - first - last))]
    start = seeing[0]
    return _Axis(start, seeing[-1] + side - start, side, tuple(origin - start for origin in seeing))


def gaussian_weights(window: Triple) -> NDArray[np.float32]:
    """Weight of each voxel of a window, as MONAI's `compute_importance_map(mode="gaussian")` has it.

    Returns:
        Shape `window`, above 0, 1 at the centre.
    """
    weights = np.ones(window, dtype=np.float32)
    for axis, side in enumerate(window):
        offsets = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
        profile = np.exp(offsets**2 / np.float32(-2 * (SIGMA_PER_SIDE * side) ** 2))
        shape = [1, 1, 1]
        shape[axis] = side
        weights = weights * profile.reshape(shape)
    smallest = max(float(weights.min()), MIN_WEIGHT)
    return np.maximum(weights, np.float32(smallest))
