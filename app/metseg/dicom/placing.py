"""A label map on the grid of a series: the same voxels in another order, or another grid beyond a registration."""

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.labels import LabelMap
from metseg.space.components import Box, bounding_box
from metseg.space.grid import Affine, Grid, grid_difference

SAMPLES_PER_VOXEL: Final = 3.0
"""How densely a lesion is looked up: so many places per side of the label map's smallest voxel, or more."""


def turn_onto(labels: LabelMap, grid: Grid, to_grid: Grid) -> tuple[LabelMap, str]:
    """Brings a label map's axes into the order and direction of another grid's.

    Args:
        labels: shape `grid.shape`.
        grid: of the labels.
        to_grid: the other grid.

    Returns:
        The turned label map, and how its grid then differs from the other one; empty where it is the same.
    """
    from nibabel.orientations import (  # noqa: PLC0415 - half a second that other commands do without
        apply_orientation,
        inv_ornt_aff,
        io_orientation,
        ornt_transform,
    )

    turn = ornt_transform(io_orientation(grid.affine), io_orientation(to_grid.affine))
    turned: LabelMap = np.asarray(apply_orientation(labels, turn))
    x, y, z = turned.shape
    return turned, grid_difference(Grid((x, y, z), grid.affine @ inv_ornt_aff(turn, labels.shape)), to_grid)


@dataclass(frozen=True, slots=True)
class Placed:
    """A lesion on another grid.

    Attributes:
        box: where it lies there.
        mask: shape of the box; never empty.
        is_whole: whether all of it lies in that grid's field of view.
    """

    box: Box
    mask: NDArray[np.bool_]
    is_whole: bool = True


def place_same_voxels(box: Box, mask: NDArray[np.bool_], grid: Grid, to_grid: Grid) -> Placed:
    """A lesion on a grid of the same voxels, whose axes may be permuted and flipped; see `place_by_volume`."""
    to_index = np.linalg.inv(to_grid.affine) @ grid.affine
    own = np.argwhere(mask).T + np.array([[side.start] for side in box])
    there = np.rint(to_index[:3, :3] @ own + to_index[:3, 3:]).astype(np.intp)
    first, last = there.min(axis=1), there.max(axis=1)
    moved = np.zeros(last - first + 1, dtype=np.bool_)
    moved[tuple(there - first[:, None])] = True
    return Placed(tuple(slice(int(low), int(high) + 1) for low, high in zip(first, last, strict=True)), moved)


def place_by_volume(box: Box, mask: NDArray[np.bool_], grid: Grid, to_grid: Grid) -> Placed | None:
    """A lesion on another grid, with its volume: as many voxels as it fills, those that it covers most.

    A voxel's cover is the mean of the mask, linear between its voxels' centres, over the whole voxel. A cut at a half
    would lose a lesion that is small against a voxel, and up to a fifth of one of 100 mm3.

    Args:
        box: where the lesion lies on its grid.
        mask: shape of the box.
        grid: the lesion's grid, in the world of the other one.
        to_grid: the other grid.

    Returns:
        At least one voxel, also of the smallest lesion; None where the lesion lies outside the other grid.
    """
    to_index = np.linalg.inv(to_grid.affine) @ grid.affine
    target = _box_around(box, to_index)
    cover = _measure_cover(box, mask, grid, to_grid, target)
    seen = tuple(
        slice(max(side.start, 0), min(side.stop, size)) for side, size in zip(target, to_grid.shape, strict=True)
    )
    if any(side.stop <= side.start for side in seen):
        return None
    inside = cover[tuple(slice(s.start - t.start, s.stop - t.start) for s, t in zip(seen, target, strict=True))]
    if not inside.any():
        return None
    share = float(inside.sum() / cover.sum())
    voxels = max(1, round(int(mask.sum()) * grid.voxel_volume_mm3 * share / to_grid.voxel_volume_mm3))
    chosen = np.zeros(inside.size, dtype=np.bool_)
    chosen[np.argsort(-inside, axis=None, kind="stable")[:voxels]] = True
    placed = chosen.reshape(inside.shape)
    tight = bounding_box(placed) or ()
    where = tuple(slice(s.start + t.start, s.start + t.stop) for s, t in zip(seen, tight, strict=True))
    return Placed(where, placed[tight], is_whole=share > 1 - 1e-6)


def _box_around(box: Box, to_index: Affine) -> Box:
    """The voxels of the other grid, also beyond its ends, that a box can reach."""
    corners = np.array(list(product(*((side.start - 1, side.stop) for side in box))), dtype=np.float64).T
    places = to_index[:3, :3] @ corners + to_index[:3, 3:]
    low, high = np.floor(places.min(axis=1)), np.ceil(places.max(axis=1))
    return tuple(slice(int(first), int(last) + 1) for first, last in zip(low, high, strict=True))


def _measure_cover(box: Box, mask: NDArray[np.bool_], grid: Grid, to_grid: Grid, target: Box) -> NDArray[np.float64]:
    """How much of each voxel of the target the lesion covers, 0..1; slice by slice along the third axis."""
    from scipy import ndimage  # noqa: PLC0415 - slow to import

    finest_mm = min(grid.spacing_mm) / SAMPLES_PER_VOXEL
    samples = [max(2, int(np.ceil(side / finest_mm))) for side in to_grid.spacing_mm]
    sides = [side.stop - side.start for side in target]
    to_mask = np.linalg.inv(grid.affine) @ to_grid.affine
    start = np.array([side.start for side in box])
    soft = np.pad(mask.astype(np.float32), 1)
    cover = np.empty(sides, dtype=np.float64)
    step = np.diag([1 / count for count in samples])
    for index in range(sides[2]):
        corner = np.array([target[0].start, target[1].start, target[2].start + index]) - 0.5 + step.diagonal() / 2
        origin = to_mask[:3, :3] @ corner + to_mask[:3, 3] - start + 1
        shape = (sides[0] * samples[0], sides[1] * samples[1], samples[2])
        fine = ndimage.affine_transform(soft, to_mask[:3, :3] @ step, origin, shape, np.float32, order=1)
        cover[:, :, index] = fine.reshape(sides[0], samples[0], sides[1], samples[1], samples[2]).mean((1, 3, 4))
    return cover
