"""Label maps of several weights or plans beside each other, on the same cases.

    python -m benchmarks.bundles --reference-path REFERENCES [--challenge METS|GLI|SSA] [--labels brats2021|brats2025]
        [--jobs N] NAME=LABEL_MAPS [NAME=LABEL_MAPS ...]

LABEL_MAPS is the output folder of `metseg infer`, NAME a heading; the first one is what the others are compared with.
Prints four tables, in Markdown:

    lesion-wise Dice   of brats2023 by region: mean, its 95 % interval, and the mean difference to the first, paired
    Dice of the case   by region, over the cases whose reference has it: median, and the same difference
    lesions            whole tumours: those found, false and missed ones per case (brats2023), F1 (brats2026)
    cavities           where a reference has one: Dice, and how many of the other cases got one
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from benchmarks.reference_path import Overlap
from evaluation.batch import score_cohort
from evaluation.brats2023 import CHALLENGES, Brats2023, Brats2023RegionScores, Brats2023Scores
from evaluation.brats2026 import Brats2026, Brats2026Scores
from evaluation.cohort import Cohort, find_cohort
from evaluation.summary import Interval, compare_paired, summarise
from metseg.errors import UsageError
from metseg.files.read import read_label_map
from metseg.labels import BRATS_REGIONS, RC, LabelConvention

NAN = float("nan")
WT = "WT"


@dataclass(frozen=True, slots=True)
class Cavities:
    """What became of the operated brains, and of the others.

    Attributes:
        dice: of RC, one entry per case whose reference has it.
        others: cases without.
        false: those of them in which RC was predicted.
    """

    dice: tuple[float, ...]
    others: int
    false: int


@dataclass(frozen=True, slots=True)
class Row:
    """One folder of label maps, scored. Missing label maps count as blank ones.

    Attributes:
        name: its heading.
        of_2023: one entry per case.
        of_2026: the same cases.
        cavities: over all of them.
    """

    name: str
    of_2023: tuple[Brats2023Scores, ...]
    of_2026: tuple[Brats2026Scores, ...]
    cavities: Cavities


def main() -> None:
    arguments = parse_arguments()
    rows = [score(named, arguments) for named in arguments.folders]
    print(f"{len(rows[0].of_2023)} cases of {arguments.reference_path}")
    by_case = partial(compared, center="median", read=case_dice)
    by_lesion = partial(compared, center="mean", read=lambda scores: scores.lesion_wise_dice)
    for title, table in (
        ("lesion-wise Dice, mean", by_lesion),
        ("Dice of the case, median", by_case),
        ("whole tumours", lesions),
        ("cavities", cavities),
    ):
        if lines := list(table(rows)):
            print("\n".join(["", title, "", *lines]), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="NAME=LABEL_MAPS")
    parser.add_argument("--reference-path", required=True, type=Path)
    parser.add_argument("--challenge", choices=CHALLENGES, default="METS")
    parser.add_argument("--labels", choices=["brats2021", "brats2025"], default=None)
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args()


def score(named: str, arguments: argparse.Namespace) -> Row:
    name, _, folder = named.partition("=")
    if not folder:
        raise UsageError(f"{named}: expected NAME=LABEL_MAPS, such as own=/data/own")
    cohort = find_cohort(arguments.reference_path, Path(folder))
    convention = cast("LabelConvention | None", arguments.labels)
    run = partial(score_cohort, cohort, jobs=arguments.jobs, convention=convention)
    of_2023 = run(Brats2023(CHALLENGES[arguments.challenge]))
    of_2026 = run(Brats2026())
    return Row(
        name,
        tuple(cast("Brats2023Scores", case.scores) for case in of_2023),
        tuple(cast("Brats2026Scores", case.scores) for case in of_2026),
        find_cavities(cohort, convention),
    )


def find_cavities(cohort: Cohort, convention: LabelConvention | None) -> Cavities:
    dice, others, false = [], 0, 0
    for case in cohort.cases:
        real = read_label_map(case.reference, convention=convention).labels == RC
        own = (
            real & False
            if case.prediction is None
            else read_label_map(case.prediction, convention=convention).labels == RC
        )
        if real.any():
            dice.append(Overlap(int((real & own).sum()), int(real.sum()), int(own.sum()), 0).dice)
        else:
            others += 1
            false += bool(own.any())
    return Cavities(tuple(dice), others, false)


def case_dice(scores: Brats2023RegionScores) -> float:
    """NaN where the reference lacks the region."""
    return scores.legacy_dice if scores.reference_volume_mm3 > 0 else NAN


def compared(rows: Sequence[Row], *, center: str, read: Callable[[Brats2023RegionScores], float]) -> Iterator[str]:
    """A score of the 2023 protocol by region, and how it differs from the first row's."""
    yield header("weights", *(column for name in BRATS_REGIONS.names for column in (name, "to the first")))
    values = {
        row.name: [[read(case.region(name)) for case in row.of_2023] for name in BRATS_REGIONS.names] for row in rows
    }
    for row in rows:
        columns = []
        for first, own in zip(values[rows[0].name], values[row.name], strict=True):
            summary = summarise(own)
            if center == "mean":
                columns.append(with_interval(summary.mean, summary.interval))
            else:
                columns.append(f"{summary.median:.3f}")
            paired = compare_paired(first, own)
            same = row is rows[0] or not paired.cases
            columns.append("" if same else with_interval(paired.mean_difference, paired.interval, sign="+"))
        yield f"| {row.name} | " + " | ".join(columns) + " |"


def lesions(rows: Sequence[Row]) -> Iterator[str]:
    """Whole tumours, by both protocols."""
    yield header("weights", "found", "false per case", "missed per case", "F1", "F1, small")
    for row in rows:
        scores = [case.region(WT) for case in row.of_2023]
        instances = [case.region(WT) for case in row.of_2026]
        found, all_of_them = sum(one.tp for one in scores), sum(one.tp + one.fn for one in scores)
        false, missed = (summarise([getattr(one, kind) for one in scores]) for kind in ("fp", "fn"))
        every, small = (
            summarise([getattr(one, kind).f1 for one in instances]) for kind in ("all_instances", "small_instances")
        )
        figures = (with_interval(one.mean, one.interval) for one in (false, missed, every, small))
        yield f"| {row.name} | {found} of {all_of_them} | " + " | ".join(figures) + " |"


def cavities(rows: Sequence[Row]) -> Iterator[str]:
    """Nothing where no reference has one and none was predicted."""
    if not any(row.cavities.dice or row.cavities.false for row in rows):
        return
    yield header("weights", "RC, mean Dice", "not touched", "other cases with RC")
    for row in rows:
        dice = summarise(row.cavities.dice)
        missed = f"{sum(one == 0 for one in row.cavities.dice)} of {len(row.cavities.dice)}"
        false = f"{row.cavities.false} of {row.cavities.others}"
        yield f"| {row.name} | {with_interval(dice.mean, dice.interval)} | {missed} | {false} |"


def header(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def with_interval(value: float, interval: Interval, sign: str = "") -> str:
    return f"{value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


if __name__ == "__main__":
    main()
