import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metseg.errors import InputError
from metseg.plan.plan import IntensityPlan
from metseg.prepare.intensities import percentiles, scale_intensities
from metseg.prepare.prepare import brain_box, subtract, voxel_seed


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(2, 6)),
        elements=st.sampled_from([0.0, 0.0, 0.0, -3.5, -1.0, 2.0, 2.0, 7.25, 100.0]),
    ),
    st.floats(0, 100),
)
def test_percentiles_equal_numpy(volume, percent):
    (found,) = percentiles(volume, (percent,))
    assert found == pytest.approx(float(np.percentile(volume.astype(np.float64), percent)), rel=1e-6, abs=1e-6)


def test_scaling_counts_background_and_clips():
    volume = np.zeros((10, 10, 10), dtype=np.float32)
    volume[0, 0] = np.arange(1, 11)
    scaled = scale_intensities(volume, IntensityPlan())
    upper = np.percentile(volume, 99.9)
    assert np.percentile(volume, 0.1) == 0
    assert scaled.max() == 1
    assert scaled[0, 0, 4] == pytest.approx(5 / upper)
    assert volume[0, 0, 9] == 10, "the input must not change"


def test_percentiles_over_the_brain_do_not_see_the_margin():
    volume = np.zeros((10, 10, 10), dtype=np.float32)
    volume[2:8, 2:8, 2:8] = np.random.default_rng(0).integers(100, 900, (6, 6, 6))
    brain = volume > 0
    brain[1, 4, 4] = True  # another image of the case shows brain here
    plan = IntensityPlan(percentiles_over="brain")
    scaled = scale_intensities(volume, plan, brain)
    low, high = np.percentile(volume[brain], (0.1, 99.9))
    np.testing.assert_allclose(scaled[brain], np.clip((volume[brain] - low) / (high - low), 0, 1), atol=1e-6)
    assert not scaled[~brain].any()
    for tight in (slice(1, 8), slice(1, 9)):
        np.testing.assert_array_equal(
            scale_intensities(volume[tight, 2:8, 2:8], plan, brain[tight, 2:8, 2:8]), scaled[tight, 2:8, 2:8]
        )
    whole = scale_intensities(volume, IntensityPlan())[2:8, 2:8, 2:8]
    assert not np.array_equal(scale_intensities(volume[2:8, 2:8, 2:8], IntensityPlan()), whole), "the paper's rule does"


def test_a_negative_stray_in_the_brain_leaves_the_background_0():
    volume = np.zeros((10, 10, 10), dtype=np.float32)
    volume[2:8, 2:8, 2:8] = np.random.default_rng(0).integers(100, 900, (6, 6, 6))
    volume[4, 4, 4] = -50
    scaled = scale_intensities(volume, IntensityPlan(percentiles_over="brain"))
    assert not scaled[volume == 0].any()


def test_scaling_needs_contrast():
    volume = np.zeros((20, 20, 20), dtype=np.float32)
    volume[3, 3, 3] = 5
    with pytest.raises(InputError, match="no contrast"):
        scale_intensities(volume, IntensityPlan())


def test_subtraction_is_the_squared_difference():
    t1c, t1n = np.float32([[[0.9, 0.2]]]), np.float32([[[0.4, 0.5]]])
    np.testing.assert_allclose(subtract(t1c, t1n), [[[0.25, 0.09]]], rtol=1e-6)


def test_brain_box_joins_the_channels():
    one, other = np.zeros((2, 8, 9, 10), dtype=np.float32)
    one[2, 3, 4], other[5, 6, 7] = 1, 1
    assert brain_box({"t1c": one, "t1n": other}) == (slice(2, 6), slice(3, 7), slice(4, 8))


def test_the_seed_depends_on_voxels_alone():
    volume = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)
    box = (slice(1, 4), slice(0, 5), slice(0, 6))
    seed = voxel_seed({"t1c": volume}, box)
    assert voxel_seed({"t1c": volume.copy(order="F")}, box) == seed
    changed = volume.copy()
    changed[2, 2, 2] += 1e-3
    assert voxel_seed({"t1c": changed}, box) != seed
