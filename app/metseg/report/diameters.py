"""The longest diameters of a mask, in millimetres, on any grid.

A diameter runs from outline to outline. The outline lies half-way between a voxel inside and its neighbour outside, as
in the meshes of image-analysis programs: a row of n voxels of side s is n * s long, a single voxel s.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.space.grid import Grid

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
"""Shape (n, axes)."""

ROUNDING_MM: Final = 1e-9
"""Diameters that differ by less are equal."""

HULL_FROM: Final = 64
"""Fewer outline points are compared pair by pair; of more, those on their convex hull: the furthest two are there."""


@dataclass(frozen=True, slots=True)
class AxialDiameter:
    """The longest diameter of a mask within one axial slice.

    Attributes:
        length_mm: length of the diameter; 0 for an empty mask.
        slice_index: number of the slice, along the grid's axis that runs closest to inferior-superior.
    """

    length_mm: float
    slice_index: int


def find_axial_axis(grid: Grid) -> int:
    """The array axis across axial slices: the one that runs closest to inferior-superior."""
    return _find_axial_axis(np.asarray(grid.affine, dtype=np.float64).tobytes())


@lru_cache(maxsize=16)
def _find_axial_axis(affine: bytes) -> int:
    """Remembered, because each lesion asks three times and the answer takes a millisecond."""
    from nibabel.orientations import io_orientation  # noqa: PLC0415 - half a second that `--help` does without

    axes = io_orientation(np.frombuffer(affine).reshape(4, 4))[:, 0]
    return int(np.flatnonzero(axes == 2)[0])  # noqa: PLR2004 - the third of R, A, S


def measure_axial_diameter(mask: Mask, grid: Grid) -> AxialDiameter:
    """The longest diameter in the plane of any axial slice, as RANO-BM measures (Lin et al. 2015).

    Slices are the grid's own: on an oblique grid they tilt with it, as they do on the reader's screen.

    Args:
        mask: shape (x, y, z), any box cut from the grid.
        grid: gives the voxels' sides and directions; its origin and shape don't matter.

    Returns:
        Length and slice; of slices with equal diameters the first.
    """
    axis = find_axial_axis(grid)
    in_plane = np.delete(grid.affine[:3, :3], axis, axis=1)
    layers = np.moveaxis(mask, axis, 0)
    limits_mm = [_bound_mm(layer, in_plane) for layer in layers]
    best = AxialDiameter(0.0, 0)
    # The most promising slices first: the others' limits then rule most of them out.
    for number in sorted(range(len(layers)), key=lambda index: -limits_mm[index]):
        if not limits_mm[number] or limits_mm[number] < best.length_mm - ROUNDING_MM:
            break
        length_mm = _measure_farthest_mm(_find_outline(layers[number]) @ in_plane.T)
        ahead = length_mm - best.length_mm
        if ahead > ROUNDING_MM or (ahead > -ROUNDING_MM and number < best.slice_index):
            best = AxialDiameter(length_mm, number)
    return best


def _bound_mm(layer: NDArray[np.bool_], in_plane: NDArray[np.float64]) -> float:
    """No two points of a slice's outline lie further apart than its box's longer diagonal; 0 for an empty slice."""
    rows, columns = np.flatnonzero(layer.any(axis=1)), np.flatnonzero(layer.any(axis=0))
    if not rows.size:
        return 0.0
    first, second = in_plane.T * np.array([[rows[-1] - rows[0] + 1], [columns[-1] - columns[0] + 1]])
    return float(max(np.linalg.norm(first + second), np.linalg.norm(first - second)))


def measure_3d_diameter_mm(mask: Mask, grid: Grid) -> float:
    """The longest distance between two points of a mask's surface, in any direction; 0 for an empty mask."""
    return _measure_farthest_mm(_find_outline(mask) @ grid.affine[:3, :3].T) if mask.any() else 0.0


def _find_outline(mask: NDArray[np.bool_]) -> Points:
    """Centres of the faces between inside and outside, in voxels."""
    padded = np.pad(mask, 1)
    points = []
    for axis in range(mask.ndim):
        crossing = np.argwhere(np.diff(padded, axis=axis)).astype(np.float64)
        # The face after padded voxel i is that of voxel i - 1, at i - 0.5.
        crossing -= 1
        crossing[:, axis] += 0.5
        points.append(crossing)
    return np.concatenate(points)


def _measure_farthest_mm(points: Points) -> float:
    if len(points) > HULL_FROM:
        from scipy.spatial import ConvexHull  # noqa: PLC0415 - slow to import

        # An outline of a mask encloses an area (volume), so the hull never degenerates.
        points = points[_list_vertices(ConvexHull(_reduce_axes(points)))]
    from scipy.spatial.distance import pdist  # noqa: PLC0415

    return float(pdist(points).max())


def _reduce_axes(points: Points) -> Points:
    """The same distances in as many coordinates as the points have dimensions: a slice's points lie in a plane."""
    centred = points - points.mean(axis=0)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(centred @ directions[spread > 1e-6 * spread[0]].T)


def _list_vertices(hull: object) -> NDArray[np.intp]:
    return np.asarray(hull.vertices)  # type: ignore[attr-defined]
