"""Connected components of a mask, 26-connected: what the method calls a lesion (Erdur et al. 2023, section 2.8).

Everything here costs time in proportion to the mask's bounding box, not to the volume around it.
"""

from dataclasses import dataclass
from typing import Final

import cc3d
import numpy as np
from numpy.typing import NDArray

CONNECTIVITY: Final = 26
"""Voxels that share a face, an edge or a corner belong together."""

ROUNDING_VOXELS: Final = 1e-3
"""A header may say 0.9999999 mm for 1 mm: a component is small only when it falls short by more than this."""

Box = tuple[slice, ...]
"""One slice per axis."""


@dataclass(frozen=True, slots=True)
class Components:
    """The components of a mask.

    Numbers start at 1 and follow the order in which a scan of the array meets the components (last axis fastest), so
    they depend on the mask alone, never on how it lies in memory.

    Attributes:
        voxels: shape (v,): flat indices, in C order and ascending, of the mask's voxels.
        component_of: shape (v,): the component of each of `voxels`, from 1.
        sizes: shape (components,): voxels of each component; component 1 comes first.
        shape: of the mask.
    """

    voxels: NDArray[np.intp]
    component_of: NDArray[np.intp]
    sizes: NDArray[np.intp]
    shape: tuple[int, ...]

    def smaller_than(self, voxels: float) -> NDArray[np.bool_]:
        """Shape (components,): which have strictly fewer voxels, or less volume in voxels, than that."""
        is_smaller: NDArray[np.bool_] = self.sizes < voxels - ROUNDING_VOXELS
        return is_smaller

    def voxels_of(self, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Flat indices of the voxels of some components; `chosen` has shape (components,)."""
        return self.voxels[chosen[self.component_of - 1]]

    def to_volume(self) -> NDArray[np.int32]:
        """The components' numbers in an array of `shape`, 0 outside the mask."""
        volume = np.zeros(int(np.prod(self.shape)), dtype=np.int32)
        volume[self.voxels] = self.component_of
        return volume.reshape(self.shape)


def bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds every true voxel of a 3-D mask, or None where there is none."""
    plane = np.logical_or.reduce(mask, axis=0)
    sides = (mask.any(axis=(1, 2)), plane.any(axis=1), plane.any(axis=0))
    ends = [np.flatnonzero(side)[[0, -1]] if side.any() else None for side in sides]
    box = tuple(slice(int(end[0]), int(end[1]) + 1) for end in ends if end is not None)
    return box or None


def find_components(mask: NDArray[np.bool_]) -> Components:
    """Splits a mask into its 26-connected components.

    Args:
        mask: shape (x, y, z); may be empty, then there is no component.

    Returns:
        The components, numbered in scanning order.
    """
    box = bounding_box(mask)
    if box is None:
        nothing = np.zeros(0, dtype=np.intp)
        return Components(nothing, nothing, nothing, mask.shape)
    inner = mask[box]
    # cc3d 4.1 reserves (x + 1)(y + 1)(z + 1) / 8 labels, background included: one too few where all sides are odd and
    # every second voxel is a component. It then raises, so each side is made even with a background layer.
    boxed = np.zeros([side + side % 2 for side in inner.shape], dtype=np.bool_)
    boxed[tuple(slice(side) for side in inner.shape)] = inner
    volume = cc3d.connected_components(boxed, connectivity=CONNECTIVITY)
    inside = np.flatnonzero(boxed)
    numbers = volume.ravel()[inside].astype(np.intp)
    corner = [side.start for side in box]
    position = np.unravel_index(inside, boxed.shape)
    voxels = np.ravel_multi_index([axis + start for axis, start in zip(position, corner, strict=True)], mask.shape)
    return _in_scanning_order(voxels, numbers, mask.shape)


def _in_scanning_order(voxels: NDArray[np.intp], numbers: NDArray[np.intp], shape: tuple[int, ...]) -> Components:
    """Renumbers components, given in any numbering from 1, by their first voxel."""
    sizes = np.bincount(numbers)[1:]
    first = np.empty(sizes.size, dtype=np.intp)
    # Written from the last voxel to the first: what stays is the first.
    first[numbers[::-1] - 1] = np.arange(numbers.size)[::-1]
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(1, order.size + 1)
    return Components(voxels, rank[numbers - 1], sizes[order], shape)
