"""Between grids that a rigid transform lies between: the planning CT's and the MR's (docs/radiosurgery.md).

`resampling` moves along axes alone; here every output voxel is looked up where the transform says.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from metseg.labels import LabelMap, Regions
from metseg.space.components import Box, bounding_box
from metseg.space.grid import Affine, FloatVolume, Grid
from metseg.space.resampling import HALF
from metseg.space.tiny_lesions import count_outside, restore_lost_lesions


def resample_rigid(volume: FloatVolume, grid: Grid, to_grid: Grid, to_source: Affine, *, outside: float) -> FloatVolume:
    """Brings an image to another grid.

    Args:
        volume: shape `grid.shape`.
        grid: where it lies.
        to_grid: the grid wanted.
        to_source: shape (4, 4): a point of `to_grid`'s world, in RAS millimetres, to the same point in `grid`'s.
        outside: value beyond the volume.

    Returns:
        Shape `to_grid.shape`, float32, linear between voxel centres.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    index = np.linalg.inv(grid.affine) @ to_source @ to_grid.affine
    moved: FloatVolume = ndimage.affine_transform(
        volume, index[:3, :3], index[:3, 3], to_grid.shape, np.float32, order=1, mode="constant", cval=outside
    )
    return moved


def move_labels(labels: LabelMap, grid: Grid, to_grid: Grid, from_source: Affine, regions: Regions) -> LabelMap:
    """Brings a label map to another grid, region by region: linear, cut at a half, and no lesion on it is lost.

    Args:
        labels: shape `grid.shape`; labels that belong to no region become background.
        grid: where it lies.
        to_grid: the grid wanted.
        from_source: shape (4, 4): a point of `grid`'s world to the same point in `to_grid`'s.
        regions: those of the label map.

    Returns:
        Shape `to_grid.shape`; a lesion that would vanish keeps one voxel (`restore_lost_lesions`), one that lies
        outside that grid has none.
    """
    masks = regions.split(labels)
    moved = np.stack([_move_mask(mask, grid, to_grid, from_source) for mask in masks])
    restore_lost_lesions(moved, to_grid, masks, Grid(grid.shape, from_source @ grid.affine))
    return regions.decode(moved)


def lesions_outside(labels: LabelMap, grid: Grid, to_grid: Grid, from_source: Affine, regions: Regions) -> int:
    """How many lesions of a map (components of the whole region) `move_labels` leaves out: none of it is on the grid.

    See `move_labels` for the arguments.
    """
    return count_outside(regions.whole_mask(labels), Grid(grid.shape, from_source @ grid.affine), to_grid)


def _move_mask(mask: NDArray[np.bool_], grid: Grid, to_grid: Grid, from_source: Affine) -> NDArray[np.bool_]:
    moved = np.zeros(to_grid.shape, dtype=np.bool_)
    box = bounding_box(mask)
    if box is None:
        return moved
    index = np.linalg.inv(to_grid.affine) @ from_source @ grid.affine
    target = _box_around(box, index, to_grid.shape)
    part = _cut_grid(to_grid, target)
    if min(part.shape) > 0:
        to_source: Affine = np.linalg.inv(from_source).astype(np.float64)
        soft = resample_rigid(mask.astype(np.float32), grid, part, to_source, outside=0.0)
        moved[target] = soft >= HALF
    return moved


def _box_around(box: Box, index: Affine, shape: tuple[int, int, int]) -> Box:
    """Where in the other grid a box can reach."""
    corners = np.array(list(product(*((side.start - 1, side.stop) for side in box))), dtype=np.float64).T
    places = index[:3, :3] @ corners + index[:3, 3:]
    low = np.clip(np.floor(places.min(axis=1)), 0, shape).astype(int)
    high = np.clip(np.ceil(places.max(axis=1)) + 1, 0, shape).astype(int)
    return tuple(slice(int(first), int(end)) for first, end in zip(low, high, strict=True))


def _cut_grid(grid: Grid, box: Box) -> Grid:
    start = np.eye(4)
    start[:3, 3] = [side.start for side in box]
    x, y, z = (max(side.stop - side.start, 0) for side in box)
    return Grid((x, y, z), grid.affine @ start)
