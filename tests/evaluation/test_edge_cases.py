"""Every row of every protocol's table of edge cases, each reached by a map that can be scored by hand."""

from dataclasses import astuple, is_dataclass

import numpy as np
import pytest

from evaluation import brats2023, brats2026, hu2019
from evaluation.edge_cases import UNDEFINED, EdgeCase, EdgeCases, divide
from phantoms import UNIT, cube, draw_map

EMPTY = draw_map()
FULL = np.full_like(EMPTY, 3)
LARGE = draw_map(cube(3, 3, 3))  # 27 mm3: large for brats2026, small for hu2019
SMALL = draw_map(cube(3, 3, 3, side=2))
TINY = draw_map(cube(3, 3, 3, side=1))  # too small to count for brats2023
HUGE = draw_map(((2, 2, 2), (12, 12, 12)))  # 1728 mm3: large for hu2019
ELSEWHERE = draw_map(cube(18, 14, 12))

TABLES = {"brats2023": brats2023.EDGE_CASES, "brats2026": brats2026.EDGE_CASES, "hu2019": hu2019.EDGE_CASES}
PROTOCOLS = {"brats2023": brats2023.Brats2023(), "brats2026": brats2026.Brats2026(), "hu2019": hu2019.Hu2019()}
MISSING = "missing"

# Protocol, situation, reference, prediction, and what is scored: written down here once more, not read from the table.
REACHED = [
    ("brats2023", "nothing in the reference", EMPTY, LARGE,
     {"sensitivity": 0, "legacy_dice": 0, "legacy_hd95_mm": 374}),
    ("brats2023", "nothing in the prediction", LARGE, EMPTY,
     {"sensitivity": 0, "specificity": 1, "legacy_dice": 0, "legacy_hd95_mm": 374}),
    ("brats2023", "nothing on both sides", EMPTY, EMPTY,
     {"sensitivity": 1, "specificity": 1, "legacy_dice": 1, "legacy_hd95_mm": 0}),
    ("brats2023", "no background", FULL, LARGE, {"specificity": 0}),
    ("brats2023", "no background", FULL, EMPTY, {"specificity": 0}),
    ("brats2023", "no counted lesion, no false positive", EMPTY, EMPTY,
     {"lesion_wise_dice": 1, "lesion_wise_hd95_mm": 0}),
    ("brats2023", "no counted lesion, no false positive", TINY, EMPTY,
     {"lesion_wise_dice": 1, "lesion_wise_hd95_mm": 0}),
    ("brats2023", "unmatched lesion", LARGE, ELSEWHERE, {"dice": 0, "hd95_mm": 374}),
    ("brats2023", "false positive", EMPTY, LARGE, {"dice": 0, "hd95_mm": 374}),
    ("brats2023", "missing prediction", EMPTY, MISSING,
     {"sensitivity": 0, "specificity": 0, "legacy_dice": 0, "legacy_hd95_mm": 374,
      "lesion_wise_dice": 0, "lesion_wise_hd95_mm": 374}),
    ("brats2026", "nothing on both sides", EMPTY, EMPTY, {"all_instances": (0, 0, 0, np.nan)}),
    ("brats2026", "no large lesion", SMALL, SMALL,
     {"dsc": (np.nan, np.nan), "hd95_mm": (np.nan, np.nan), "nsd": (np.nan, np.nan)}),
    ("brats2026", "no large lesion", SMALL, ELSEWHERE,
     {"dsc": (np.nan, np.nan), "hd95_mm": (np.nan, np.nan), "nsd": (np.nan, np.nan)}),
    ("brats2026", "no large lesion, no false positive", SMALL, EMPTY, {"large_instances": (0, 0, 0, 0)}),
    ("brats2026", "no small lesion", LARGE, LARGE, {"small_instances": (np.nan, np.nan, np.nan, np.nan)}),
    ("brats2026", "unmatched lesion", LARGE, ELSEWHERE, {"dice": 0, "hd95_mm": 373, "nsd": 0}),
    ("brats2026", "false positive", EMPTY, LARGE, {"dice": 0, "hd95_mm": 373, "nsd": 0}),
    ("brats2026", "missing prediction", LARGE, MISSING,
     {"all_instances": (0, 0, 0, 0), "large_instances": (0, 0, 0, 0), "small_instances": (0, 0, 0, 0),
      "dsc": (0, 0), "hd95_mm": (373, 373), "nsd": (0, 0)}),
    ("hu2019", "nothing in the reference", EMPTY, LARGE, {"recall": np.nan, "lesion_recall": np.nan}),
    ("hu2019", "nothing in the prediction", LARGE, EMPTY, {"precision": np.nan}),
    ("hu2019", "nothing on both sides", EMPTY, EMPTY, {"dsc": 1}),
    ("hu2019", "no small lesion", HUGE, LARGE, {"small_recall": np.nan, "small_lesion_recall": np.nan}),
    ("hu2019", "no large lesion", LARGE, LARGE, {"large_recall": np.nan, "large_lesion_recall": np.nan}),
    ("hu2019", "unmatched lesion", LARGE, ELSEWHERE, {"dice": 0, "hd95_mm": np.nan}),
    ("hu2019", "false positive", EMPTY, LARGE, {"dice": 0, "hd95_mm": np.nan}),
    ("hu2019", "missing prediction", EMPTY, MISSING, {"dsc": 0, "precision": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("protocol", "situation", "reference", "prediction", "expected"), REACHED)
def test_the_table_says_what_is_scored(protocol, situation, reference, prediction, expected):
    chosen = PROTOCOLS[protocol]
    if prediction is MISSING:
        scores = chosen.score_missing(reference, UNIT)
    else:
        scores = chosen.score(reference, prediction, UNIT)
    region = next(found for found in scores.regions if found.region in {"ET", "metastasis"})
    kinds = {"unmatched lesion": "lesion", "false positive": "false_positive"}
    if situation in kinds:
        found = next(lesion for lesion in region.lesions if lesion.kind == kinds[situation])
        assert found.matched_components == ()
    else:
        found = region.figures if protocol == "hu2019" else region
    for name, value in expected.items():
        np.testing.assert_equal(plain(getattr(found, name)), value)
    declared = {name: plain(value) for name, value in TABLES[protocol].find(situation).items()}
    np.testing.assert_equal(declared, expected)


def plain(value):
    return astuple(value) if is_dataclass(value) else value


@pytest.mark.parametrize("protocol", TABLES)
def test_every_row_is_reached(protocol):
    rows = [row.situation for row in TABLES[protocol].rows]
    assert len(rows) == len(set(rows))
    assert set(rows) == {situation for name, situation, *_ in REACHED if name == protocol}


def test_the_last_row_wins_and_an_undeclared_situation_is_refused():
    table = EdgeCases(
        (
            EdgeCase("nothing in the reference", {"dsc": 0.0, "recall": 0.0}, "this project"),
            EdgeCase("nothing on both sides", {"dsc": 1.0}, "this project"),
        )
    )
    computed = {"dsc": UNDEFINED, "recall": UNDEFINED, "precision": 0.5}
    both = {"nothing on both sides": True, "nothing in the reference": True}
    assert table.settle(computed, both) == {"dsc": 1.0, "recall": 0.0, "precision": 0.5}
    assert table.settle({"dsc": 0.7}, dict.fromkeys(both, False)) == {"dsc": 0.7}
    with pytest.raises(KeyError):
        table.settle(computed, {"no background": False})


def test_nothing_to_divide_by_is_undefined():
    assert np.isnan(divide(0, 0))
    assert divide(1, 4) == 0.25
