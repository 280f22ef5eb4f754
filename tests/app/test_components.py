"""Components and boxes against closed forms and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from metseg.space.components import bounding_box, find_components

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


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (1, 1, 3), (3, 1, 3), (2, 3, 5), (3, 3, 3), (9, 9, 9)])
def test_as_many_components_as_fit(shape):
    # cc3d by itself raises where all sides are odd.
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    assert find_components(mask).sizes.tolist() == [1] * int(mask.sum())


def test_an_empty_mask_has_no_component():
    components = find_components(np.zeros((2, 3, 4), bool))
    assert components.sizes.size == 0
    assert components.to_volume().shape == (2, 3, 4)
