"""The resampling between a case's own grid and the network's: closed forms, plain references, properties."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from metseg.labels import BRATS_REGIONS, RC, Regions
from metseg.space.components import find_components
from metseg.space.grid import Grid
from metseg.space.resampling import (
    find_resampling,
    labels_to_network,
    labels_to_source,
    to_network,
    volume_to_source,
)

_NAMES = itertools.permutations(["RL", "AP", "SI"])
ORIENTATIONS = ["".join(axes) for names in _NAMES for axes in itertools.product(*names)]


def oriented(shape, spacing, codes="RAS", *, degrees=(0, 0, 0), origin=(10.0, -20.0, 30.0)):
    """A grid whose array axes point (closest) along `codes`, turned by small angles about x, y, z."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = [k for k in range(3) if k != axis]
        plane = np.eye(3)
        plane[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = plane @ turn
    directions = np.zeros((3, 3))
    for column, code in enumerate(codes):
        row = next(row for row, pair in enumerate(["RL", "AP", "SI"]) if code in pair)
        directions[row, column] = 1 if code in "RAS" else -1
    affine = np.eye(4)
    affine[:3, :3] = turn @ directions * spacing
    affine[:3, 3] = origin
    return Grid(tuple(shape), affine)


def ball(grid, centre_mm, radius_mm):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    mm = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return np.linalg.norm(mm - np.asarray(centre_mm), axis=-1) <= radius_mm


def centre_mm(grid):
    return grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_axes_are_turned_as_nibabel_turns_them(codes):
    grid = oriented((5, 6, 7), (1, 1, 1), codes, degrees=(7, -5, 12))
    volume = np.arange(210, dtype=np.float32).reshape(5, 6, 7)
    resampling = find_resampling(grid)

    canonical = nib.as_closest_canonical(nib.Nifti1Image(volume, grid.affine))

    assert resampling.only_turns
    np.testing.assert_array_equal(to_network(volume, resampling), canonical.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(resampling.network.affine, canonical.affine, atol=1e-9)
    assert nib.aff2axcodes(resampling.network.affine) == ("R", "A", "S")


def test_axes_are_turned_as_monai_turns_them():
    monai_transforms = pytest.importorskip("monai.transforms")
    monai_data = pytest.importorskip("monai.data")
    grid = oriented((5, 6, 7), (1, 1, 1), "PIR", degrees=(20, -15, 12))
    volume = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
    turned = monai_transforms.Orientation("RAS", labels=None)(monai_data.MetaTensor(volume[None], affine=grid.affine))
    np.testing.assert_array_equal(to_network(volume, find_resampling(grid)), turned[0].numpy())


@settings(max_examples=60, deadline=None)
@given(
    codes=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    degrees=st.tuples(*[st.floats(-30, 30)] * 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_grid_of_the_networks_spacing_goes_and_comes_back_unchanged(codes, shape, degrees, seed):
    resampling = find_resampling(oriented(shape, (1, 1, 1), codes, degrees=degrees))
    rng = np.random.default_rng(seed)
    volume = rng.standard_normal(shape).astype(np.float32)
    labels = rng.integers(0, 4, shape).astype(np.uint8)

    assert resampling.only_turns
    np.testing.assert_array_equal(volume_to_source(to_network(volume, resampling), resampling), volume)
    np.testing.assert_array_equal(
        labels_to_source(labels_to_network(labels, resampling, BRATS_REGIONS), resampling, BRATS_REGIONS), labels
    )


@pytest.mark.parametrize("spacing", [(1.0005, 1, 0.9995), (1, 1, 1)])
def test_a_spacing_within_the_tolerance_is_not_resampled(spacing):
    assert find_resampling(oriented((8, 9, 10), spacing)).only_turns


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((256, 256, 106), (0.8594, 0.8594, 1.5), (220, 220, 159)),
        ((512, 512, 176), (0.5, 0.5, 1.0), (256, 256, 176)),
        ((240, 240, 155), (1, 1, 1), (240, 240, 155)),
        ((1, 1, 1), (0.3, 0.3, 0.3), (1, 1, 1)),
        ((10, 10, 10), (0.55, 2, 5), (6, 20, 50)),
    ],
)
def test_the_network_grid_covers_the_same_field_of_view(shape, spacing, expected):
    grid = oriented(shape, spacing, "LPS", degrees=(3, 4, 5))
    network = find_resampling(grid).network
    assert network.shape == expected
    np.testing.assert_allclose(centre_mm(network), centre_mm(grid), atol=1e-9)
    extent, covered = np.array(shape) * spacing, np.array(network.shape) * network.spacing_mm
    assert (covered >= extent - 0.06).all()
    assert (covered < extent + 1.0).all()


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 1), (0.8594, 0.8594, 1.5), (2, 1, 3), (0.3, 1.7, 1)])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP"])
def test_a_ramp_in_millimetres_is_reproduced_exactly(spacing, codes):
    """Linear interpolation is exact for a linear function, so any half-voxel error shows."""
    grid = oriented((24, 22, 20), spacing, codes, degrees=(10, -8, 6))
    resampling = find_resampling(grid)

    def ramp(of):
        index = np.stack(np.meshgrid(*map(np.arange, of.shape), indexing="ij"), axis=-1)
        return ((index @ of.affine[:3, :3].T + of.affine[:3, 3]) @ [1.0, 2.0, 3.0] + 500).astype(np.float32)

    inside = tuple(slice(3, -3) for _ in range(3))  # beyond the outermost voxel centres the border's value holds
    np.testing.assert_allclose(to_network(ramp(grid), resampling)[inside], ramp(resampling.network)[inside], rtol=1e-5)
    np.testing.assert_allclose(
        volume_to_source(ramp(resampling.network), resampling)[inside], ramp(grid)[inside], rtol=1e-5
    )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "IRP"])
