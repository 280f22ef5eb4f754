import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scores import plain_surfel_hd95
from evaluation.components import find_centroids, split_region
from evaluation.distances import (
    find_surfels,
    measure_area_weighted_hd95,
    measure_by_map,
    measure_by_tree,
    measure_nearest_distances,
)
from evaluation.joint_box import JointBox, pair_maps
from metseg.labels import ET, Region
from phantoms import UNIT, cube, draw_map, map_pairs, spacings

ANY = Region("any label", (1, 2, 3, 4))
points = st.lists(st.tuples(*[st.integers(0, 12)] * 3), min_size=1, max_size=30).map(np.array)


@settings(max_examples=60)
@given(points, points, spacings)
def test_map_and_tree_agree_with_all_pairs(here, there, spacing):
    offsets = (here[:, None] - there[None]) * np.asarray(spacing)
    expected = np.sqrt((offsets**2).sum(axis=2)).min(axis=1)
    np.testing.assert_allclose(measure_by_map(here, there, np.array([13, 13, 13]), spacing), expected, rtol=1e-14)
    np.testing.assert_allclose(measure_by_tree(here, there, spacing), expected, rtol=1e-14)


def test_no_target_is_infinitely_far():
    nothing = np.zeros((0, 3), dtype=np.int64)
    assert measure_nearest_distances(np.zeros((2, 3), dtype=np.int64), nothing, UNIT).tolist() == [np.inf, np.inf]
    assert measure_nearest_distances(nothing, nothing, UNIT).tolist() == []


@settings(max_examples=40)
@given(map_pairs(), spacings)
def test_surfaces_of_components_add_up_to_the_surface_of_the_mask(pair, spacing):
    """Found once for all components, and joined: the same as the surface of the joined mask by itself."""
    masks = [labels > 0 for labels in pair]
    if not all(mask.any() for mask in masks):
        return
    box, *parts = take_apart(pair, spacing)
    joined = [surface.join(range(1, components.count + 1)) for components, surface in parts]
    assert measure_area_weighted_hd95(*joined, box.spacing_mm) == pytest.approx(
        plain_surfel_hd95(*masks, spacing), rel=1e-12
    )


def take_apart(pair, spacing):
    maps = pair_maps(*pair, spacing, margin=1)
    found = [split_region(voxels.select(ANY), maps.box) for voxels in (maps.reference, maps.prediction)]
    return maps.box, *((components, find_surfels(components, maps.box)) for components in found)


def test_area_of_a_box_tends_to_its_faces():
    """Marching cubes cut the edges: a 10 x 8 x 6 mm box has somewhat less than 2 (80 + 60 + 48) mm2."""
    _, (_, surface), _ = take_apart([draw_map(((5, 5, 5), (10, 8, 6)))] * 2, UNIT)
    assert 0.85 * 376 < surface.whole.areas_mm2.sum() < 376


def test_components_are_numbered_along_z_first():
    maps = pair_maps(draw_map(cube(15, 2, 2), cube(2, 2, 9)), draw_map(), UNIT, margin=2)
    components = split_region(maps.reference.select(Region("ET", (ET,))), maps.box)
    assert components.sizes.tolist() == [27, 27]
    assert find_centroids(components, maps.box).tolist() == [[16, 3, 3], [3, 3, 10]]


def test_joint_box_holds_both_maps_and_its_margin_reaches_over_the_border():
    maps = pair_maps(draw_map(cube(0, 0, 0)), draw_map(cube(21, 17, 15)), UNIT, margin=2)
    assert maps.box == JointBox((22, 24, 28), (-2, -2, -2), UNIT, 24 * 20 * 18)
    assert maps.box.locate_on_grid(maps.reference.indices)[0].tolist() == [0, 0, 0]
