"""What surrounds the brain: closed forms over every kind of background, and what is left alone."""

import numpy as np
import pytest
from scipy.ndimage import rotate, zoom

from metseg.files.background import settle_background

SHAPE = (48, 40, 36)
BRAIN = (slice(8, 40), slice(6, 34), slice(6, 30))


def brain_image(low=20, high=900):
    """An ellipsoid of smooth whole numbers over 0, with noise."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.55
    image = np.where(inside, rng.integers(low, high, SHAPE), 0).astype(np.float32)
    return image, inside


IMAGE, INSIDE = brain_image()
SCORED = (IMAGE - IMAGE[INSIDE].mean()) / IMAGE[INSIDE].std()


def over(background, brain=IMAGE):
    return np.where(INSIDE, brain, np.float32(background)).astype(np.float32)


def framed(image, value, width=3):
    framed = np.full(SHAPE, value, np.float32)
    inner = tuple(slice(width, side - width) for side in SHAPE)
    framed[inner] = image[inner]
    return framed


def settle(image):
    before = image.copy()
    settled, findings = settle_background(image)
    np.testing.assert_array_equal(image, before)
    return settled, [finding.code for finding in findings]


RAISED = np.where(INSIDE, SCORED - SCORED[INSIDE].min(), 0).astype(np.float32)

# what the files hold, and what is read of it
TREATED = {
    "above 0, below the brain": (IMAGE + 32, IMAGE),
    "above 0 in place of 0": (over(15), np.where(INSIDE, IMAGE - 15, 0)),
    "above the brain's minimum": (over(300.5), IMAGE),
    "white": (over(5000), IMAGE),
    "negative": (over(-1024), IMAGE),
    "NaN": (over(np.nan), IMAGE),
    "minus infinity": (over(-np.inf), IMAGE),
    "0 around normalised brain": (over(0, SCORED), RAISED),
    "negative around normalised brain": (over(-10, SCORED), RAISED),
    "NaN around normalised brain": (over(np.nan, SCORED), RAISED),
    "far below normalised brain": (over(-1024, SCORED), RAISED),
    "everything is negative": (over(0) - 3000, np.where(INSIDE, IMAGE - IMAGE[INSIDE].min(), 0)),
    "a frame of NaN": (framed(IMAGE, np.nan), IMAGE),
    "a frame of 0 about NaN": (framed(over(np.nan), 0), IMAGE),
    "a frame of 0 about -1024": (framed(over(-1024), 0), IMAGE),
    "a frame of -1024 about 0": (framed(IMAGE, -1024), IMAGE),
}


@pytest.mark.parametrize("name", TREATED)
def test_the_background_becomes_0_and_the_brain_is_not_negative(name):
    image, expected = TREATED[name]
    settled, codes = settle(np.asfortranarray(image))
    np.testing.assert_allclose(settled, expected, atol=1e-3)
    assert not settled[~INSIDE].any()
    assert codes == ["background"]
    again, codes = settle(settled)
    assert again is settled
    assert not codes


def with_stray(value):
    image = IMAGE.copy()
    image[24, 20, 18] = value
    return image


FINE = {
    "over 0": IMAGE,
    "cropped to the brain": IMAGE[BRAIN],
    "through the brain": IMAGE[:24, :20],
    "one voxel far below": with_stray(-32000),
    "one voxel far above": with_stray(60000),
    "one NaN": with_stray(np.nan),
    "ringing of a cubic interpolation": zoom(IMAGE, (1.3, 0.8, 1.3), order=3),
    "constant": np.full(SHAPE, -7, np.float32),
    "nothing but NaN": np.full(SHAPE, np.nan, np.float32),
    "noise that nobody sees": np.where(INSIDE, IMAGE, np.random.default_rng(1).normal(0, 0.01, SHAPE)),
    "one slice": IMAGE[:, :, 18:19],
}


@pytest.mark.parametrize("name", FINE)
def test_what_needs_nothing_stays_as_it_is(name):
    image = np.asfortranarray(FINE[name], dtype=np.float32)
    settled, codes = settle(image)
    assert settled is image
    assert not codes


@pytest.mark.parametrize(
    "image",
    [
        np.where(INSIDE, IMAGE, np.abs(np.random.default_rng(1).normal(0, 8, SHAPE))),
        IMAGE[16:32, 14:26, 12:24],  # inside the brain: no background at all
        over(-1024)[12:36, 10:30, 12:24],  # the border is brain for the most part
        framed(np.random.default_rng(1).normal(100, 8, SHAPE), 0, 1),  # padded, not stripped
    ],
    ids=["noise", "inside", "brain at the border", "thin frame"],
)
def test_without_a_common_value_nothing_changes_and_the_result_is_called_unreliable(image):
    image = np.asfortranarray(image, dtype=np.float32)
    settled, codes = settle(image)
    assert settled is image
    assert codes == ["no-background"]


def test_nan_inside_the_brain_stays_where_the_background_is_a_number():
    image = over(-1024)
    image[20:28, 16:24, 14:22] = np.nan
    image[0, 0] = np.nan  # outside
    settled, codes = settle(image)
    assert codes == ["background"]
    np.testing.assert_array_equal(np.isnan(settled), np.isnan(image) & INSIDE)


def test_infinities_inside_the_brain_stay_for_the_rule_about_them():
    image = over(np.nan)
    image[20:28, 16:24, 14:22] = -np.inf
    settled, _ = settle(image)
    assert np.isinf(settled[20:28, 16:24, 14:22]).all()
    assert np.isfinite(settled).sum() == settled.size - 8**3


@pytest.mark.parametrize(("brain", "order"), [(IMAGE, 1), (IMAGE, 3), (SCORED, 1)], ids=["linear", "cubic", "scored"])
def test_an_edge_mixed_with_the_background_by_resampling_does_not_set_the_scale(brain, order):
    big, inside = zoom(brain, 2, order=1), zoom(INSIDE.astype(np.float32), 2, order=1) > 0.5
    mixed = rotate(np.where(inside, big, -1024), 20, order=order, reshape=False, cval=-1024).astype(np.float32)
    settled, codes = settle(mixed)
    assert codes == ["background"]
    assert settled.min() == 0
    core = (slice(40, 56), slice(32, 48), slice(28, 44))
    offset = float((settled[core] - mixed[core]).mean())
    assert np.ptp(settled[core] - mixed[core]) < 1e-2
    assert 0 <= offset <= 3 * np.ptp(brain[INSIDE]) / 2
