"""Tables for the terminal."""

import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from evaluation.files import RegionColumns, ScoreFile
from evaluation.results import ScoringProtocol
from evaluation.sizes import SizeBand
from evaluation.summary import Interval, PairedComparison, Summary, compare_paired, summarise
from metseg.errors import InputError

PLAIN_WIDTH = 140
"""Columns of a table that goes to a file or pipe."""


def open_console(*, stderr: bool = False) -> Console:
    """A console that doesn't squeeze tables when the output is not a terminal."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def build_summary_table(
    cases: Mapping[str, RegionColumns], protocol: ScoringProtocol, labels: str | None = None
) -> Table:
    """Mean, median and interval of each region's main scores; `labels` is what the user said label 4 means."""
    said = f", labels {labels}" if labels else ""
    table = _start_table(
        f"{protocol.name}: {len(cases)} case{'s' if len(cases) != 1 else ''}{said}",
        ("mean", "median", "95 % interval of the mean", "cases"),
    )
    for region in _list_regions(cases):
        for column, heading in protocol.headline.items():
            summary = summarise([scores[region][column] for scores in cases.values()])
            table.add_row(region, heading, *_show_summary(summary))
        table.add_section()
    return table


def build_comparison_table(a: ScoreFile, b: ScoreFile) -> Table:
    """Paired differences b - a over the cases that both files hold.

    Raises:
        InputError: the files are of different protocols, or have no case in common.
    """
    if a.protocol.name != b.protocol.name:
        raise InputError(f"{a.path} holds {a.protocol.name} scores, {b.path} {b.protocol.name}: no common columns")
    common = [case_id for case_id in a.cases if case_id in b.cases]
    if not common:
        raise InputError(f"{a.path} and {b.path} have no case in common")
    table = _start_table(
        f"{a.protocol.name}: B - A over {len(common)} common case{'s' if len(common) != 1 else ''}",
        ("mean A", "mean B", "B - A", "95 % interval", "higher / equal / lower", "Wilcoxon p", "cases"),
    )
    for region in _list_regions(a.cases):
        for column, heading in a.protocol.headline.items():
            values = [[file.cases[case_id][region][column] for case_id in common] for file in (a, b)]
            table.add_row(region, heading, *_show_comparison(compare_paired(*values)))
        table.add_section()
    return table


def build_size_table(bands: Sequence[SizeBand]) -> Table:
    """Sensitivity and false positives by lesion size."""
    table = Table(title="by lesion volume, all cases together", title_justify="left")
    headings = ("volume (mm3)", "lesions", "found", "share found", "95 % interval", "mean Dice")
    for heading in ("region", *headings, "false positives a case", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "region" else "right")
    for number, band in enumerate(bands):
        if number and band.region != bands[number - 1].region:
            table.add_section()
        table.add_row(
            band.region,
            band.name,
            str(band.lesions),
            str(band.found),
            _show(band.sensitivity),
            _show_interval(band.sensitivity_interval),
            _show(band.mean_dice),
            _show(band.false_positives_per_case),
            _show_interval(band.false_positives_interval),
        )
    return table


def _start_table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("region")
    table.add_column("score")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _list_regions(cases: Mapping[str, RegionColumns]) -> Sequence[str]:
    return list(next(iter(cases.values())))


def _show_summary(summary: Summary) -> tuple[str, ...]:
    return _show(summary.mean), _show(summary.median), _show_interval(summary.interval), str(summary.cases)


def _show_comparison(comparison: PairedComparison) -> tuple[str, ...]:
    equal = comparison.cases - comparison.higher - comparison.lower
    return (
        _show(comparison.mean_a),
        _show(comparison.mean_b),
        _show(comparison.mean_difference, sign="+"),
        _show_interval(comparison.interval, sign="+"),
        f"{comparison.higher} / {equal} / {comparison.lower}",
        "-" if math.isnan(comparison.p_value) else f"{comparison.p_value:.3g}",
        str(comparison.cases),
    )


def _show_interval(interval: Interval, sign: str = "") -> str:
    return "-" if math.isnan(interval.low) else f"{_show(interval.low, sign)} .. {_show(interval.high, sign)}"


def _show(value: float, sign: str = "") -> str:
    """Scores of 0..1 with three decimals, millimetres and counts with one digit less for each digit more."""
    if math.isnan(value):
        return "-"
    decimals = 3 if abs(value) < 10 else 1  # noqa: PLR2004
    return f"{value:{sign}.{decimals}f}"
