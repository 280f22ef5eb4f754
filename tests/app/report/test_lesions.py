import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from metseg.labels import ET, NETC, RC, SNFH
from metseg.report.brain_edge import find_outside
from metseg.report.diameters import find_axial_axis, measure_3d_diameter_mm, measure_axial_diameter
from metseg.report.lesions import Votes, measure_lesions, measure_regions
from metseg.space.grid import Grid
from metseg.systems import BRATS

OBLIQUE = Rotation.from_euler("xyz", (12, -9, 17), degrees=True).as_matrix()


def grid_of(shape, spacing=(1, 1, 1), rotation=None, origin=(-30.0, 12.5, 7.0)):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.diag(spacing)
    affine[:3, 3] = origin
    return Grid(tuple(shape), affine)


def world(grid):
    index = np.indices(grid.shape).reshape(3, -1)
    return (grid.affine[:3, :3] @ index + grid.affine[:3, 3:]).reshape(3, *grid.shape)


def ellipsoid(grid, centre_mm, half_axes_mm, directions=None):
    offset = world(grid) - np.reshape(centre_mm, (3, 1, 1, 1))
    own = np.tensordot((np.eye(3) if directions is None else directions).T, offset, axes=1)
    return sum((own[axis] / half) ** 2 for axis, half in enumerate(half_axes_mm)) <= 1


def as_labels(mask, label=ET):
    return mask.astype(np.uint8) * label


GRIDS = {
    "isotropic": grid_of((48, 48, 48)),
    "anisotropic": grid_of((56, 56, 24), (0.86, 0.86, 2.0)),
    "oblique": grid_of((48, 56, 40), (1.0, 0.8, 1.2), OBLIQUE),
    "left-handed": grid_of((48, 48, 48), (-1, -1, 1)),
    "sagittal acquisition": Grid(
        (40, 48, 48), np.array([[0, 0, 1.1, -20], [1, 0, 0, 5], [0, -0.9, 0, 40], [0, 0, 0, 1.0]])
    ),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_ball_has_its_volume_and_diameters_on_any_grid(name):
    grid = GRIDS[name]
    centre = grid.affine[:3, :3] @ (np.array(grid.shape) / 2 - 0.4) + grid.affine[:3, 3]
    (lesion,) = measure_lesions(as_labels(ellipsoid(grid, centre, (9, 9, 9))), grid, BRATS.regions)
    voxel = max(grid.spacing_mm)
    assert lesion.volume_mm3 == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.03)
    assert lesion.longest_3d_diameter_mm == pytest.approx(18, abs=voxel)
    assert lesion.longest_axial_diameter_mm == pytest.approx(18, abs=voxel)
    assert lesion.longest_axial_diameter_mm <= lesion.longest_3d_diameter_mm + 1e-9
    np.testing.assert_allclose(lesion.centroid_ras_mm, centre, atol=0.15)
    np.testing.assert_allclose(lesion.box_max_ras_mm, centre + 9, atol=2 * voxel)
    np.testing.assert_allclose(lesion.box_min_ras_mm, centre - 9, atol=2 * voxel)


@pytest.mark.parametrize("name", GRIDS)
def test_the_place_to_look_at_lies_in_the_lesion_even_of_a_ring(name):
    grid = GRIDS[name]
    centre = grid.affine[:3, :3] @ (np.array(grid.shape) / 2) + grid.affine[:3, 3]
    ring = ellipsoid(grid, centre, (9, 9, 4)) & ~ellipsoid(grid, centre, (6, 6, 9))
    (lesion,) = measure_lesions(as_labels(ring), grid, BRATS.regions)
    voxel = np.linalg.solve(grid.affine, [*lesion.inside_ras_mm, 1])[:3]
    np.testing.assert_allclose(voxel, np.round(voxel), atol=1e-6)
    assert ring[tuple(np.round(voxel).astype(int))]
    away = np.linalg.norm(np.subtract(lesion.inside_ras_mm, lesion.centroid_ras_mm))
    assert away == pytest.approx(6, abs=max(grid.spacing_mm))


def test_a_tilted_ellipsoid_keeps_its_longest_diameter_but_not_in_the_axial_plane():
    grid = grid_of((48, 48, 48))
    tilt = Rotation.from_euler("y", 45, degrees=True).as_matrix()
    centre = grid.affine[:3, 3] + 24
    (lesion,) = measure_lesions(as_labels(ellipsoid(grid, centre, (16, 4, 4), tilt)), grid, BRATS.regions)
    assert lesion.longest_3d_diameter_mm == pytest.approx(32, abs=1)
    # The ellipse in which the axial plane cuts it: half axis 1 / sqrt(cos^2 / 16^2 + sin^2 / 4^2).
    in_plane = 2 / np.sqrt(0.5 / 16**2 + 0.5 / 4**2)
    assert lesion.longest_axial_diameter_mm == pytest.approx(in_plane, abs=1.2)


