"""The radiosurgery system's tables as Markdown, beside the published figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from evaluation.summary import compare_paired
from training.tables.comparing import judge
from training.tables.experiment import Requirement
from training.tables.hu2019_constants import COLLAPSE_FACTOR, ScaledConstant, show_constants
from training.tables.hu2019_published import (
    DICE_FIGURES,
    LOSS_TITLES,
    LOSSES,
    SYSTEM_TITLES,
    SYSTEMS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    VOXEL_COLUMNS,
    Loss,
    System,
)
from training.tables.hu2019_scoring import Figures, Hu2019Case, pool_seeds
from training.tables.page import SEEDS_HEADING, Page, Reached, begin_page, show_notes, show_seeds

Reader = Callable[[Hu2019Case], Figures]


READING = (
    "Figures are `ours (published)`: the mean of the two test cohorts' means, each case's the mean of the seeds. A "
    "case without a figure is left out of it, for example the recall of large metastases if it has none. Differences "
    "are paired over the cases of both cohorts and have the 95 % bootstrap interval of their mean; the interval does "
    "not know how far two trainings of one model differ, for which each seed's mean stands beside it. The verdict is "
    "`reproduced` or `opposite` only if that interval excludes zero; otherwise it is `undecided`."
)


@dataclass(frozen=True, slots=True)
class Direction:
    """One published difference, or one of ours, whose `published` is None.

    Attributes:
        title: of the two rows.
        column: of the protocol `hu2019`.
        published: the paper's difference.
        before: reads the first row's figures off a case.
        after: reads the second's.
    """

    title: str
    column: str
    published: float | None
    before: Reader
    after: Reader

    @property
    def name(self) -> str:
        """As a note names it."""
        return f"{self.title}, {self.column}"


def measure_reached(requirement: Requirement | None, cases: Sequence[Hu2019Case]) -> Reached:
    """What the U-Net with the requirement's loss reached."""
    if requirement is None:
        return Reached()
    loss = cast("Loss", requirement.model.removeprefix("unet_"))
    return Reached(requirement, mean_of_cohorts(cases, _of_loss(loss), requirement.metric))


def name_directions() -> list[str]:
    """Every direction of the three tables as a note names it."""
    return [item.name for item in (*_directions_1(), *_directions_2(), *_directions_3())]


def render_hu2019(
    page: Page,
    by_seed: Sequence[Sequence[Hu2019Case]],
    constants: Mapping[Loss, ScaledConstant],
    *,
    large_volume_mm3: float,
) -> str:
    """All tables.

    Args:
        page: what is said beside them.
        by_seed: for each seed the cases of both test cohorts, in the same order.
        constants: of the volume-aware loss.
        large_volume_mm3: from which on metastases are large.
    """
    cases = pool_seeds(by_seed)
    lines = [*begin_page(page, READING), *show_constants(constants)]
    lines += [*_table_1(cases, constants), *_show_directions(_directions_1(), by_seed, page)]
    lines += [*_table_2(cases, large_volume_mm3), *_show_directions(_directions_2(), by_seed, page)]
    lines += [*_table_3(cases), *_show_directions(_directions_3(), by_seed, page)]
    return "\n".join(lines).rstrip() + "\n"


def _table_1(cases: Sequence[Hu2019Case], constants: Mapping[Loss, ScaledConstant]) -> list[str]:
    volumes = np.array([voxels for case in cases for voxels in case.tumour_voxels])
    lines = ["### Table 1: the U-Net's loss", ""]
    lines += ["| loss | DSC | precision | recall | small ones found | test tumours above 16 lambda |"]
    lines += ["|---|---|---|---|---|---|"]
    dice = DICE_FIGURES
    for loss in LOSSES:
        change = TABLE_1.get(loss)
        published = tuple(one * (1 + part / 100) for one, part in zip(dice, change, strict=True)) if change else dice
        cells = [
            f"{mean_of_cohorts(cases, _of_loss(loss), column):.3f} ({value:.3f})"
            for column, value in zip(VOXEL_COLUMNS, published, strict=True)
        ]
        found = f"{mean_of_cohorts(cases, _of_loss(loss), 'small_lesion_recall'):.3f}"
        above = "-"
        if loss in constants and volumes.size:
            above = f"{(volumes > COLLAPSE_FACTOR * constants[loss].ours).mean():.1%}"
        lines.append(f"| {LOSS_TITLES[loss]} | {' | '.join(cells)} | {found} | {above} |")
    return lines


def _directions_1() -> list[Direction]:
    return [
        Direction(
            f"{LOSS_TITLES['dice']} > {LOSS_TITLES[loss]}",
            column,
            DICE_FIGURES[index] * TABLE_1[loss][index] / 100,
            _of_loss("dice"),
            _of_loss(loss),
        )
        for loss in LOSSES[1:]
        for index, column in enumerate(VOXEL_COLUMNS)
    ]


