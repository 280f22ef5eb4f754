"""`python -m training tables`."""

import logging
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

import typer

from metseg.cli.choices import LabelsOption
from metseg.errors import UsageError
from metseg.files.atomic import write_atomically
from metseg.predict.device import DeviceChoice
from training.revision import git_revision
from training.tables.experiment import ExperimentName, load_experiment
from training.tables.page import Page, require_known_notes
from training.tables.request import TablesRequest

if TYPE_CHECKING:
    from metseg.labels import LabelConvention

PaperName = Literal["erdur2023", "hu2019"]


def tables(
    *,
    output: Annotated[Path, typer.Option(help="Folder for cohort, runs and scores; interrupted work is continued.")],
    size: Annotated[
        ExperimentName, typer.Option(help="small: two CPU cores, days; tiny: a trial, minutes; full: a GPU.")
    ] = "small",
    paper: Annotated[
        PaperName, typer.Option(help="erdur2023: Tables 3 to 6; hu2019: Tables 1 to 3, small or tiny.")
    ] = "erdur2023",
    only: Annotated[
        str | None, typer.Option(help="Trains MODEL[,MODEL] (or one seed: MODEL_SEED) and stops before the tables.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder of real cases with -seg, in place of a synthetic cohort.")
    ] = None,
    labels: LabelsOption = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Nothing is trained: this bundle's three members on --data.")
    ] = None,
    plan: Annotated[str | None, typer.Option(help="Plan of --bundle; default its own.")] = None,
    hours: Annotated[
        float | None, typer.Option(help="Budget for everything; default the experiment's steps, or recipes' epochs.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Markdown file whose section of this paper to replace.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Steps of each run, for trials.")] = None,
    device: Annotated[DeviceChoice, typer.Option(help="Where.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Processes that make the cohort.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch; default all.")] = None,
) -> None:
    """Trains a paper's networks on one cohort and prints its tables beside the published figures."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    request = TablesRequest(
        output=output,
        data=tuple(data or ()),
        hours=hours,
        max_steps=max_steps,
        only=tuple(only.split(",")) if only else (),
        device=device,
        jobs=jobs,
        threads=threads,
        convention=cast("LabelConvention | None", labels),
    )
    command = _made_with(shlex.join([*_command(paper, size, hours, max_steps), *_labels_words(request.convention)]))
    make = partial(_bundle, bundle, plan) if bundle else partial(_PAPERS[paper], size, command)
    section = make(request)
    if section is None:
        return  # the tables are another call's
    typer.echo(section.report)
    if results is not None:
        write_section(results, section)


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A part of a Markdown file.

    Attributes:
        name: by which it is found and replaced.
        title: its heading.
        report: what stands under that.
    """

    name: str
    title: str
    report: str


def _erdur2023(size: ExperimentName, command: str, request: TablesRequest) -> ReportSection | None:
    """Tables 3 to 6; None where models alone were asked for."""
    from training.tables.model_steps import score_model_steps, train_model_steps  # noqa: PLC0415 - heavy
    from training.tables.rendering import lay_tables, measure_reached, name_directions, render_report  # noqa: PLC0415

    experiment = load_experiment(size)
    laid = lay_tables(experiment.variants)
    require_known_notes(experiment.notes, name_directions(laid))
    trained = train_model_steps(experiment, request)
    if request.only:
        return None
    scored = score_model_steps(experiment, trained, request)
    source = "cases given with --data" if request.data else f"synthetic cases, seed {experiment.cohort.seed}"
    split = trained.split
    counts = f"{len(split.train)} training, {len(split.validation)} validation and {len(split.test)} test cases"
    page = Page(
        experiment.description,
        [command, f"{counts} ({source}).", _trained_on(experiment.seeds, scored.device)],
        trained.runs,
        measure_reached(experiment.reaches, scored.cases),
        experiment.notes,
    )
    return ReportSection("erdur2023", f"The paper's models, {size}", render_report(page, scored.by_seed, laid))


