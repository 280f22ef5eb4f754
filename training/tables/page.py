"""What both papers' pages share: the first lines, the training of each model, the notes under a table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from metseg.errors import UsageError
from training.tables.experiment import Requirement
from training.tables.trained import CURVE_POINTS, TrainedRun

SEEDS_HEADING = "each seed"
"""Of the column with every seed's mean difference: the interval is over cases and knows no luck of training."""


@dataclass(frozen=True, slots=True)
class Reached:
    """Whether training was enough for verdicts.

    Attributes:
        requirement: what was asked for; None for nothing.
        figure: what the model reached on the test cases.
    """

    requirement: Requirement | None = None
    figure: float = float("nan")

    @property
    def enough(self) -> bool:
        """Whether verdicts count."""
        return self.requirement is None or self.figure >= self.requirement.at_least

    def sentence(self) -> str:
        """For the page's first lines; empty where nothing was asked for."""
        if self.requirement is None:
            return ""
        asked = self.requirement
        found = f"`{asked.model}` reaches {asked.metric} {self.figure:.3f} on the test cases, asked for is"
        if self.enough:
            return f"Verdicts count: {found} {asked.at_least:g}."
        return f"**Not enough training, no verdict counts**: {found} {asked.at_least:g}."


@dataclass(frozen=True, slots=True)
class Page:
    """What a page says beside its tables.

    Attributes:
        description: what was run.
        facts: sentences about the run: command, cohort, machine.
        runs: what training took; empty where nothing was trained.
        reached: whether verdicts count.
        notes: `difference, metric` -> a paragraph.
    """

    description: str
    facts: Sequence[str]
    runs: Sequence[TrainedRun] = ()
    reached: Reached = Reached()
    notes: Mapping[str, str] = field(default_factory=dict)


def begin_page(page: Page, reading: str) -> list[str]:
    """The lines before the first table.

    Args:
        page: what it says.
        reading: how its figures are read.
    """
    lines = [f"{page.description.strip().capitalize()}.", ""]
    lines += [page.reached.sentence(), ""] if page.reached.requirement else []
    lines += [*(f"- {fact}" for fact in page.facts), ""]
    return [*lines, *_show_training(page.runs), reading, ""]


def _show_training(runs: Sequence[TrainedRun]) -> list[str]:
    """Steps and hours of each seed, and the validation score on the way, mean over the seeds."""
    if not runs:
        return []
    lines = ["### Training", ""]
    lines += ["Validation scores at shares of the steps are means over the seeds.", ""] if runs[0].curve else []
    shares = [f"{100 * number // CURVE_POINTS} %" for number in range(1, CURVE_POINTS + 1)]
    header = ("model", "steps", "hours", *shares)
    lines += [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    order = list(dict.fromkeys(run.model for run in runs))
    ordered = sorted(runs, key=lambda run: (order.index(run.model), run.seed))
    for model, group in groupby(ordered, key=lambda run: run.model):
        own = list(group)
        steps = ", ".join(str(run.step) for run in own)
        hours = ", ".join(f"{run.elapsed_s / 3600:.2f}" for run in own)
        curves = [run.curve for run in own if run.curve]
        scores = [f"{value:.3f}" for value in np.mean(curves, axis=0)] if curves else ["-"] * CURVE_POINTS
        lines.append(f"| {model} | {steps} | {hours} | {' | '.join(scores)} |")
    return [*lines, ""]


def show_seeds(differences: Sequence[str]) -> str:
    """A cell of the column `SEEDS_HEADING`."""
    return ", ".join(differences)


def show_notes(notes: Mapping[str, str], directions: Iterable[str]) -> list[str]:
    """The paragraphs about a table's directions, each named as in the table."""
    return [f"**{name}**: {notes[name].strip()}\n" for name in directions if name in notes]


def require_known_notes(notes: Mapping[str, str], directions: Iterable[str]) -> None:
    """Refuses notes about what no table has, before hours are spent.

    Raises:
        UsageError: names the first of them.
    """
    known = set(directions)
    unknown = [name for name in notes if name not in known]
    if unknown:
        raise UsageError(
            f"experiment: notes has {unknown[0]!r}, which no table has",
            hint="Write `difference, metric` as the page does, such as 'baseline > + blob loss, lDSC'.",
        )
