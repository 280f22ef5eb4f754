"""Whether a published difference shows up here: paired over cases, a bootstrap interval, three possible answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.summary import PairedComparison, compare_paired
from metseg.labels import BRATS_REGIONS
from training.tables.published import METRICS, PUBLISHED, Metric, Pair
from training.tables.scoring import CaseScores, average_regions, entry_name, pool_seeds

Verdict = Literal["reproduced", "undecided", "opposite", "not published", "undecided: not enough training"]

EXTREME_CASES = 3
"""An opposite direction is also looked at without the cases that pull it most."""

ROUNDING = 1e-9
"""A number of cases this little above a whole one is that whole one; a mean this small is zero."""

MOST_CASES = 10_000
"""More cases than this would not be asked for."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of one pair of rows.

    Attributes:
        pair: which rows.
        metric: which metric.
        published: the paper's difference; None where it has none.
        paired: ours, case by case, each the mean over the seeds.
        of_seeds: the mean difference of each seed.
        verdict: `reproduced` or `opposite` only when the interval excludes zero.
        cases_to_decide: for `undecided`: about how many cases would exclude zero, were mean and spread to stay; None
            when no number would (see `cases_needed`).
        looked_into: for `opposite`: what the difference is made of.
    """

    pair: Pair
    metric: Metric
    published: float | None
    paired: PairedComparison
    of_seeds: tuple[float, ...]
    verdict: Verdict
    cases_to_decide: int | None = None
    looked_into: str = ""


def compare_rows(pair: Pair, by_seed: Sequence[Sequence[CaseScores]], *, enough: bool = True) -> tuple[Difference, ...]:
    """Every metric of a pair of rows.

    Args:
        pair: which rows.
        by_seed: for each seed the same cases in the same order.
        enough: as for `judge`.
    """
    cases = pool_seeds(by_seed)
    before, after = (_figures(row, cases) for row in (pair.before, pair.after))
    of_seeds = [(_figures(pair.after, one) - _figures(pair.before, one)).mean(axis=0) for one in by_seed]
    found = []
    for index, metric in enumerate(METRICS):
        paired = compare_paired(before[:, index].tolist(), after[:, index].tolist())
        published = published_difference(pair, metric)
        verdict = judge(published, paired, enough=enough)
        found.append(
            Difference(
                pair,
                metric,
                published,
                paired,
                tuple(float(one[index]) for one in of_seeds),
                verdict,
                cases_to_decide=cases_needed(paired) if verdict == "undecided" else None,
                looked_into=_look_into(pair, metric, cases) if verdict == "opposite" else "",
            )
        )
    return tuple(found)


def _figures(row: tuple[str, bool], cases: Sequence[CaseScores]) -> NDArray[np.float64]:
    """Shape (cases, metrics)."""
    method, flag = row
    return np.array([average_regions(case.scores[entry_name(method, postprocessed=flag)]) for case in cases])


def published_difference(pair: Pair, metric: Metric) -> float | None:
    """The paper's `after` - `before`; None where it has no such rows."""
    rows = [PUBLISHED.get(row) for row in (pair.before, pair.after)]
    if rows[0] is None or rows[1] is None:
        return None
    index = METRICS.index(metric)
    return round(rows[1].figures[index] - rows[0].figures[index], 6)


def judge(published: float | None, paired: PairedComparison, *, enough: bool = True) -> Verdict:
    """The rule: a direction counts only when the paired 95 % interval excludes zero.

    Args:
        published: the paper's difference; None or 0 claims no direction.
        paired: ours.
        enough: whether the models were trained enough for any direction to count.
    """
    if not published:
        return "not published"
    if not enough:
        return "undecided: not enough training"
    low, high = paired.interval.low, paired.interval.high
    if not (low > 0 or high < 0):
        return "undecided"
    return "reproduced" if (low > 0) == (published > 0) else "opposite"


def cases_needed(paired: PairedComparison) -> int | None:
    """Cases whose interval would just exclude zero: its half-width shrinks with the root of the number of cases.

    None where no number would do, because there is no difference, or more than `MOST_CASES`.
    """
    half_width = (paired.interval.high - paired.interval.low) / 2
    if abs(paired.mean_difference) <= ROUNDING or not math.isfinite(half_width):
        return None
    exact = paired.cases * (half_width / abs(paired.mean_difference)) ** 2
    needed = max(paired.cases + 1, math.ceil(exact - ROUNDING))
    return needed if needed <= MOST_CASES else None


def _look_into(pair: Pair, metric: Metric, cases: Sequence[CaseScores]) -> str:
    """Cases on either side, the regions, and what is left without the most extreme cases."""
    index = METRICS.index(metric)
    before, after = (entry_name(method, postprocessed=flag) for method, flag in (pair.before, pair.after))
    by_region = {
        region: np.array([case.scores[after][region][index] - case.scores[before][region][index] for case in cases])
        for region in BRATS_REGIONS.names
    }
    total = np.mean(list(by_region.values()), axis=0)
    order = np.argsort(total * np.sign(total.mean()))
    kept = total[order[:-EXTREME_CASES]]
    regions = ", ".join(f"{region} {values.mean():+.2f}" for region, values in by_region.items())
    rest = f"{kept.mean():+.2f}" if kept.size else "nothing is left"
    return (
        f"higher in {int((total > 0).sum())} cases, lower in {int((total < 0).sum())}, equal in "
        f"{int((total == 0).sum())}; {regions}; without the {EXTREME_CASES} cases that pull most {rest}"
    )
