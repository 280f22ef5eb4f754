"""The published scores on maps whose figures can be counted by hand."""

import math

import numpy as np
import pytest

from evaluation import score_case
from evaluation.protocols import find_protocol

SPACING = (1.0, 1.0, 2.0)


def maps():
    """Three metastases: 12x12x6 (1728 mm3, large), 4x4x4 (128 mm3), one voxel; and a prediction of parts of them."""
    reference = np.zeros((40, 40, 20), dtype=np.uint8)
    reference[2:14, 2:14, 2:8] = 1
    reference[20:24, 20:24, 10:14] = 1
    reference[30, 30, 15] = 1
    prediction = np.zeros_like(reference)
    prediction[2:14, 2:14, 2:5] = 1  # half of the large one
    prediction[23, 23, 13] = 1  # one voxel of the small one
    prediction[35:37, 35, 3] = 1  # nothing there
    return reference, prediction


def test_figures_counted_by_hand():
    reference, prediction = maps()
    (region,) = score_case(reference, prediction, SPACING, "hu2019").regions
    found = region.columns()
    own, predicted, right = 864 + 64 + 1, 432 + 1 + 2, 432 + 1
    assert found["dsc"] == pytest.approx(2 * right / (own + predicted))
    assert found["precision"] == pytest.approx(right / predicted)
    assert found["recall"] == pytest.approx(right / own)
    assert found["lesion_recall"] == pytest.approx(2 / 3)
    assert (found["lesions"], found["small_lesions"], found["large_lesions"]) == (3, 2, 1)
    assert found["small_recall"] == pytest.approx(1 / 65)
    assert found["small_lesion_recall"] == pytest.approx(1 / 2)
    assert found["large_recall"] == pytest.approx(1 / 2)
    assert found["large_lesion_recall"] == 1
    assert found["false_positives"] == 1
    assert [lesion.size_class for lesion in region.lesions] == ["large", "small", "small", "counted"]
    assert [lesion.matched_components for lesion in region.lesions] == [(1,), (3,), (), ()]
    assert [lesion.dice for lesion in region.lesions] == [1, 1, 0, 0]


def test_the_split_is_at_1500_mm3_inclusive():
    reference = np.zeros((30, 30, 30), dtype=np.uint8)
    reference[:10, :10, :15] = 1
    (region,) = score_case(reference, reference, (1, 1, 1), "hu2019").regions
    assert region.columns()["large_lesions"] == 1
    reference[0, 0, 0] = 0
    (region,) = score_case(reference, reference, (1, 1, 1), "hu2019").regions
    assert region.columns()["large_lesions"] == 0


def test_empty_maps():
    empty = np.zeros((8, 8, 8), dtype=np.uint8)
    full = empty.copy()
    full[2, 2, 2] = 1
    (both,) = score_case(empty, empty, (1, 1, 1), "hu2019").regions
    assert both.columns()["dsc"] == 1
    assert all(math.isnan(both.columns()[name]) for name in ("precision", "recall", "lesion_recall"))
    (missed,) = find_protocol("hu2019").score_missing(full, (1, 1, 1)).regions
    assert missed.columns()["dsc"] == 0
    assert missed.columns()["lesion_recall"] == 0
    (invented,) = score_case(empty, full, (1, 1, 1), "hu2019").regions
    assert invented.columns()["precision"] == 0
    assert invented.columns()["false_positives"] == 1


def test_a_missing_prediction_is_worse_than_a_blank_one():
    empty = np.zeros((8, 8, 8), dtype=np.uint8)
    full = empty.copy()
    full[2, 2, 2] = 1
    for reference, recall in ((empty, None), (full, 0)):
        (missing,) = find_protocol("hu2019").score_missing(reference, (1, 1, 1)).regions
        found = missing.columns()
        assert (found["dsc"], found["precision"], found["false_positives"]) == (0, 0, 0)
        assert found["lesions"] == (recall is not None)
        # Nobody has a recall where there is nothing to find.
        assert math.isnan(found["recall"]) if recall is None else found["recall"] == recall


def test_a_written_entry_is_read_back():
    reference, prediction = maps()
    protocol = find_protocol("hu2019")
    scores = protocol.score(reference, prediction, SPACING)
    assert protocol.parse_json(scores.to_json()) == {"metastasis": scores.regions[0].columns()}
