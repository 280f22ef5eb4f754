"""What the protocols count in components: dilated groups, overlaps, centroids.

Both protocols take voxels that share a corner as one component (docs/scores.md), as the whole project does.
"""

from itertools import product
from typing import Final

import numpy as np

from evaluation.joint_box import FloatArray, IntArray, JointBox
from metseg.space.components import Components, components_of_voxels

STEPS_OF_18: Final = tuple(
    step
    for step in product((-1, 0, 1), repeat=3)
    if 0 < sum(map(abs, step)) <= 2  # noqa: PLR2004
)
"""Offsets of the 18 neighbours that share a face or an edge: the structure that the 2023 protocol dilates with."""


def split_region(indices: IntArray, box: JointBox) -> Components:
    """Components of the mask whose voxels have these ascending flat indices.

    They are numbered by their first voxels in (z, y, x) order, as the official 2026 program numbers them: its ties
    depend on it.
    """
    return components_of_voxels(indices.astype(np.intp, copy=False), box.shape_zyx)


def dilate(indices: IntArray, box: JointBox, iterations: int) -> IntArray:
    """Flat indices, ascending, of the mask dilated with the 18-neighbour structure.

    The box's margin must exceed `iterations`. A dilation may leave the grid: that never joins what the grid's border
    would have kept apart, as the part outside lies over a wider part inside.
    """
    grown = box.mark(indices)
    latest = indices
    for _ in range(iterations):
        added = []
        for step in STEPS_OF_18:
            reached = latest + box.measure_step(*step)
            fresh = reached[~grown[reached]]
            grown[fresh] = True
            added.append(fresh)
        latest = np.concatenate(added)  # only what this pass added can reach anything new in the next
    return np.flatnonzero(grown)


def group_by_dilation(indices: IntArray, box: JointBox, iterations: int) -> tuple[Components, IntArray]:
    """Lesions as the 2023 protocol counts them: parts whose dilations touch are one lesion.

    Returns:
        The lesions of the mask itself, and the lesion that each voxel of the box lies in after dilation (0: none;
        shape (box.size,)): a dilated lesion is exactly one component of the dilated mask.
    """
    dilated = split_region(dilate(indices, box, iterations), box)
    lesion_at = dilated.to_volume().ravel()
    lesions = Components.of(
        indices.astype(np.intp, copy=False), lesion_at[indices].astype(np.intp), dilated.count, box.shape_zyx
    )
    return lesions, lesion_at


def count_pairs(first: IntArray, second: IntArray) -> dict[tuple[int, int], int]:
    """How often each pair of positive numbers occurs at the same place; pairs ascending."""
    both = (first > 0) & (second > 0)
    if not both.any():
        return {}
    base = int(second.max()) + 1
    keys, counts = np.unique(first[both].astype(np.int64) * base + second[both], return_counts=True)
    return {(int(key) // base, int(key) % base): int(count) for key, count in zip(keys, counts, strict=True)}


def find_centroids(components: Components, box: JointBox) -> FloatArray:
    """Mean coordinates of each component on the whole grid: shape (components, 3), columns x, y, z, in voxels."""
    centroids: FloatArray = components.centroids(start=box.start_xyz[::-1])[:, ::-1]
    return centroids
