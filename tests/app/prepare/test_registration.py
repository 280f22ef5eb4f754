"""Registration of tiny heads with a known motion; what must be refused; moving label maps between the grids."""

from dataclasses import replace

import numpy as np
import pytest

from metseg.errors import InputError
from metseg.files.case import Scan
from metseg.labels import BRATS_REGIONS, METASTASIS_REGIONS
from metseg.prepare.registration import register
from metseg.prepare.registration_check import mutual_information
from metseg.prepare.rigid_search import coarsen
from metseg.space.grid import Grid
from metseg.space.rigid import lesions_outside, move_labels, resample_rigid
from radiosurgery_support import scan_of, tiny_case, tiny_registration


@pytest.fixture(scope="module")
def case():
    return tiny_case(0)


def error_mm(case, found):
    places = np.argwhere(case.brain).T
    points = case.grid.affine @ np.vstack([places, np.ones(places.shape[1])])
    return np.linalg.norm(((found.mr_to_ct - case.ct.mr_to_ct) @ points)[:3], axis=0)


def test_a_known_motion_is_found(case):
    found = register(scan_of(case), case.t1c.astype(np.float32), case.grid, tiny_registration())
    distance = error_mm(case, found)
    assert distance.mean() <= 1
    assert distance.max() <= 2
    assert not found.is_identity
    assert found.overlap > 0.8
    again = register(scan_of(case), case.t1c.astype(np.float32), case.grid, tiny_registration())
    assert again == found


def test_files_on_one_grid_that_lie_well_keep_their_coordinates():
    still = tiny_case(1, rotation_degrees=(0, 0), shift_mm=(0, 0))
    on_mr = resample_rigid(scan_of(still).voxels, still.ct.grid, still.grid, np.eye(4), outside=-1000.0)
    found = register(Scan(on_mr, still.grid, b""), still.t1c.astype(np.float32), still.grid, tiny_registration())
    assert found.is_identity
    np.testing.assert_array_equal(found.mr_to_ct, np.eye(4))
    assert (found.shift_mm, found.rotation_degrees) == (0, 0)


def leg(grid):
    """Another part of the body: muscle about one bone with its marrow, from the first slice to the last."""
    x, y, _ = np.indices(grid.shape)
    away_mm = [
        (place - (side - 1) / 2) * mm for place, side, mm in zip((x, y), grid.shape, grid.spacing_mm, strict=False)
    ]
    radius_mm = np.sqrt(away_mm[0] ** 2 + away_mm[1] ** 2)
    rings = [(45, 50.0), (9, 1000.0), (6, -50.0)]
    voxels = np.full(grid.shape, -1000, dtype=np.float32)
    for outer_mm, hounsfield in rings:
        voxels[radius_mm <= outer_mm] = hounsfield
    return voxels + np.random.default_rng(0).normal(0, 5, grid.shape).astype(np.float32)


def test_what_is_no_head_or_not_this_head_is_refused(case):
    mr = case.t1c.astype(np.float32)
    scan = scan_of(case)
    air = replace(scan, voxels=np.full(scan.voxels.shape, -1000, np.float32))
    with pytest.raises(InputError, match="expected a head"):
        register(air, mr, case.grid, tiny_registration())
    ball = np.where(np.indices(scan.voxels.shape).sum(0) % 7 < 5, 30, -1000).astype(np.float32)
    with pytest.raises(InputError, match="could not be registered"):
        register(replace(scan, voxels=ball), mr, case.grid, tiny_registration(smallest_head_ml=0))
    with pytest.raises(InputError, match="could not be registered"):
        register(replace(scan, voxels=leg(scan.grid)), mr, case.grid, tiny_registration())
    upside_down = replace(scan, voxels=np.ascontiguousarray(scan.voxels[:, :, ::-1]))
    with pytest.raises(InputError, match="could not be registered"):
        register(upside_down, mr, case.grid, tiny_registration())


def test_coarse_voxels_are_means_about_their_middles():
    volume = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = (5, 6, 7)
    small, grid = coarsen(volume, Grid((4, 6, 3), affine), 2.0)
    assert small.shape == grid.shape == (2, 3, 3)
    assert small[0, 0, 1] == volume[:2, :2, 1].mean()
    assert grid.spacing_mm == (2, 2, 2)
    np.testing.assert_allclose(grid.affine[:3, 3], (5.5, 6.5, 7))


def test_mutual_information_of_copies_and_of_strangers():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(20000).astype(np.float32)
    assert mutual_information(values, -values, 16) == pytest.approx(np.log(16), abs=1e-3)
    assert mutual_information(values, rng.standard_normal(20000).astype(np.float32), 16) < 0.02


