"""Small lesions that interpolation onto another grid would lose keep one voxel."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.labels import RegionMasks
from metseg.space.components import Components, find_components
from metseg.space.grid import Grid

BORDER_SLACK_VOXELS: Final = 1e-3
"""A voxel's centre exactly on the grid's outer face lies inside, whatever the affines' rounding says."""

Indices = NDArray[np.intp]
"""Shape (3, n): voxels."""


def restore_lost_lesions(moved: RegionMasks, to_grid: Grid, masks: RegionMasks, from_grid: Grid) -> Indices:
    """Adds a voxel for each lesion that did not survive the move to another grid.

    A lesion (26-connected component of one region) is lost when the voxels nearest to its own are all empty in the
    region after the move. It then gets the voxel whose centre is nearest to the centre of one of its own (on a tie, of
    the one closest to its centre of mass), in its region and in every larger region that its own voxel belongs to.

    Voxels whose centre lies outside the new grid's field of view (its outermost centres and half a voxel more) take no
    part, and a lesion that lies there as a whole is not on that grid: nothing is added for it.

    Args:
        moved: shape (regions, x, y, z) on `to_grid`, each region before those that lie inside it; changed in place.
        to_grid: the grid after the move.
        masks: shape (regions, x, y, z) on `from_grid`: the regions before the move.
        from_grid: the grid before the move.

    Returns:
        The voxels that were added, shape (3, n).
    """
    added: list[Indices] = []
    to_index = np.linalg.inv(to_grid.affine) @ from_grid.affine
    for channel, mask in enumerate(masks):
        lesions = find_components(mask)
        if not lesions.sizes.size:
            continue
        own = np.stack(np.unravel_index(lesions.voxels, mask.shape))
        exact = to_index[:3, :3] @ own + to_index[:3, 3:]
        inside = _is_inside(exact, to_grid.shape)
        nearest = np.clip(np.rint(exact).astype(np.intp), 0, np.array(to_grid.shape)[:, None] - 1)
        is_here = np.bincount(lesions.component_of, weights=inside)[1:] > 0
        kept = np.bincount(lesions.component_of, weights=inside & moved[channel][tuple(nearest)])[1:] > 0
        lost = is_here & ~kept
        if not lost.any():
            continue
        off_mm = np.where(inside, np.linalg.norm(to_grid.affine[:3, :3] @ (exact - nearest), axis=0), np.inf)
        for voxel in _representatives(lesions, lost, off_mm, own):
            for larger in range(channel + 1):
                if masks[larger][tuple(own[:, voxel])]:
                    moved[larger][tuple(nearest[:, voxel])] = True
            added.append(nearest[:, voxel])
    return np.stack(added, axis=1) if added else np.zeros((3, 0), dtype=np.intp)


def count_outside(mask: NDArray[np.bool_], from_grid: Grid, to_grid: Grid) -> int:
    """How many lesions (26-connected components) of a mask have no voxel's centre in another grid's field of view.

    Args:
        mask: shape `from_grid.shape`.
        from_grid: where it lies, in `to_grid`'s world.
        to_grid: the other grid.
    """
    lesions = find_components(mask)
    own = np.stack(np.unravel_index(lesions.voxels, mask.shape))
    to_index = np.linalg.inv(to_grid.affine) @ from_grid.affine
    inside = _is_inside(to_index[:3, :3] @ own + to_index[:3, 3:], to_grid.shape)
    return int(np.count_nonzero(np.bincount(lesions.component_of, weights=inside)[1:] == 0))


def _is_inside(exact: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Which positions, shape (3, n) in voxels, lie in a grid's field of view."""
    sizes = np.array(shape)[:, None]
    along_axes = np.abs(exact - (sizes - 1) / 2) <= sizes / 2 + BORDER_SLACK_VOXELS
    inside: NDArray[np.bool_] = np.logical_and.reduce(along_axes, axis=0)
    return inside


def _representatives(
    lesions: Components, lost: NDArray[np.bool_], off_mm: NDArray[np.float64], own: Indices
) -> list[int]:
    """For each lost lesion, which of `lesions.voxels` stands for it: the one with the smallest offset."""
    chosen = []
    for component in np.flatnonzero(lost) + 1:
        members = np.flatnonzero(lesions.component_of == component)
        from_centre = np.linalg.norm(own[:, members] - own[:, members].mean(axis=1, keepdims=True), axis=0)
        # Rounded, so that offsets that are equal but for rounding errors tie.
        order = np.lexsort((from_centre, np.round(off_mm[members], 3)))
        chosen.append(int(members[order[0]]))
    return chosen
