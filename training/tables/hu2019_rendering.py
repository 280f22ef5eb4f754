"""The radiosurgery system's tables as Markdown, beside the published figures."""

from collections.abc import Callable, Sequence

import numpy as np

from evaluation.summary import PairedComparison, compare_paired
from training.tables.comparing import judge
from training.tables.hu2019 import Figures, Hu2019Case, Hu2019Experiment
from training.tables.hu2019_published import (
    DICE_FIGURES,
    LOSS_TITLES,
    LOSSES,
    SYSTEM_TITLES,
    SYSTEMS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    Loss,
)

VOXEL_COLUMNS = ("dsc", "precision", "recall")
COLLAPSE_FACTOR = 16
"""Tumours of more voxels than this times lambda are best predicted by less than a half (docs/radiosurgery.md)."""

Reader = Callable[[Hu2019Case], Figures]


def render_hu2019(experiment: Hu2019Experiment, cases: Sequence[Hu2019Case], facts: Sequence[str]) -> str:
    """All tables.

    Args:
        experiment: what was run.
        cases: of both test cohorts.
        facts: sentences about the run.
    """
    lines = [f"{experiment.description.strip().capitalize()}.", "", *(f"- {fact}" for fact in facts), ""]
    lines += [
        (
            "Figures are `ours (published)`: the mean of the two test cohorts' means. A case without a figure is left "
            "out of it, for example the recall of large metastases if it has none. Differences are paired over the "
            "cases of both cohorts and have the 95 % bootstrap interval of their mean. The verdict is `reproduced` or "
            "`opposite` only if that interval excludes zero; otherwise it is `undecided`."
        ),
        "",
    ]
    return "\n".join([*lines, *_table_1(cases), *_table_2(cases), *_table_3(cases)]).rstrip() + "\n"


def _table_1(cases: Sequence[Hu2019Case]) -> list[str]:
    volumes = np.array([voxels for case in cases for voxels in case.tumour_voxels])
    lines = ["### Table 1: the U-Net's loss", ""]
    lines += ["| loss | DSC | precision | recall | small ones found | tumours above 16 lambda |"]
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
        above = f"{(volumes > COLLAPSE_FACTOR * float(loss)).mean():.0%}" if loss.isdecimal() and volumes.size else "-"
        lines.append(f"| {LOSS_TITLES[loss]} | {' | '.join(cells)} | {found} | {above} |")
    lines += ["", *_header()]
    for loss in LOSSES[1:]:
        for index, column in enumerate(VOXEL_COLUMNS):
            published_difference = dice[index] * TABLE_1[loss][index] / 100
            title = f"{LOSS_TITLES['dice']} > {LOSS_TITLES[loss]}"
            lines.append(_difference(title, column, published_difference, cases, (_of_loss("dice"), _of_loss(loss))))
    return [*lines, ""]


def _table_2(cases: Sequence[Hu2019Case]) -> list[str]:
    lines = ["### Table 2: small (under 1500 mm3) and large metastases", ""]
    lines += ["| loss | size | recall of voxels | metastases found |", "|---|---|---|---|"]
    for loss, published in TABLE_2.items():
        for size, (voxels, lesions) in published.items():
            own = [mean_of_cohorts(cases, _of_loss(loss), f"{size}_{name}") for name in ("recall", "lesion_recall")]
            cells = f"{own[0]:.3f} ({voxels:.3f}) | {own[1]:.3f} ({lesions:.3f})"
            lines.append(f"| {LOSS_TITLES[loss]} | {size} | {cells} |")
    lines += ["", *_header()]
    for size in ("small", "large"):
        for index, name in enumerate(("recall", "lesion_recall")):
            difference = TABLE_2["batch"][size][index] - TABLE_2["dice"][size][index]
            title = f"{LOSS_TITLES['dice']} > {LOSS_TITLES['batch']}"
            column = f"{size}_{name}"
            lines.append(_difference(title, column, difference, cases, (_of_loss("dice"), _of_loss("batch"))))
    return [*lines, ""]


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
    lines += ["", *_header()]
    pairs = (("unet", "both"), ("deepmedic", "both"), ("both", "both_aware"), ("both_aware_mr", "both_aware"))
    for before, after in pairs:
        for index, column in enumerate(VOXEL_COLUMNS):
            rows = [TABLE_3.get(before), TABLE_3.get(after)]  # type: ignore[call-overload]
            known = rows[1][index] - rows[0][index] if rows[0] and rows[1] else None
            title = f"{SYSTEM_TITLES[before]} > {SYSTEM_TITLES[after]}"  # type: ignore[index]
            lines.append(_difference(title, column, known, cases, (_of_system(before), _of_system(after))))
    return [*lines, ""]


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


def _of_system(system: str) -> Reader:
    return lambda case: case.systems[system]  # type: ignore[index]  # one of SYSTEMS


def _header() -> list[str]:
    return ["| difference | figure | published | ours, 95 % interval | verdict |", "|---|---|---|---|---|"]


def _difference(
    title: str, column: str, published: float | None, cases: Sequence[Hu2019Case], rows: tuple[Reader, Reader]
) -> str:
    before, after = rows
    paired: PairedComparison = compare_paired(
        [before(case)[column] for case in cases], [after(case)[column] for case in cases]
    )
    ours = f"{paired.mean_difference:+.3f} [{paired.interval.low:+.3f}, {paired.interval.high:+.3f}], n {paired.cases}"
    if not paired.cases:
        ours = "no case has both figures"
    stated = "-" if published is None else f"{published:+.3f}"
    return f"| {title} | {column} | {stated} | {ours} | {judge(published, paired)} |"
