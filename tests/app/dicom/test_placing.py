import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from metseg.dicom.placing import place_by_volume, place_same_voxels
from metseg.space.grid import Grid

MR = Grid((40, 40, 40), np.diag([1.0, 1.0, 1.0, 1.0]))


def ct_grid(spacing, seed=0):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-10, 10, 3), degrees=True).as_matrix() @ np.diag(spacing)
    shape = tuple(int(np.ceil(70 / side)) for side in spacing)
    affine[:3, 3] = 20 - affine[:3, :3] @ (np.array(shape) / 2) + rng.uniform(-0.5, 0.5, 3)
    return Grid(shape, affine)


def ball(radius):
    half = int(np.ceil(radius))
    away = np.linalg.norm(np.indices([2 * half + 1] * 3) - half, axis=0)
    return tuple(slice(20 - half, 21 + half) for _ in range(3)), away <= radius


def points_of(placed, grid):
    index = np.argwhere(placed.mask) + [side.start for side in placed.box]
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


@pytest.mark.parametrize("spacing", [(0.6, 0.6, 1.0), (1.0, 1.0, 3.0), (1.17, 1.17, 2.5)])
@pytest.mark.parametrize("radius", [0, 1, 2.9, 7])
def test_a_lesion_keeps_volume_and_place_and_never_vanishes(radius, spacing):
    box, mask = ball(radius)
    for seed in range(4):
        grid = ct_grid(spacing, seed)
        placed = place_by_volume(box, mask, MR, grid)
        assert placed.is_whole
        volume_mm3 = placed.mask.sum() * grid.voxel_volume_mm3
        assert abs(volume_mm3 - mask.sum()) <= max(0.51 * grid.voxel_volume_mm3, grid.voxel_volume_mm3 - mask.sum())
        points = points_of(placed, grid)
        assert np.linalg.norm(points.mean(axis=0) - 20) < 0.6 * np.linalg.norm(spacing) / (1 + radius) + 0.2
        assert np.linalg.norm(points - 20, axis=1).max() < radius + 0.75 * np.linalg.norm([1, 1, 1]) + max(spacing) / 2


def test_a_grid_that_is_only_turned_has_the_same_voxels():
    rng = np.random.default_rng(1)
    mask = rng.random((5, 6, 7)) < 0.4
    box = (slice(3, 8), slice(10, 16), slice(20, 27))
    affine = np.zeros((4, 4))  # axes y, z, x; y and x flipped
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = -1, 1, -1, 1
    affine[:3, 3] = 39, 39, 0
    placed = place_same_voxels(box, mask, MR, Grid((40, 40, 40), affine))
    found = np.rint(points_of(placed, Grid((40, 40, 40), affine))).astype(int)
    expected = np.argwhere(mask) + np.array([[3, 10, 20]])
    assert sorted(found.tolist()) == sorted(expected.tolist())


def test_what_lies_beyond_the_grid_is_cut_off_or_left_out():
    box, mask = ball(5)
    for shift, expected in ((-16.5, None), (-3.0, "half"), (0.0, "whole")):
        affine = np.eye(4)
        affine[:3, 3] = (20 - 5 - shift, 0, 0) if expected != "whole" else (0, 0, 0)
        placed = place_by_volume(box, mask, MR, Grid((40, 40, 40), affine))
        assert (placed is None) == (expected is None)
        if placed is not None:
            assert placed.is_whole == (expected == "whole")
            assert (placed.mask.sum() == mask.sum()) == placed.is_whole
            assert min(side.start for side in placed.box) >= 0
