import numpy as np
import pytest
from scipy import stats

from evaluation.summary import bootstrap_interval, compare_paired, summarise


def test_interval_of_the_mean_matches_the_normal_one_for_many_cases():
    values = np.random.default_rng(3).normal(5, 2, size=400)
    interval = bootstrap_interval(values)
    half_width = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.02)
    assert bootstrap_interval(values) == interval  # seeded


def test_scores_that_are_no_numbers_are_left_out():
    summary = summarise([1.0, np.nan, 3.0, 8.0])
    assert (summary.cases, summary.mean, summary.median) == (3, 4, 3)
    assert summarise([np.nan]).cases == 0
    assert np.isnan(summarise([2.0]).interval.low)


def test_paired_comparison():
    generator = np.random.default_rng(1)
    a = generator.uniform(size=30)
    b = a + generator.normal(0.1, 0.1, size=30)
    comparison = compare_paired([*a, np.nan, 1.0], [*b, 1.0, np.nan])
    assert comparison.cases == 30
    assert comparison.mean_difference == pytest.approx((b - a).mean())
    assert comparison.interval.low < comparison.mean_difference < comparison.interval.high
    assert comparison.higher == (b > a).sum()
    assert comparison.p_value == pytest.approx(stats.wilcoxon(a, b).pvalue)
    swapped = compare_paired(b, a)
    assert swapped.mean_difference == pytest.approx(-comparison.mean_difference)
    assert swapped.p_value == pytest.approx(comparison.p_value)


def test_methods_that_never_differ():
    comparison = compare_paired([1.0, 2.0], [1.0, 2.0])
    assert (comparison.p_value, comparison.mean_difference, comparison.higher, comparison.lower) == (1, 0, 0, 0)
    assert compare_paired([np.nan], [1.0]).cases == 0


def test_five_wins_of_five_are_not_yet_significant():
    """The exact test's smallest two-sided p for five cases: 2 / 2**5."""
    assert compare_paired([1, 2, 3, 4, 5], [2, 4, 6, 8, 10]).p_value == pytest.approx(1 / 16)
