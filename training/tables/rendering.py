"""The tables of Erdur et al. as Markdown."""

from collections.abc import Mapping, Sequence

import numpy as np

from training.tables.comparing import Difference, compare_rows
from training.tables.experiment import Requirement, Variant
from training.tables.page import SEEDS_HEADING, Page, Reached, begin_page, show_notes, show_seeds
from training.tables.published import METRICS, PUBLISHED, TABLES, TITLES, Metric, Pair, Table
from training.tables.scoring import CaseScores, average_regions, entry_name, pool_seeds

_DIGITS: dict[Metric, int] = {"lDSC": 2, "cDSC": 2, "lHD95": 0, "cHD95": 0, "FP": 2, "FN": 2}


READING = (
    "Figures are `ours (published)`. lDSC and lHD95 are lesion-wise Dice and HD95 in mm; cDSC and cHD95 are those of "
    "the whole masks. FP and FN count per patient. Each figure is the mean of WT, TC and ET, and of the seeds. "
    "Differences are paired over cases and have the 95 % bootstrap interval of their mean; the interval does not know "
    "how far two trainings of one model differ, for which each seed's mean stands beside it. The verdict is "
    "`reproduced` or `opposite` only if that interval excludes zero. Otherwise it is `undecided`, with the number of "
    "cases that would decide it at this mean and spread. About one interval in twenty excludes zero by chance."
)


def measure_reached(requirement: Requirement | None, cases: Sequence[CaseScores]) -> Reached:
    """What the requirement's model reached, postprocessed."""
    if requirement is None:
        return Reached()
    name, index = entry_name(requirement.model, postprocessed=True), METRICS.index(requirement.metric)
    return Reached(requirement, float(np.mean([average_regions(case.scores[name])[index] for case in cases])))


def lay_tables(variants: Mapping[str, Variant]) -> tuple[Table, ...]:
    """The paper's tables and ours, with that of the experiment's variants."""
    if not variants:
        return TABLES
    own = Table(
        number=None,
        title="other inference settings of the same network (not in the paper), postprocessed",
        rows=tuple((name, True) for name in ("sub", "tta", *variants)),
        pairs=tuple(Pair((variant.like, True), (name, True)) for name, variant in variants.items()),
        titles={name: variant.title for name, variant in variants.items()},
    )
    return (*TABLES, own)


def name_directions(tables: Sequence[Table]) -> list[str]:
    """Every difference and metric as a note names it."""
    return [_direction(pair, metric, table) for table in tables for pair in table.pairs for metric in METRICS]


def render_report(page: Page, by_seed: Sequence[Sequence[CaseScores]], tables: Sequence[Table] = TABLES) -> str:
    """The tables whose methods were all scored.

    Args:
        page: what is said beside them.
        by_seed: for each seed the test cases' scores, in the same order.
        tables: all that there could be.
    """
    lines = begin_page(page, READING)
    scored = {method for case in by_seed[0] for method in case.scores}
    for table in tables:
        if {entry_name(method, postprocessed=flag) for method, flag in table.rows} <= scored:
            lines += _render_table(table, by_seed, page)
    return "\n".join(lines).rstrip() + "\n"


def _render_table(table: Table, by_seed: Sequence[Sequence[CaseScores]], page: Page) -> list[str]:
    cases = pool_seeds(by_seed)
    name = f"Table {table.number}" if table.number else "Beyond the paper"
    lines = [f"### {name}: {table.title}", ""]
    lines += ["| method | n | " + " | ".join(METRICS) + " |", "|---|---|" + "---|" * len(METRICS)]
    lines += [
        _render_row(method, cases, postprocessed=postprocessed, table=table) for method, postprocessed in table.rows
    ]
    enough = page.reached.enough
    differences = [item for pair in table.pairs for item in compare_rows(pair, by_seed, enough=enough)]
    header = ("difference", "metric", "published", "ours, 95 % interval", SEEDS_HEADING, "verdict", "an opposite one")
    lines += ["", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [_render_difference(item, table) for item in differences]
    return [*lines, "", *show_notes(page.notes, name_directions([table]))]


def _render_row(method: str, cases: Sequence[CaseScores], *, postprocessed: bool, table: Table) -> str:
    chosen = [case for case in cases if case.has_small_lesion] if method == "small" else cases
    name = entry_name(method, postprocessed=postprocessed)
    figures = [average_regions(case.scores[name]) for case in chosen]
    means = np.mean(figures, axis=0) if figures else np.full(len(METRICS), np.nan)
    published = PUBLISHED.get((method, postprocessed))
    cells = [
        _number(metric, mean) + (f" ({_number(metric, published.figures[index])})" if published else "")
        for index, (metric, mean) in enumerate(zip(METRICS, means, strict=True))
    ]
    return f"| {_title(method, postprocessed=postprocessed, table=table)} | {len(chosen)} | {' | '.join(cells)} |"


def _title(method: str, *, postprocessed: bool, table: Table) -> str:
    both = len({flag for _, flag in table.rows}) > 1
    title = table.titles.get(method) or TITLES[method]
    return title + (", postprocessed" if postprocessed and both else "")


def _pair_title(pair: Pair, table: Table) -> str:
    titles = [_title(method, postprocessed=flag, table=table) for method, flag in (pair.before, pair.after)]
    return f"{titles[0]} > {titles[1]}"


def _direction(pair: Pair, metric: Metric, table: Table) -> str:
    return f"{_pair_title(pair, table)}, {metric}"


def _render_difference(item: Difference, table: Table) -> str:
    paired, metric = item.paired, item.metric
    ours = (
        f"{_signed(metric, paired.mean_difference)} "
        f"[{_signed(metric, paired.interval.low)}, {_signed(metric, paired.interval.high)}], n {paired.cases}"
    )
    published = "-" if item.published is None else _signed(metric, item.published)
    verdict: str = item.verdict if item.published is None or item.published else "no direction published"
    if item.verdict == "undecided":
        needed = item.cases_to_decide
        verdict += f": {needed} cases would decide" if needed is not None else ": not within 10,000 cases"
    made_of = f" {item.looked_into} |" if item.looked_into else " |"
    seeds = show_seeds([_signed(metric, value) for value in item.of_seeds])
    return f"| {_pair_title(item.pair, table)} | {metric} | {published} | {ours} | {seeds} | {verdict} |{made_of}"


def _number(metric: Metric, value: float) -> str:
    return f"{value:.{_DIGITS[metric]}f}"


def _signed(metric: Metric, value: float) -> str:
    digits = _DIGITS[metric] + (1 if _DIGITS[metric] else 0)
    return f"{value:+.{digits}f}"
