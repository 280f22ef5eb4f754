"""Connected components of a mask, 26-connected: what the method calls a lesion (Erdur et al. 2023, section 2.8).

Everything here costs time in proportion to the mask's bounding box, not to the volume around it.
"""

from collections.abc import Sequence
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

    Numbers start at 1 and follow the order in which a scan of the array meets the components (last axis fastest). They
    depend on the mask alone, never on how it lies in memory; those of a transposed mask follow the transposed array.

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

    @classmethod
    def of(
        cls, voxels: NDArray[np.intp], component_of: NDArray[np.intp], count: int, shape: tuple[int, ...]
    ) -> "Components":
        """Counts the voxels of each of `count` components, however they were made."""
        return cls(voxels, component_of, np.bincount(component_of, minlength=count + 1)[1:], shape)

    @property
    def count(self) -> int:
        """How many components there are."""
        return self.sizes.size

    def largest_first(self) -> NDArray[np.intp]:
        """Shape (components,): their indices from 0 by size; equal ones in scanning order. So lesions are numbered."""
        return np.argsort(-self.sizes, kind="stable")

    def smaller_than(self, voxels: float) -> NDArray[np.bool_]:
        """Shape (components,): which have strictly fewer voxels, or less volume in voxels, than that."""
        is_smaller: NDArray[np.bool_] = self.sizes < voxels - ROUNDING_VOXELS
        return is_smaller

    def pick_voxels(self, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Flat indices of the voxels of some components; `chosen` has shape (components,)."""
        return self.voxels[chosen[self.component_of - 1]]

    def to_volume(self) -> NDArray[np.int32]:
        """The components' numbers in an array of `shape`, 0 outside the mask."""
        volume = np.zeros(int(np.prod(self.shape)), dtype=np.int32)
        volume[self.voxels] = self.component_of
        return volume.reshape(self.shape)

    def centroids(self, start: Sequence[int] = (0, 0, 0)) -> NDArray[np.float64]:
        """Mean voxel coordinates of each component, shape (components, 3), columns in the order of the array's axes.

        Args:
            start: coordinates of the array's first voxel: those of a part of a volume count from the volume's.
        """
        axes = np.unravel_index(self.voxels, self.shape)
        sums = [
            np.bincount(self.component_of, weights=along + first, minlength=self.count + 1)[1:]
            for along, first in zip(axes, start, strict=True)
        ]
        centroids: NDArray[np.float64] = np.stack(sums, axis=1) / self.sizes[:, None]
        return centroids


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
        return components_of_voxels(np.zeros(0, dtype=np.intp), mask.shape)
    inner = mask[box]
    in_box = np.flatnonzero(inner)
    position = np.unravel_index(in_box, inner.shape)
    in_mask = [axis + side.start for axis, side in zip(position, box, strict=True)]
    voxels = np.ravel_multi_index(in_mask, mask.shape)
    return _in_scanning_order(voxels, _numbers(in_box, inner.shape), mask.shape)


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without all but its largest component; of several, the first in scanning order. Empty where it is."""
    components = find_components(mask)
    largest = np.zeros_like(mask)
    if components.count:
        chosen = np.arange(components.count) == components.sizes.argmax()
        largest.reshape(-1)[components.pick_voxels(chosen)] = True
    return largest


def components_of_voxels(voxels: NDArray[np.intp], shape: tuple[int, ...]) -> Components:
    """The same for a mask that is given by its voxels, in time in proportion to its shape.

    Args:
        voxels: shape (v,): flat indices, in C order and ascending.
        shape: of the mask: three sides.
    """
    if not voxels.size:
        nothing = np.zeros(0, dtype=np.intp)
        return Components(nothing, nothing, nothing, shape)
    return _in_scanning_order(voxels, _numbers(voxels, shape), shape)


def _numbers(voxels: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """The component of each voxel, from 1, in any order of numbers."""
    # cc3d 4.1 reserves (x + 1)(y + 1)(z + 1) / 8 labels, background included, and raises where every second voxel is a
    # component: one too few where all sides are odd. Two more planes, which move no flat index, are room for one more.
    dense = np.zeros((shape[0] + 2, *shape[1:]), dtype=np.bool_)
    dense.reshape(-1)[voxels] = True
    volume = cc3d.connected_components(dense, connectivity=CONNECTIVITY, binary_image=True)
    numbers: NDArray[np.intp] = volume.reshape(-1)[voxels].astype(np.intp)
    return numbers


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