@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (4, 1, 1), (5, 3, 2), (7, 7, 7), (2, 9, 4)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.75, 3)])
def test_a_box_has_the_diameters_of_its_outline(n, m, k, spacing):
    labels = np.zeros((12, 12, 10), dtype=np.uint8)
    labels[2 : 2 + n, 1 : 1 + m, 3 : 3 + k] = ET
    (lesion,) = measure_lesions(labels, grid_of(labels.shape, spacing), BRATS.regions)
    a, b, _ = spacing
    # Outline points are the middles of the sides of the outer voxels: the furthest two are the best of three pairs.
    pairs = [(n, m - 1), (n - 1, m), (n - 0.5, m - 0.5)]
    assert lesion.longest_axial_diameter_mm == pytest.approx(max(np.hypot(x * a, y * b) for x, y in pairs))
    assert lesion.volume_mm3 == pytest.approx(n * m * k * np.prod(spacing))
    assert lesion.box_first_voxel == (2, 1, 3)
    assert lesion.box_last_voxel == (1 + n, m, 2 + k)
    np.testing.assert_allclose(
        np.subtract(lesion.box_max_ras_mm, lesion.box_min_ras_mm), np.multiply((n, m, k), spacing)
    )


def test_a_single_voxel_is_as_long_as_its_side():
    labels = np.zeros((5, 5, 5), dtype=np.uint8)
    labels[2, 2, 2] = ET
    (lesion,) = measure_lesions(labels, grid_of(labels.shape, (0.8, 0.9, 3)), BRATS.regions)
    assert lesion.longest_axial_diameter_mm == pytest.approx(0.9)
    assert lesion.longest_3d_diameter_mm == pytest.approx(3)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.5, 0.8]))
def test_diameters_equal_those_of_all_pairs_of_outline_points(seed, density):
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 6, 5)) < density
    mask[3, 3, 3] = True
    grid = grid_of(mask.shape, (0.7, 1.1, 2.3), OBLIQUE)
    assert measure_3d_diameter_mm(mask, grid) == pytest.approx(plain_longest(mask, grid, range(3)))
    per_slice = [plain_longest(mask, grid, (0, 1), z) for z in range(5) if mask[:, :, z].any()]
    assert measure_axial_diameter(mask, grid).length_mm == pytest.approx(max(per_slice))


def plain_longest(mask, grid, axes, z=None):
    points = []
    for voxel in np.argwhere(mask):
        if z is not None and voxel[2] != z:
            continue
        for axis in axes:
            for step in (-1, 1):
                neighbour = voxel.copy()
                neighbour[axis] += step
                inside = np.all(neighbour >= 0) and np.all(neighbour < mask.shape) and mask[tuple(neighbour)]
                if not inside:
                    points.append(grid.affine[:3, :3] @ ((voxel + neighbour) / 2))
    return pdist(np.array(points)).max()


@settings(max_examples=30)
@given(st.permutations(range(3)), st.tuples(st.booleans(), st.booleans(), st.booleans()), st.integers(0, 1000))
def test_measures_do_not_depend_on_how_the_array_lies(order, flips, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((8, 7, 6)) < 0.25).astype(np.uint8) * rng.integers(1, 4, (8, 7, 6)).astype(np.uint8)
    grid = grid_of(labels.shape, (0.9, 1.0, 2.5), OBLIQUE)
    moved = labels.transpose(order)
    affine = grid.affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            moved = np.flip(moved, axis)
            affine[:3, 3] += affine[:3, axis] * (moved.shape[axis] - 1)
            affine[:3, axis] *= -1
    here = measure_lesions(labels, grid, BRATS.regions)
    there = measure_lesions(moved, Grid(moved.shape, affine), BRATS.regions)
    key = lambda item: (-item.voxels, *np.round(item.centroid_ras_mm, 6))  # noqa: E731
    for one, other in zip(sorted(here, key=key), sorted(there, key=key), strict=True):
        assert one.part_volumes_mm3 == pytest.approx(other.part_volumes_mm3)
        for name in ("longest_axial_diameter_mm", "longest_3d_diameter_mm"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-6), name
        for name in ("volume_mm3", "centroid_ras_mm", "box_min_ras_mm", "box_max_ras_mm"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), err_msg=name, atol=1e-6)


def test_lesions_are_numbered_by_volume_and_regions_add_up():
    labels = np.zeros((30, 20, 20), dtype=np.uint8)
    labels[2:4, 2:4, 2:4] = ET
    labels[10:16, 5:11, 5:11] = SNFH
    labels[12:14, 7:9, 7:9] = NETC
    labels[12, 7, 7] = ET
    labels[25, 15, 15] = RC
    grid = grid_of(labels.shape, (1, 1, 2))
    large, small = measure_lesions(labels, grid, BRATS.regions)
    assert (large.number, small.number) == (1, 2)
    assert (large.volume_mm3, large.part_volumes_mm3) == (432, {"TC": 16, "ET": 2})
    assert (small.volume_mm3, small.part_volumes_mm3) == (16, {"TC": 16, "ET": 16})
    assert measure_regions(labels, grid, BRATS.regions) == {"WT": 448, "TC": 32, "ET": 18, "RC": 2}


