"""Components and boxes against closed forms and scipy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from metseg.space.components import Components, bounding_box, components_of_voxels, find_components

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7), elements=st.booleans())


@given(MASKS)
def test_components_equal_scipy(mask):
    components = find_components(mask)
    expected, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    assert components.sizes.size == count
    assert components.sizes.tolist() == np.bincount(expected.ravel())[1:].tolist()
    np.testing.assert_array_equal(components.voxels, np.flatnonzero(mask))
    np.testing.assert_array_equal(components.to_volume(), expected)


@given(MASKS)
def test_numbers_do_not_depend_on_the_memory_order(mask):
    np.testing.assert_array_equal(
        find_components(np.asfortranarray(mask)).to_volume(), find_components(mask).to_volume()
    )


@given(MASKS)
def test_a_transposed_mask_is_numbered_in_its_own_order(mask):
    expected, _ = ndimage.label(np.ascontiguousarray(mask.T), structure=np.ones((3, 3, 3)))
    np.testing.assert_array_equal(find_components(mask.T).to_volume(), expected)


@given(MASKS)
def test_voxels_give_the_same_components_as_their_mask(mask):
    expected, found = find_components(mask), components_of_voxels(np.flatnonzero(mask), mask.shape)
    assert found.shape == expected.shape
    for name in ("voxels", "component_of", "sizes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@given(MASKS, st.tuples(*[st.integers(-3, 50)] * 3))
def test_centroids_equal_scipy(mask, start):
    components = find_components(mask)
    expected = ndimage.center_of_mass(mask, components.to_volume(), range(1, components.count + 1))
    found = components.centroids(start)
    assert found.shape == (components.count, 3)
    np.testing.assert_allclose(found, np.reshape(expected, (-1, 3)) + start, atol=1e-9)


def test_components_of_any_making_are_counted():
    """Such as parts that are grouped: two voxels of one lesion that do not touch, and a lesion without a voxel here."""
    components = Components.of(np.array([0, 5, 7]), np.array([1, 1, 3]), 3, (2, 2, 2))
    assert components.sizes.tolist() == [2, 0, 1]
    assert components.count == 3


@given(MASKS)
def test_bounding_box_is_the_smallest(mask):
    box = bounding_box(mask)
    if not mask.any():
        assert box is None
        return
    expected = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(mask))
    assert box == expected


def test_corners_connect():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert find_components(mask).sizes.tolist() == [2, 1]


@pytest.mark.parametrize("shape", [*itertools.product(range(1, 5), repeat=3), (2, 3, 5), (9, 9, 9), (31, 31, 31)])
def test_as_many_components_as_fit(shape):
    # cc3d by itself raises where all sides are odd.
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    assert find_components(mask).sizes.tolist() == [1] * int(mask.sum())


def test_an_empty_mask_has_no_component():
    for components in (find_components(np.zeros((2, 3, 4), bool)), components_of_voxels(np.zeros(0, int), (2, 3, 4))):
        assert components.count == 0
        assert components.to_volume().shape == (2, 3, 4)
        assert components.centroids().shape == (0, 3)