def test_resampling_equals_interpolation_at_the_voxel_centres(codes, order):
    grid = oriented((13, 12, 9), (0.7, 0.9, 2.2), codes, degrees=(5, 5, -9))
    resampling = find_resampling(grid)
    rng = np.random.default_rng(1)
    volume = np.zeros(grid.shape, dtype=np.float32, order=order)
    volume[3:10, 2:12, 4:] = rng.random((7, 10, 5))

    def reference(values, start, end):
        index = np.stack(np.meshgrid(*map(np.arange, end.shape), indexing="ij"))
        transform = np.linalg.inv(start.affine) @ end.affine
        coordinates = np.tensordot(transform[:3, :3], index, 1) + transform[:3, 3].reshape(3, 1, 1, 1)
        return map_coordinates(values.astype(np.float64), coordinates, order=1, mode="nearest")

    moved = to_network(volume, resampling)
    assert moved.flags.c_contiguous
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, reference(volume, grid, resampling.network), atol=1e-5)
    np.testing.assert_allclose(
        volume_to_source(moved, resampling), reference(moved, resampling.network, grid), atol=1e-5
    )


def test_empty_inputs_give_empty_outputs_and_nothing_is_changed_in_place():
    grid = oriented((20, 20, 8), (0.6, 0.6, 2))
    resampling = find_resampling(grid)
    labels = np.zeros(resampling.network.shape, dtype=np.uint8)
    assert not labels_to_source(labels, resampling, BRATS_REGIONS).any()
    assert not to_network(np.zeros(grid.shape, dtype=np.float32), resampling).any()
    labels[4:9, 4:9, 4:9] = 2
    labels[1, 1, 1] = 3
    before = labels.copy()
    labels_to_source(labels, resampling, BRATS_REGIONS)
    np.testing.assert_array_equal(labels, before)


@settings(max_examples=40, deadline=None)
@given(
    spacing=st.tuples(*[st.sampled_from([0.3, 0.5, 0.8594, 1.0, 1.5, 2.5, 4.0, 6.0])] * 3),
    codes=st.sampled_from(ORIENTATIONS),
    voxel=st.tuples(*[st.floats(0, 0.999)] * 3),
    label=st.sampled_from([1, 2, 3]),
)
def test_a_lesion_of_one_voxel_survives_on_any_grid(spacing, codes, voxel, label):
    shape = tuple(max(1, round(24 / side)) for side in spacing)
    resampling = find_resampling(oriented(shape, spacing, codes, degrees=(4, -3, 8)))
    labels = np.zeros(resampling.network.shape, dtype=np.uint8)
    where = tuple(int(part * side) for part, side in zip(voxel, labels.shape, strict=True))
    labels[where] = label

    moved = labels_to_source(labels, resampling, BRATS_REGIONS)

    assert set(np.unique(moved)) == {0, label}
    to_source = np.linalg.inv(resampling.source.affine) @ resampling.network.affine
    exact = to_source[:3, :3] @ where + to_source[:3, 3]
    off = np.abs(np.argwhere(moved) - exact) * np.array(spacing)
    # Nowhere but around the voxel: within its own side, or the nearest source voxel's half side.
    assert (off <= np.maximum(1.0, np.array(spacing) / 2) + 1.0).all()


def test_a_small_enhancing_lesion_inside_oedema_survives_with_its_label():
    resampling = find_resampling(oriented((40, 40, 16), (1, 1, 3)))
    labels = np.zeros(resampling.network.shape, dtype=np.uint8)
    labels[10:30, 10:30, 10:30] = 2
    labels[20, 20, 21] = 3
    moved = labels_to_source(labels, resampling, BRATS_REGIONS)
    assert (moved == 3).sum() == 1
    assert find_components(moved > 0).sizes.size == 1


