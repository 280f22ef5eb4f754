"""Closed-form phantoms: cubes of known volume, found or not."""

import numpy as np
import pytest

from evaluation.batch import ScoredCase
from evaluation.brats2023 import CHALLENGES, Brats2023
from evaluation.brats2026 import Brats2026
from evaluation.hu2019 import Hu2019
from evaluation.sizes import check_picture, plot_sizes, sort_by_size
from metseg.errors import UsageError

SHAPE = (60, 40, 40)


def cube(labels, corner, side):
    labels[tuple(slice(first, first + side) for first in corner)] = 3


PROTOCOLS = (Brats2023(CHALLENGES["METS"]), Brats2026(), Hu2019())
SPACING = (1.0, 1.0, 1.0)


def scored(name, reference, prediction, protocol=PROTOCOLS[0]):
    return ScoredCase(name, protocol.score(reference, prediction, SPACING), np.eye(4), missing=False)


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
    bands = {band.name: band for band in sort_by_size(cohort) if band.region == "ET"}
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
    band = next(band for band in sort_by_size(cohort) if band.region == "WT")
    assert band.sensitivity == pytest.approx(0.5)
    assert (band.sensitivity_interval.low, band.sensitivity_interval.high) == (0, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_found_and_missing_are_counted_alike(protocol):
    """Two identical cases, one perfect and one without prediction: every protocol finds half of the lesions."""
    reference = np.zeros(SHAPE, dtype=np.uint8)
    cube(reference, (5, 5, 5), 3)
    cube(reference, (30, 20, 20), 4)
    missing = ScoredCase("b", protocol.score_missing(reference, SPACING), np.eye(4), missing=True)
    bands = sort_by_size([scored("a", reference, reference, protocol), missing])
    region = protocol.scored_regions[0].name
    found = [(band.lesions, band.found, band.sensitivity) for band in bands if band.region == region]
    assert found[:2] == [(2, 1, 0.5), (2, 1, 0.5)]
    assert sum(band.found for band in bands if band.region == "RC") == 0


def test_plot_is_a_picture(cohort, tmp_path):
    path = tmp_path / "sizes.png"
    plot_sizes(sort_by_size(cohort), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_no_known_format_is_refused_early(tmp_path):
    for name in ("sizes.png", "sizes.SVG", "a.b.pdf"):
        check_picture(tmp_path / name)
    for name, found in (("sizes.abc", ".abc"), ("sizes", "no ending")):
        with pytest.raises(UsageError, match=f"--size-plot .*{name}: .*found {found}"):
            check_picture(tmp_path / name)
