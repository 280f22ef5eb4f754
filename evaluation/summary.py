"""Scores of a cohort in a few numbers: means with intervals, and paired comparisons."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from evaluation.joint_box import FloatArray

BOOTSTRAP_SAMPLES = 10_000
BOOTSTRAP_SEED = 0
INTERVAL_PERCENT = (2.5, 97.5)
"""Ends of the 95 % interval."""

CHUNK = 500
"""Resamples drawn at a time: bounds the memory, whatever the cohort's size."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap 95 % interval; NaN on both ends with fewer than two values."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One score over the cases that have it; NaN when none has.

    Attributes:
        cases: how many cases have a number.
        mean: their mean.
        median: their median.
        interval: of the mean.
    """

    cases: int
    mean: float
    median: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """One score of two methods over the cases for which both have a number.

    Attributes:
        cases: how many there are.
        mean_a: mean of the first method.
        mean_b: mean of the second.
        mean_difference: of b - a.
        median_difference: of b - a.
        interval: of the mean difference.
        higher: cases in which b is higher than a.
        lower: cases in which it is lower.
        p_value: two-sided Wilcoxon signed-rank test; 1 when no case differs, NaN without cases.
    """

    cases: int
    mean_a: float
    mean_b: float
    mean_difference: float
    median_difference: float
    interval: Interval
    higher: int
    lower: int
    p_value: float


def bootstrap_interval(values: FloatArray) -> Interval:
    """Percentile interval of the mean over resampled cases; seeded, so it is the same every time."""
    if len(values) < 2:  # noqa: PLR2004 - one value has no spread
        return Interval(np.nan, np.nan)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    means = [
        values[generator.integers(0, len(values), size=(CHUNK, len(values)))].mean(axis=1)
        for _ in range(BOOTSTRAP_SAMPLES // CHUNK)
    ]
    low, high = np.percentile(np.concatenate(means), INTERVAL_PERCENT)
    return Interval(float(low), float(high))


def summarise(values: Sequence[float]) -> Summary:
    """Mean, median and interval of the values that are numbers."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if len(numbers) == 0:
        return Summary(0, np.nan, np.nan, Interval(np.nan, np.nan))
    return Summary(len(numbers), float(numbers.mean()), float(np.median(numbers)), bootstrap_interval(numbers))


def compare_paired(a: Sequence[float], b: Sequence[float]) -> PairedComparison:
    """Compares two methods case by case; entry i of both belongs to one case."""
    pairs = np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)])
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    difference = pairs[1] - pairs[0]
    if len(difference) == 0:
        nothing = Interval(np.nan, np.nan)
        return PairedComparison(0, np.nan, np.nan, np.nan, np.nan, nothing, 0, 0, np.nan)
    return PairedComparison(
        cases=len(difference),
        mean_a=float(pairs[0].mean()),
        mean_b=float(pairs[1].mean()),
        mean_difference=float(difference.mean()),
        median_difference=float(np.median(difference)),
        interval=bootstrap_interval(difference),
        higher=int((difference > 0).sum()),
        lower=int((difference < 0).sum()),
        p_value=_signed_rank_p(difference),
    )


def _signed_rank_p(difference: FloatArray) -> float:
    changed = difference[difference != 0]
    if len(changed) == 0:
        return 1.0
    with warnings.catch_warnings():
        # SciPy warns that the normal approximation is rough for few cases with ties; the case count stands beside p.
        warnings.simplefilter("ignore")
        return float(wilcoxon(changed).pvalue)
