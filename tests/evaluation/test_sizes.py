"""Closed-form phantoms: cubes of known volume, found or not."""

import numpy as np
import pytest

from evaluation.batch import ScoredCase
from evaluation.brats2023 import CHALLENGES, Brats2023
from evaluation.sizes import bands_by_size, plot_sizes

SHAPE = (60, 40, 40)


def cube(labels, corner, side):
    labels[tuple(slice(first, first + side) for first in corner)] = 3


def scored(name, reference, prediction):
    scores = Brats2023(CHALLENGES["METS"]).score(reference, prediction, (1.0, 1.0, 1.0))
    return ScoredCase(name, scores, np.eye(4), missing=False)


@pytest.fixture
def cohort():
    """Three cases: 27 mm3 found and 64 mm3 missed; 1000 mm3 found and 8 mm3 invented; none."""
    one = np.zeros(SHAPE, dtype=np.uint8)
    cube(one, (5, 5, 5), 3)
    guess = one.copy()
    cube(one, (30, 20, 20), 4)
    two = np.zeros(SHAPE, dtype=np.uint8)
    cube(two, (5, 5, 5), 10)
    more = two.copy()
    cube(more, (40, 30, 30), 2)
    none = np.zeros(SHAPE, dtype=np.uint8)
    return [scored("a", one, guess), scored("b", two, more), scored("c", none, none)]


def test_bands(cohort):
    bands = {band.name: band for band in bands_by_size(cohort) if band.region == "ET"}
    assert list(bands) == ["<= 27", "27-100", "100-1000", "> 1000"]
    assert [(band.lesions, band.found) for band in bands.values()] == [(1, 1), (1, 0), (1, 1), (0, 0)]
    assert bands["<= 27"].false_positives_per_case == pytest.approx(1 / 3)
    assert bands["27-100"].mean_dice == 0
    assert bands["100-1000"].mean_dice == 1
    assert np.isnan(bands["> 1000"].sensitivity)
    interval = bands["<= 27"].false_positives_interval
    assert interval.low == 0 < interval.high <= 1


def test_lesions_of_one_patient_stay_together():
    """Ten lesions found in one case, ten missed in the other: the interval spans everything, as for two values."""
    reference = np.zeros((60, 60, 60), dtype=np.uint8)
    for index in range(10):
        cube(reference, (5 * index + 3, 10, 10), 2)
    cohort = [scored("found", reference, reference), scored("missed", reference, np.zeros_like(reference))]
    band = next(band for band in bands_by_size(cohort) if band.region == "WT")
    assert band.sensitivity == pytest.approx(0.5)
    assert (band.sensitivity_interval.low, band.sensitivity_interval.high) == (0, 1)


def test_plot_is_a_picture(cohort, tmp_path):
    path = tmp_path / "sizes.png"
    plot_sizes(bands_by_size(cohort), path)
    assert path.read_bytes().startswith(b"\x89PNG")
