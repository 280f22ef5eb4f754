"""Connected components as lists of voxels, and what is counted per component."""

from dataclasses import dataclass
from itertools import product
from typing import Final

import cc3d
import numpy as np

from evaluation.window import FloatArray, IntArray, Window

CONNECTIVITY: Final = 26
"""Voxels that share a corner belong together, in both protocols (docs/scores.md)."""

STEPS_OF_18 = tuple(step for step in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= 2)  # noqa: PLR2004
"""Offsets of the 18 neighbours that share a face or an edge: the structure that the 2023 protocol dilates with."""


@dataclass(frozen=True, slots=True)
class Components:
    """The 26-connected components of a mask.

    Attributes:
        indices: flat indices of the mask's voxels in the window, ascending.
        numbers: component of each voxel, from 1, numbered in the order of their first voxels in (z, y, x) order.
        sizes: voxels of each component; entry i belongs to component i + 1.
    """

    indices: IntArray
    numbers: IntArray
    sizes: IntArray

    @classmethod
    def of(cls, indices: IntArray, numbers: IntArray, count: int) -> "Components":
        """Counts the voxels of each of `count` components."""
        return cls(indices, numbers, np.bincount(numbers, minlength=count + 1)[1:])

    @property
    def count(self) -> int:
        """How many components there are."""
        return len(self.sizes)

    def number_volume(self, window: Window) -> IntArray:
        """Component of every voxel of the window, 0 outside; shape (window.size,), to be indexed by flat indices."""
        volume = np.zeros(window.size, dtype=np.int32)
        volume[self.indices] = self.numbers
        return volume

    def centroids(self, window: Window) -> FloatArray:
        """Mean source coordinates of each component: shape (count, 3), columns x, y, z, in voxels."""
        coordinates = window.source_coordinates(self.indices)
        sums = [np.bincount(self.numbers, weights=axis, minlength=self.count + 1)[1:] for axis in coordinates.T]
        return np.stack(sums, axis=1) / self.sizes[:, None]


def find_components(indices: IntArray, window: Window) -> Components:
    """Components of the mask whose voxels have these ascending flat indices."""
    if len(indices) == 0:
        return Components.of(indices, np.zeros(0, dtype=np.int64), 0)
    labelled = cc3d.connected_components(window.mask(indices), connectivity=CONNECTIVITY, binary_image=True)
    # The order of numbers decides ties in the 2026 protocol: set here, so it doesn't depend on the library's version.
    found = labelled.ravel()[indices]
    first = np.full(int(found.max()) + 1, len(found))
    first[found[::-1]] = np.arange(len(found))[::-1]  # of several writes to one place the last remains
    order = np.argsort(first)  # number 0, the background, occurs nowhere and comes last
    rank = np.empty(len(first), dtype=np.int32)
    rank[order] = np.arange(1, len(first) + 1)
    return Components.of(indices, rank[found], len(first) - 1)


def dilate(indices: IntArray, window: Window, iterations: int) -> IntArray:
    """Flat indices, ascending, of the mask dilated with the 18-neighbour structure.

    The window's margin must exceed `iterations`. A dilation may leave the source grid: that never joins what the
    grid's border would have kept apart, as the part outside lies over a wider part inside.
    """
    grown = np.zeros(window.size, dtype=np.bool_)
    grown[indices] = True
    latest = indices
    for _ in range(iterations):
        added = []
        for step in STEPS_OF_18:
            reached = latest + window.step(*step)
            fresh = reached[~grown[reached]]
            grown[fresh] = True
            added.append(fresh)
        latest = np.concatenate(added)  # only what this pass added can reach anything new in the next
    return np.flatnonzero(grown)


def group_by_dilation(indices: IntArray, window: Window, iterations: int) -> tuple[Components, IntArray]:
    """Lesions as the 2023 protocol counts them: parts whose dilations touch are one lesion.

    Returns:
        The lesions of the mask itself, and the lesion that each voxel of the window lies in after dilation (0: none;
        shape (window.size,)): a dilated lesion is exactly one component of the dilated mask.
    """
    reach = find_components(dilate(indices, window, iterations), window)
    volume = reach.number_volume(window)
    return Components.of(indices, volume[indices], reach.count), volume


def count_pairs(first: IntArray, second: IntArray) -> dict[tuple[int, int], int]:
    """How often each pair of positive numbers occurs at the same place; pairs ascending."""
    both = (first > 0) & (second > 0)
    if not both.any():
        return {}
    base = int(second.max()) + 1
    keys, counts = np.unique(first[both].astype(np.int64) * base + second[both], return_counts=True)
    return {(int(key) // base, int(key) % base): int(count) for key, count in zip(keys, counts, strict=True)}