def _hu2019(size: ExperimentName, command: str, request: TablesRequest) -> ReportSection | None:
    """The radiosurgery system's Tables 1 to 3; None where models alone were asked for."""
    from training.tables.hu2019 import score_trained_hu2019, train_hu2019  # noqa: PLC0415 - heavy
    from training.tables.hu2019_experiment import load_hu2019  # noqa: PLC0415
    from training.tables.hu2019_rendering import measure_reached, name_directions, render_hu2019  # noqa: PLC0415

    if size == "full" or request.data:
        raise UsageError("--paper hu2019 makes its tables on small or tiny synthetic heads: no --size full, no --data")
    experiment = load_hu2019(size)
    require_known_notes(experiment.notes, name_directions())
    trained = train_hu2019(experiment, request)
    if request.only:
        return None
    scored = score_trained_hu2019(experiment, trained, request)
    split, second = trained.split, sum(case.cohort == 2 for case in scored.cases)  # noqa: PLR2004 - the second
    counts = (
        f"{len(split.train)} training, {len(split.validation)} validation, {len(split.test)} and {second} test heads."
    )
    page = Page(
        experiment.description,
        [command, counts, _trained_on(experiment.seeds, scored.device)],
        trained.runs,
        measure_reached(experiment.reaches, scored.cases),
        experiment.notes,
    )
    report = render_hu2019(page, scored.by_seed, trained.constants, large_volume_mm3=experiment.large_volume_mm3)
    return ReportSection("hu2019", f"The radiosurgery system, {size}", report)


_PAPERS: Final[dict[PaperName, Callable[[ExperimentName, str, TablesRequest], ReportSection | None]]] = {
    "erdur2023": _erdur2023,
    "hu2019": _hu2019,
}


def _bundle(bundle: Path, plan: str | None, request: TablesRequest) -> ReportSection:
    """The steps of a bundle's members."""
    from training.tables.composition import score_bundle  # noqa: PLC0415 - heavy
    from training.tables.rendering import render_report  # noqa: PLC0415

    cases = score_bundle(bundle, plan, request)
    words = ["python", "-m", "training", "tables", "--bundle", str(bundle), *(("--plan", plan) if plan else ())]
    name = f"{bundle.name} {plan}" if plan else bundle.name
    words += _labels_words(request.convention)
    facts = [
        _made_with(f"{shlex.join(words)} --data CASES"),
        f"{len(cases)} cases given with --data.",
    ]
    page = Page(f"{name}: its members are baseline, + blob loss and + subtraction", facts)
    return ReportSection(f"bundle {name}", f"The members of {name}", render_report(page, [cases]))


def _made_with(command: str) -> str:
    """The command, the day and the revision, as the report states them."""
    return f"Command: `{command}`; {datetime.now(tz=UTC):%Y-%m-%d}; revision `{git_revision()}`."


def _trained_on(seeds: Sequence[int], device: str) -> str:
    words = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"Trained with {words}; {platform.machine()}, {os.cpu_count()} cores; {device}."


def _labels_words(convention: "LabelConvention | None") -> list[str]:
    return ["--labels", convention] if convention else []


def _command(paper: PaperName, size: str, hours: float | None, max_steps: int | None) -> list[str]:
    words = ["python", "-m", "training", "tables", "--size", size]
    words += ["--paper", paper] if paper != "erdur2023" else []
    words += ["--hours", f"{hours:g}"] if hours else []
    words += ["--max-steps", str(max_steps)] if max_steps else []
    return words


def write_section(path: Path, section: ReportSection) -> None:
    """Puts a section between its markers in a Markdown file, in place of the last one; at the end where it has none."""
    begin, end = f"<!-- tables {section.name}: begin -->", f"<!-- tables {section.name}: end -->"
    content = f"{begin}\n## {section.title}\n\n{section.report}{end}\n"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    marked = re.compile(re.escape(begin) + r".*?" + re.escape(end) + r"\n", re.DOTALL)
    replaced, found = marked.subn(lambda _: content, text)
    write_atomically(path, (replaced if found else f"{text.rstrip()}\n\n{content}").encode())
