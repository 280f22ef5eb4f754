"""Threshold and rules against phantoms whose best setting is known."""

import numpy as np
import pytest

from training.tuning import RULES, CaseFigures, Setting, best_settings, figures_of, settings_of, summary_of


def test_figures_of_a_phantom():
    """One lesion of 216 mm3 found exactly, one of 8 mm3 missed, one of 64 mm3 invented."""
    reference = np.zeros((48, 40, 40), dtype=np.uint8)
    reference[4:10, 4:10, 4:10] = 3
    labels = reference.copy()
    reference[20:22, 20:22, 20:22] = 3
    labels[34:38, 30:34, 30:34] = 3
    figures = figures_of(reference, labels, (1.0, 1.0, 1.0))
    assert (figures.lesions, figures.found, figures.false_positives) == (2, 1, 1)
    assert figures.dice_2023 == pytest.approx(1 / 3)  # 1 over found, missed and invented
    assert figures.dice_2026 == pytest.approx(1 / 2)  # the missed one is small: large found, one false positive
    assert figures.f1_small_2026 == 0


def figures(dice_2023=0.5, dice_2026=0.5, f1=0.5, found=1, invented=0):
    return CaseFigures(dice_2023, dice_2026, f1, lesions=2, found=found, false_positives=invented)


def test_summary_ignores_what_a_case_does_not_have():
    summary = summary_of([figures(f1=float("nan"), found=2), figures(f1=0.25, invented=3)])
    assert summary["f1_small_2026"] == 0.25
    assert summary["sensitivity"] == 0.75
    assert summary["false_positives"] == 1.5


def test_best_settings():
    strict, middle, loose = Setting(0.7, "large"), Setting(0.5, "paper"), Setting(0.2, "none")
    summaries = {
        strict: summary_of([figures(dice_2023=0.8, f1=0.1, found=0)]),
        middle: summary_of([figures(dice_2023=0.7, f1=0.6, found=1, invented=2)]),
        loose: summary_of([figures(dice_2023=0.2, f1=0.2, found=2, invented=40)]),
    }
    best = best_settings(summaries, max_false_positives=5)
    assert best == {"brats2023": strict, "brats2026": middle, "sensitive": middle}
    assert best_settings(summaries, max_false_positives=50)["sensitive"] == loose
    assert "sensitive" not in best_settings({loose: summaries[loose]}, max_false_positives=5)


def test_paper_rules_are_among_the_settings():
    assert Setting(0.5, "paper") in settings_of()
    assert RULES["paper"].min_wt_mm3 == 25