def _table_2(cases: Sequence[Hu2019Case], large_volume_mm3: float) -> list[str]:
    lines = [f"### Table 2: small (under {large_volume_mm3:g} mm3) and large metastases", ""]
    lines += ["| loss | size | recall of voxels | metastases found |", "|---|---|---|---|"]
    for loss, published in TABLE_2.items():
        for size, (voxels, lesions) in published.items():
            own = [mean_of_cohorts(cases, _of_loss(loss), f"{size}_{name}") for name in ("recall", "lesion_recall")]
            cells = f"{own[0]:.3f} ({voxels:.3f}) | {own[1]:.3f} ({lesions:.3f})"
            lines.append(f"| {LOSS_TITLES[loss]} | {size} | {cells} |")
    return lines


def _directions_2() -> list[Direction]:
    return [
        Direction(
            f"{LOSS_TITLES['dice']} > {LOSS_TITLES['batch']}",
            f"{size}_{name}",
            TABLE_2["batch"][size][index] - TABLE_2["dice"][size][index],
            _of_loss("dice"),
            _of_loss("batch"),
        )
        for size in ("small", "large")
        for index, name in enumerate(("recall", "lesion_recall"))
    ]


def _table_3(cases: Sequence[Hu2019Case]) -> list[str]:
    lines = ["### Table 3: single networks and the ensemble; the last row is not in the paper", ""]
    lines += ["| system | DSC | precision | recall |", "|---|---|---|---|"]
    for system in SYSTEMS:
        published = TABLE_3.get(system)
        cells = [
            f"{mean_of_cohorts(cases, _of_system(system), column):.3f}"
            + (f" ({published[index]:.3f})" if published else "")
            for index, column in enumerate(VOXEL_COLUMNS)
        ]
        lines.append(f"| {SYSTEM_TITLES[system]} | {' | '.join(cells)} |")
    return lines


PAIRS_3: Final[tuple[tuple[System, System], ...]] = (
    ("unet", "both"),
    ("deepmedic", "both"),
    ("both", "both_aware"),
    ("both_aware_mr", "both_aware"),
)
"""Rows of Table 3 whose difference is tested."""


def _directions_3() -> list[Direction]:
    found = []
    for before, after in PAIRS_3:
        rows = (TABLE_3.get(before), TABLE_3.get(after))
        for index, column in enumerate(VOXEL_COLUMNS):
            published = rows[1][index] - rows[0][index] if rows[0] and rows[1] else None
            title = f"{SYSTEM_TITLES[before]} > {SYSTEM_TITLES[after]}"
            found.append(Direction(title, column, published, _of_system(before), _of_system(after)))
    return found


def mean_of_cohorts(cases: Sequence[Hu2019Case], read: Reader, column: str) -> float:
    """Mean over the two cohorts of each one's mean over the cases that have a figure."""
    means = []
    for cohort in sorted({case.cohort for case in cases}):
        values = np.array([read(case)[column] for case in cases if case.cohort == cohort], dtype=np.float64)
        values = values[~np.isnan(values)]
        if values.size:
            means.append(values.mean())
    return float(np.mean(means)) if means else float("nan")


def _of_loss(loss: Loss) -> Reader:
    return lambda case: case.losses[loss]


def _of_system(system: System) -> Reader:
    return lambda case: case.systems[system]


def _show_directions(directions: Sequence[Direction], by_seed: Sequence[Sequence[Hu2019Case]], page: Page) -> list[str]:
    header = ("difference", "figure", "published", "ours, 95 % interval", SEEDS_HEADING, "verdict")
    lines = ["", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    lines += [_show_direction(item, by_seed, enough=page.reached.enough) for item in directions]
    return [*lines, "", *show_notes(page.notes, [item.name for item in directions])]


def _show_direction(item: Direction, by_seed: Sequence[Sequence[Hu2019Case]], *, enough: bool) -> str:
    differences = np.array(
        [[item.after(case)[item.column] - item.before(case)[item.column] for case in cases] for cases in by_seed]
    )
    # A case's difference is the mean over the seeds in which both rows have a figure.
    paired = compare_paired([0.0] * differences.shape[1], _mean_over_seeds(differences).tolist())
    ours = f"{paired.mean_difference:+.3f} [{paired.interval.low:+.3f}, {paired.interval.high:+.3f}], n {paired.cases}"
    if not paired.cases:
        ours = "no case has both figures"
    stated = "-" if item.published is None else f"{item.published:+.3f}"
    verdict = judge(item.published, paired, enough=enough)
    seeds = show_seeds([_show_mean(one) for one in differences])
    return f"| {item.title} | {item.column} | {stated} | {ours} | {seeds} | {verdict} |"


def _show_mean(values: NDArray[np.float64]) -> str:
    mean = _mean_of_known(values)
    return "-" if np.isnan(mean) else f"{mean:+.3f}"


def _mean_over_seeds(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (seeds, cases) to (cases,); NaN where no seed has a difference."""
    return np.array([_mean_of_known(one) for one in differences.T])


def _mean_of_known(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