def test_what_survives_gets_no_extra_voxel():
    """A large lesion is cut at a half and nothing else, although another one is lost and restored."""
    resampling = find_resampling(oriented((40, 40, 16), (1, 1, 3)))
    labels = np.zeros(resampling.network.shape, dtype=np.uint8)
    labels[5:20, 5:20, 5:20] = 2
    alone = labels_to_source(labels, resampling, BRATS_REGIONS)
    labels[30, 30, 30] = 2
    both = labels_to_source(labels, resampling, BRATS_REGIONS)
    assert (both > 0).sum() == (alone > 0).sum() + 1
    assert not (both < alone).any()


def test_a_disjoint_region_comes_back_and_an_unknown_label_does_not():
    """A resection cavity beside a tumour, and one of one voxel, with regions that know it and with some that don't."""
    resampling = find_resampling(oriented((40, 40, 16), (1, 1, 3)))
    labels = np.zeros(resampling.network.shape, dtype=np.uint8)
    labels[5:20, 5:20, 6:21] = 2
    labels[20:32, 5:20, 6:21] = RC
    labels[35, 35, 31] = RC
    with_cavity = Regions.of({"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "RC": (RC,)})
    moved = labels_to_source(labels, resampling, with_cavity)
    assert find_components(moved == RC).sizes.tolist() == [12 * 15 * 5, 1]
    without = labels_to_source(labels, resampling, BRATS_REGIONS)
    np.testing.assert_array_equal(without, np.where(moved == RC, 0, moved))


def test_a_label_at_a_frames_border_stays_there():
    """Not smeared to the image's edge, which the frame does not reach."""
    resampling = find_resampling(oriented((60, 60, 10), (0.6, 0.6, 2)), (0.6, 0.6, 2), (32, 32))
    labels = np.zeros(resampling.network.shape, dtype=np.uint8)
    labels[:3, 10:13, 4:6] = 1
    expected = np.zeros(resampling.source.shape, dtype=np.uint8)
    expected[14:17, 24:27, 4:6] = 1
    np.testing.assert_array_equal(labels_to_source(labels, resampling, BRATS_REGIONS), expected)
    probability = (labels * 0.25).astype(np.float32)
    np.testing.assert_array_equal(volume_to_source(probability, resampling), expected * np.float32(0.25))


@settings(max_examples=40, deadline=None)
@given(
    spacing=st.tuples(*[st.sampled_from([0.3, 0.5, 0.8594, 1.0, 1.5, 2.5, 6.0])] * 3),
    codes=st.sampled_from(ORIENTATIONS),
    frame=st.tuples(*[st.integers(1, 30)] * 2),
    voxel=st.tuples(*[st.floats(0, 0.999)] * 3),
)
def test_a_frame_gives_what_it_covers_and_nothing_else(spacing, codes, frame, voxel):
    """Frames smaller and larger than the field of view, about the half voxel at either's border."""
    shape = tuple(max(1, round(24 / side)) for side in spacing)
    resampling = find_resampling(oriented(shape, spacing, codes, degrees=(4, -3, 8)), frame=frame)
    sides = np.array(spacing)

    index = np.stack(np.indices(shape)).reshape(3, -1)
    to_network_index = np.linalg.inv(resampling.network.affine) @ resampling.source.affine
    at = to_network_index[:3, :3] @ index + to_network_index[:3, 3:]
    beyond = np.maximum(-at, at - np.array(resampling.network.shape)[:, None] + 1)
    half = np.maximum(1, np.array([sides[axis] for axis in resampling.source_axes])) / 2
    is_covered = (beyond <= half[:, None] + 0.03).all(axis=0).reshape(shape)
    values = volume_to_source(np.ones(resampling.network.shape, dtype=np.float32), resampling)
    np.testing.assert_allclose(values, is_covered, rtol=1e-6)

    labels = np.zeros(resampling.network.shape, dtype=np.uint8)
    where = tuple(int(part * side) for part, side in zip(voxel, labels.shape, strict=True))
    labels[where] = 3
    to_source = np.linalg.inv(resampling.source.affine) @ resampling.network.affine
    exact = to_source[:3, :3] @ where + to_source[:3, 3]
    moved = labels_to_source(labels, resampling, BRATS_REGIONS)
    if (np.maximum(-exact, exact - np.array(shape) + 1) <= 0.5 + 1e-3).all():
        nearest = np.clip(np.rint(exact).astype(int), 0, np.array(shape) - 1)
        assert moved[tuple(nearest)] == 3
    # One beyond the field of view may reach into it; nowhere is a voxel set that is not around the lesion's.
    assert (np.abs(np.argwhere(moved) - exact) * sides <= np.maximum(1.0, sides / 2) + 1e-2).all()


@settings(max_examples=60, deadline=None)
@given(
    sides=st.tuples(*[st.floats(0.01, 7)] * 3),
    shape=st.tuples(*[st.integers(1, 16)] * 3),
    spacing_mm=st.sampled_from([1.0, 2.0, (0.6, 0.6, 2.0)]),
)
def test_without_a_frame_the_whole_field_of_view_is_covered(sides, shape, spacing_mm):
    resampling = find_resampling(oriented(shape, sides), spacing_mm)
    assert (volume_to_source(np.ones(resampling.network.shape, dtype=np.float32), resampling) > 0.999).all()


def test_what_lies_beyond_the_field_of_view_does_not_come_back():
    """A frame larger than the image: in its margin the image's border is repeated."""
    resampling = find_resampling(oriented((20, 20, 10), (1, 1, 2)), 1.0, (40, 40))
    labels = np.zeros(resampling.network.shape, dtype=np.uint8)
    labels[1:5, 15:19, 6:10] = 3
    labels[36, 36, 10] = 2
    assert not labels_to_source(labels, resampling, BRATS_REGIONS).any()
    labels[10, 20, 19] = 3  # the first column of the image, in the outer half of its last slice
    moved = labels_to_source(labels, resampling, BRATS_REGIONS)
    np.testing.assert_array_equal(np.argwhere(moved), [[0, 10, 9]])
    # Half of it in the margin: what is inside comes back.
    labels[6:14, 15:19, 6:10] = 3
    assert set(np.unique(np.argwhere(labels_to_source(labels, resampling, BRATS_REGIONS) == 3)[:, 0])) == {0, 1, 2, 3}


GRIDS = {
    "thick": oriented((256, 256, 106), (0.8594, 0.8594, 1.5), "LPS"),
    "fine": oriented((512, 512, 176), (0.5, 0.5, 1.0), "RAS"),
    "oblique": oriented((256, 256, 106), (0.8594, 0.8594, 1.5), "LAS", degrees=(12, -9, 17)),
}


def with_nested_balls(grid, spheres):
    """A label map of lesions: oedema around an enhancing ring around a core; and the box around each."""
    labels = np.zeros(grid.shape, dtype=np.uint8)
    boxes = []
    for at, radius in spheres:
        index = np.linalg.solve(grid.affine[:3, :3], at - grid.affine[:3, 3])
        reach = np.ceil(15 / np.array(grid.spacing_mm)).astype(int)
        corner = np.rint(index).astype(int) - reach
        box = tuple(slice(c, c + 2 * r) for c, r in zip(corner, reach, strict=True))
        affine = grid.affine.copy()
        affine[:3, 3] += grid.affine[:3, :3] @ corner
        part = Grid(labels[box].shape, affine)
        for label, share in ((2, 1.15), (3, 1), (1, 0.5)):
            labels[box][ball(part, at, radius * share)] = label
        boxes.append(box)
    return labels, boxes


@pytest.mark.parametrize("name", GRIDS)
def test_label_maps_survive_the_round_trip_at_the_challenges_sizes(name):
    """Source -> network -> source; the figures by lesion size are in docs/geometry.md."""
    grid = GRIDS[name]
    rng = np.random.default_rng(5)
    cells = [np.array(cell) * 36.0 for cell in itertools.product((-1, 0, 1), (-1, 0, 1), (-1, 1))]
    radii = [1, 1, 1, 1, 1.5, 1.5, 2, 3, 5, 8, 12]
    spheres = [(centre_mm(grid) + cells[i] + rng.uniform(-2, 2, 3), radius) for i, radius in enumerate(radii)]
    labels, boxes = with_nested_balls(grid, spheres)
    resampling = find_resampling(grid)

    back = labels_to_source(labels_to_network(labels, resampling, BRATS_REGIONS), resampling, BRATS_REGIONS)

    outside = back.copy()
    for (_, radius), box in zip(spheres, boxes, strict=True):
        before, after = labels[box] > 0, back[box] > 0
        assert find_components(after).sizes.size == 1
        assert (back[box] == 3).any(), "the enhancing part survives"
        overlap = 2 * (before & after).sum() / (before.sum() + after.sum())
        # One or two voxels may come back as their neighbours: there Dice says little, their place does.
        moved_mm = np.abs(centroid_mm(grid, before, box) - centroid_mm(grid, after, box))
        assert (moved_mm < 1.0).all()
        assert overlap >= {1: 0, 1.5: 0.45, 2: 0.7, 3: 0.85}.get(radius, 0.92)
        outside[box] = 0
    assert not outside.any()


def centroid_mm(grid, mask, box):
    index = np.argwhere(mask).mean(axis=0) + [side.start for side in box]
    return grid.affine[:3, :3] @ index + grid.affine[:3, 3]
