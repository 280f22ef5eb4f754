"""Outlines of masks, filled again in the ways that other programs fill them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.draw import polygon2mask

from metseg.dicom.contours import INSET_PIXELS, trace_mask

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=11), elements=st.booleans())


def area(polygon):
    column, row = polygon.T
    return (column * np.roll(row, -1) - np.roll(column, -1) * row).sum() / 2


@given(MASKS)
def test_filled_polygons_are_the_mask_whether_united_or_combined_by_exclusive_or(mask):
    polygons = trace_mask(mask)
    filled = [polygon2mask(mask.shape, polygon) for polygon in polygons]
    for combine in (np.logical_or, np.logical_xor):
        np.testing.assert_array_equal(combine.reduce(filled, axis=0) if filled else mask & False, mask)
    assert len(polygons) == ndimage.label(mask)[1]
    assert sum(map(area, polygons)) == pytest.approx(mask.sum(), rel=5 * INSET_PIXELS)


@given(MASKS)
def test_every_corner_rounds_to_a_pixel_of_the_mask_and_none_repeats(mask):
    for polygon in trace_mask(mask):
        column, row = np.rint(polygon).astype(int).T
        assert mask[column, row].all()
        assert (np.abs(np.diff(polygon, axis=0, append=polygon[:1])).max(axis=1) > INSET_PIXELS).all()


def test_a_ring_is_one_polygon_with_a_channel_there_and_back():
    ring = np.ones((5, 5), dtype=bool)
    ring[2, 2] = False
    (polygon,) = trace_mask(ring)
    assert len(polygon) == 4 + 4 + 4  # outline, hole, both ends of the channel twice
    points, counts = np.unique(polygon, axis=0, return_counts=True)
    assert sorted(counts) == [1] * 8 + [2] * 2
    assert len(set(points[counts == 2, 0])) == 1  # straight up


def test_one_pixel_is_a_square_and_no_pixel_nothing():
    one = np.zeros((3, 3), dtype=bool)
    assert trace_mask(one) == []
    one[1, 2] = True
    (polygon,) = trace_mask(one)
    np.testing.assert_allclose(np.sort(polygon, axis=0)[[0, -1]], [[0.5, 1.5], [1.5, 2.5]], atol=2 * INSET_PIXELS)
    assert len(polygon) == 4


def test_pixels_that_touch_at_a_corner_have_polygons_of_their_own():
    diagonal = np.eye(2, dtype=bool)
    first, second = trace_mask(diagonal)
    assert np.linalg.norm(first[:, None] - second[None], axis=-1).min() > INSET_PIXELS