def test_diameters_are_the_cores_not_the_oedemas():
    labels = np.zeros((40, 20, 20), dtype=np.uint8)
    labels[2:38, 5:15, 5:15] = SNFH
    labels[4:16, 8, 10] = ET
    labels[30:34, 8, 10] = ET
    (lesion,) = measure_lesions(labels, grid_of(labels.shape), BRATS.regions)
    assert lesion.cores == 2
    assert lesion.longest_axial_diameter_mm == pytest.approx(12)
    assert lesion.axial_slice == 10
    assert lesion.is_measurable


def test_oedema_alone_has_no_diameter():
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[2:18, 2:18, 5:8] = SNFH
    (lesion,) = measure_lesions(labels, grid_of(labels.shape), BRATS.regions)
    assert (lesion.cores, lesion.longest_axial_diameter_mm, lesion.longest_3d_diameter_mm) == (0, None, None)
    assert not lesion.is_measurable


@pytest.mark.parametrize(("voxels", "measurable"), [(9, False), (10, True)])
def test_a_lesion_is_measurable_from_ten_millimetres(voxels, measurable):
    labels = np.zeros((20, 6, 6), dtype=np.uint8)
    labels[2 : 2 + voxels, 3, 3] = ET
    (lesion,) = measure_lesions(labels, grid_of(labels.shape), BRATS.regions)
    assert lesion.is_measurable is measurable


def test_no_lesion_no_measures():
    grid = grid_of((4, 4, 4))
    assert measure_lesions(np.zeros((4, 4, 4), dtype=np.uint8), grid, BRATS.regions) == ()
    assert measure_3d_diameter_mm(np.zeros((4, 4, 4), dtype=bool), grid) == 0


def test_axial_slices_are_found_in_any_array():
    assert find_axial_axis(GRIDS["isotropic"]) == 2
    assert find_axial_axis(GRIDS["sagittal acquisition"]) == 1


def brain():
    image = np.zeros((20, 20, 20), dtype=np.float32)
    image[3:17, 3:17, 3:17] = 100
    return image


@pytest.mark.parametrize(
    ("place", "at_edge"), [((10, 10, 10), False), ((3, 10, 10), True), ((4, 10, 10), False), ((10, 10, 16), True)]
)
def test_a_lesion_touches_the_brains_edge_where_background_begins(place, at_edge):
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[place] = ET
    (lesion,) = measure_lesions(labels, grid_of(labels.shape), BRATS.regions, images=[brain()])
    assert lesion.at_brain_edge is at_edge
    (unknown,) = measure_lesions(labels, grid_of(labels.shape), BRATS.regions)
    assert unknown.at_brain_edge is None


def test_zeros_inside_the_brain_are_brain_and_unstripped_images_have_no_outside():
    image = brain()
    image[10, 10, 10] = 0
    assert not find_outside([image])[10, 10, 10]
    assert find_outside([image])[0, 0, 0]
    assert not find_outside([image + 1]).any()
    other = np.zeros_like(image)
    other[0, 0, 0] = 5
    assert not find_outside([image, other])[0, 0, 0]


def test_the_volumes_border_is_an_edge_too():
    labels = np.zeros((6, 6, 6), dtype=np.uint8)
    labels[0, 3, 3] = ET
    (lesion,) = measure_lesions(
        labels, grid_of(labels.shape), BRATS.regions, images=[np.ones((6, 6, 6), dtype=np.float32)]
    )
    assert lesion.at_brain_edge


def test_votes_and_probability_are_those_of_the_lesions_own_voxels():
    labels = np.zeros((12, 6, 6), dtype=np.uint8)
    labels[1:3, 2, 2] = ET  # smaller, met first by a scan
    labels[6:10, 2, 2] = ET
    one, two = labels.copy(), labels.copy()
    two[1:3] = 0
    two[6] = 0
    probability = np.zeros(labels.shape, dtype=np.float32)
    probability[6:10, 2, 2] = (0.5, 0.75, 1, 0.75)
    large, small = measure_lesions(labels, grid_of(labels.shape), BRATS.regions, votes=Votes((one, two), probability))
    assert (large.finders, large.vote_share, large.mean_probability) == (2, pytest.approx(7 / 8), pytest.approx(0.75))
    assert (small.finders, small.vote_share, small.mean_probability) == (1, pytest.approx(0.5), 0)
    assert small.has_low_agreement
    assert not large.has_low_agreement
    assert small.entropy_bits == pytest.approx(1)
