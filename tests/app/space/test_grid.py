"""Whether two grids are the same, and how they differ."""

import nibabel as nib
import numpy as np
import pytest

from metseg.space.grid import Grid, corner_shift_mm, grid_difference

TURNED = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([0.5, 0.5, 2]), [9, -4, 20])
GRID = Grid((20, 24, 11), TURNED)


def moved(offset_voxels):
    shift = np.eye(4)
    shift[:3, 3] = offset_voxels
    return Grid(GRID.shape, TURNED @ shift)


def test_rounding_and_signed_zeros_are_no_difference():
    assert grid_difference(GRID, GRID) == ""
    assert grid_difference(Grid(GRID.shape, TURNED.astype(np.float32).astype(np.float64)), GRID) == ""
    straight = np.diag([-1.0, -1, 1, 1])
    assert grid_difference(Grid((2, 3, 4), np.where(straight == 0, -0.0, straight)), Grid((2, 3, 4), straight)) == ""


def test_another_shape_is_named_first():
    assert grid_difference(Grid((20, 24, 10), TURNED), GRID) == "20x24x10 voxels, expected 20x24x11"


@pytest.mark.parametrize(("offset", "tolerance", "same"), [(0.09, 0.1, True), (0.11, 0.1, False), (0.4, 0.5, True)])
def test_corners_may_lie_apart_up_to_the_tolerance(offset, tolerance, same):
    """In units of the smallest voxel side, 0.5 mm here: along z, whose voxels have 2 mm, a quarter of the voxels."""
    assert (grid_difference(moved([offset, 0, 0]), GRID, tolerance) == "") == same
    assert (grid_difference(moved([0, 0, offset / 4]), GRID, tolerance) == "") == same


def test_a_turned_grid_is_told_by_its_axes():
    flipped = Grid(GRID.shape, TURNED @ nib.affines.from_matvec(np.diag([-1, 1, 1]), [19, 0, 0]))
    difference = grid_difference(flipped, GRID)
    assert "axes LAS" in difference
    assert "expected 0.5x0.5x2 mm, axes RAS" in difference


def test_the_shift_is_the_largest_of_the_corners():
    """A scale about the first voxel moves the last one furthest."""
    scaled = Grid((11, 1, 1), np.diag([1.01, 1, 1, 1]))
    assert corner_shift_mm(scaled, Grid((11, 1, 1), np.eye(4))) == pytest.approx(0.1)
