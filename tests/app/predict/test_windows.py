from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices

from metseg.plan.plan import WindowPlan
from metseg.predict.windows import gaussian_weights, lay_windows


@pytest.mark.parametrize("window", [(16, 24, 8), (192, 192, 32), (8, 8, 8)])
def test_weights_are_monais(window):
    expected = compute_importance_map(window, mode="gaussian").numpy()
    np.testing.assert_allclose(gaussian_weights(window), expected, rtol=1e-5, atol=1e-7)


def test_a_brain_that_fits_in_plane_takes_one_column_of_windows():
    layout = lay_windows((240, 240, 155), (slice(50, 190), slice(30, 205), slice(3, 148)), WindowPlan())
    assert layout.window == (192, 192, 32)
    assert layout.shape == (192, 192, 145)
    assert {origin[:2] for origin in layout.origins} == {(0, 0)}
    assert [origin[2] for origin in layout.origins] == [*range(0, 113, 8), 113]


def test_over_the_whole_volume_the_windows_are_monais():
    shape, size = (240, 200, 155), (192, 192, 32)
    layout = lay_windows(shape, tuple(slice(0, side) for side in shape), WindowPlan(size=size, overlap=0.75))
    expected = dense_patch_slices(shape, size, (48, 48, 8))
    assert sorted(layout.origins) == sorted(tuple(axis.start for axis in place) for place in expected)


def test_windows_of_the_whole_volume_that_see_brain_stand_where_monai_puts_them():
    shape, brain = (240, 240, 155), (slice(52, 190), slice(30, 205), slice(40, 120))
    layout = lay_windows(shape, brain, WindowPlan(overlap=0.75, extent="volume"))
    places = {tuple(a + b for a, b in zip(layout.start, origin, strict=True)) for origin in layout.origins}
    scan = {tuple(axis.start for axis in place) for place in dense_patch_slices(shape, (192, 192, 32), (48, 48, 8))}
    assert places <= scan
    assert {place[0] for place in places} == {48}, "both hold the brain along x: the more central one"
    assert {place[1] for place in places} == {0, 48}, "neither holds it along y"
    assert {place[2] for place in places} == {*range(16, 120, 8)}, "those that see slices 40 to 119"


@given(
    st.tuples(*[st.integers(4, 90)] * 3),
    st.data(),
    st.sampled_from(["fixed", "volume", "trimmed", "whole"]),
    st.sampled_from([0.0, 0.5, 0.75]),
)
def test_windows_cover_the_brain_and_stay_in_the_region(shape, data, extent, overlap):
    brain = []
    for side in shape:
        start = data.draw(st.integers(0, side - 1))
        brain.append(slice(start, data.draw(st.integers(start + 1, side))))
    layout = lay_windows(shape, tuple(brain), WindowPlan(size=(40, 32, 16), overlap=overlap, extent=extent))
    covered = np.zeros(layout.shape, dtype=bool)
    for origin in layout.origins:
        assert all(o >= 0 and o + w <= s for o, w, s in zip(origin, layout.window, layout.shape, strict=True))
        covered[tuple(slice(o, o + w) for o, w in zip(origin, layout.window, strict=True))] = True
    assert covered.all()
    assert all(side % 8 == 0 for side in layout.window)
    for start, side, box in zip(layout.start, layout.shape, brain, strict=True):
        assert start <= box.start
        assert start + side >= box.stop


def test_cut_repeats_the_border_and_paste_drops_the_overhang():
    volume = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    layout = lay_windows((4, 5, 6), (slice(0, 4), slice(0, 5), slice(0, 6)), WindowPlan(size=(8, 8, 8)))
    region = layout.cut(volume)
    assert region.shape == (8, 8, 8)
    for x, y, z in product(range(8), repeat=3):
        inside = [min(max(i + s, 0), n - 1) for i, s, n in zip((x, y, z), layout.start, volume.shape, strict=True)]
        assert region[x, y, z] == volume[tuple(inside)]
    assert np.array_equal(layout.paste(region.astype(np.uint8), volume.shape), volume.astype(np.uint8))