def test_metastases_follow_the_patient_and_none_is_lost():
    """Balls and one lone voxel go to a coarser, turned grid: middles stay, and every metastasis arrives."""
    grid = Grid((60, 60, 30), np.diag([1.0, 1.0, 2.0, 1.0]))
    places = np.indices(grid.shape)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for centre, radius in (((20, 22, 12), 6), ((42, 30, 16), 4)):
        offset = [(places[a] - centre[a]) * (1, 1, 2)[a] for a in range(3)]
        labels[sum(part**2 for part in offset) <= radius**2] = 1
    labels[30, 50, 5] = 1
    angle = np.deg2rad(7)
    motion = np.eye(4)
    motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    motion[:3, 3] = (3, -4, 2)
    to_affine = np.diag([-2.5, -2.5, 3.0, 1.0])
    to_affine[:3, 3] = (70, 80, -10)
    to_grid = Grid((40, 40, 40), to_affine)
    moved = move_labels(labels, grid, to_grid, motion, METASTASIS_REGIONS)
    assert set(np.unique(moved)) == {0, 1}
    for centre in ((20, 22, 12), (42, 30, 16), (30, 50, 5)):
        place = np.linalg.inv(to_affine) @ motion @ grid.affine @ np.array([*centre, 1.0])
        assert moved[tuple(np.rint(place[:3]).astype(int))] == 1
    volume = [labels.sum() * grid.voxel_volume_mm3, moved.sum() * to_grid.voxel_volume_mm3]
    assert volume[1] == pytest.approx(volume[0], rel=0.15)
    nothing = move_labels(np.zeros_like(labels), grid, to_grid, motion, METASTASIS_REGIONS)
    assert not nothing.any()


def shift(x, y, z):
    motion = np.eye(4)
    motion[:3, 3] = (x, y, z)
    return motion


def test_a_metastasis_outside_the_grid_leaves_no_voxel_on_its_border():
    """A planning CT that ends below a metastasis: 20 slices of the MR's 40."""
    grid, to_grid = Grid((20, 20, 40), np.eye(4)), Grid((20, 20, 20), np.eye(4))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[16:20, 16:20, 30:34] = 1
    assert not move_labels(labels, grid, to_grid, np.eye(4), METASTASIS_REGIONS).any()
    assert lesions_outside(labels, grid, to_grid, np.eye(4), METASTASIS_REGIONS) == 1
    labels[3:6, 3:6, 17:23] = 1
    moved = move_labels(labels, grid, to_grid, np.eye(4), METASTASIS_REGIONS)
    np.testing.assert_array_equal(moved, np.where(np.indices(grid.shape)[2] < 20, labels, 0)[..., :20])
    assert lesions_outside(labels, grid, to_grid, np.eye(4), METASTASIS_REGIONS) == 1, "one is partly on it"
    assert lesions_outside(np.zeros_like(labels), grid, to_grid, np.eye(4), METASTASIS_REGIONS) == 0


def test_a_lesions_parts_are_moved_region_by_region():
    """Oedema about an enhancing part, and a lone enhancing voxel in oedema that a coarse grid would lose."""
    grid, to_grid = Grid((24, 24, 24), np.eye(4)), Grid((12, 12, 8), np.diag([2.0, 2.0, 3.0, 1.0]))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[2:20, 2:20, 3:21] = 2
    labels[6:12, 6:12, 6:12] = 3
    labels[15, 15, 16] = 3
    moved = move_labels(labels, grid, to_grid, np.eye(4), BRATS_REGIONS)
    assert set(np.unique(moved)) == {0, 2, 3}
    assert (moved[3:6, 3:6, 2:4] == 3).all()
    assert moved[8, 8, 5] == 3
    assert lesions_outside(labels, grid, to_grid, shift(100, 0, 0), BRATS_REGIONS) == 1, "one lesion, of three parts"


@pytest.mark.parametrize(("beyond", "voxels"), [(0.45, 1), (0.5, 1), (0.55, 0)])
def test_a_small_metastasis_in_the_outer_half_of_the_last_slice_is_kept(beyond, voxels):
    """Its centre decides; interpolation alone would lose it."""
    grid = Grid((20, 20, 20), np.eye(4))
    for slice_, motion in ((19, shift(0.4, 0.4, beyond)), (0, shift(0.4, 0.4, -beyond))):
        labels = np.zeros(grid.shape, dtype=np.uint8)
        labels[10, 10, slice_] = 1
        moved = move_labels(labels, grid, grid, motion, METASTASIS_REGIONS)
        np.testing.assert_array_equal(np.argwhere(moved), [[10, 10, slice_]] * voxels or np.zeros((0, 3)))
