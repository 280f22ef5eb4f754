"""`python -m training tables`."""

import logging
import os
import platform
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metseg.atomic import write_atomically
from metseg.device import DeviceChoice
from metseg.errors import UsageError
from training.revision import git_revision
from training.tables.experiment import MODELS, ExperimentName, load_experiment

if TYPE_CHECKING:
    from training.tables.ladder import LadderRequest

PaperName = Literal["erdur2023", "hu2019"]


def tables(
    *,
    output: Annotated[Path, typer.Option(help="Folder for cohort, runs and scores; interrupted work is continued.")],
    size: Annotated[ExperimentName, typer.Option(help="tiny: a toy cohort, two CPU cores; full: a GPU.")] = "tiny",
    paper: Annotated[
        PaperName, typer.Option(help="erdur2023: Tables 3 to 6; hu2019: Tables 1 to 3, tiny only.")
    ] = "erdur2023",
    data: Annotated[
        list[Path] | None, typer.Option(help="Folder of real cases with -seg, in place of a synthetic cohort.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Budget for everything; default each recipe's epochs.")] = None,
    results: Annotated[Path | None, typer.Option(help="Markdown file whose section of this size to replace.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Steps of each run, for trials.")] = None,
    device: Annotated[DeviceChoice, typer.Option(help="Where.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Processes that make the cohort.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch; default all.")] = None,
) -> None:
    """Trains a paper's networks on one cohort and prints its tables beside the published figures."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    from training.tables.ladder import LadderRequest, LadderResult, run_ladder  # noqa: PLC0415 - heavy
    from training.tables.rendering import render_report  # noqa: PLC0415

    request = LadderRequest(
        output=output,
        data=tuple(data or ()),
        hours=hours,
        max_steps=max_steps,
        device=device,
        jobs=jobs,
        threads=threads,
    )
    if paper == "hu2019":
        _hu2019(request, size, results)
        return
    experiment = load_experiment(size)
    result: LadderResult = run_ladder(experiment, request)
    source = "cases given with --data" if data else f"synthetic cases, seed {experiment.cohort.seed}"
    split = result.split
    trained = "; ".join(
        f"{model} {result.steps[model]} steps in {result.training_s[model] / 60:.0f} min" for model in MODELS
    )
    facts = [
        f"Command: `{_command(size, hours, max_steps)}`; revision `{git_revision()}`.",
        f"{len(split.train)} training, {len(split.validation)} validation and {len(split.test)} test cases ({source}).",
        f"Trained: {trained}; {platform.machine()}, {os.cpu_count()} cores; {result.device}.",
    ]
    report = render_report(experiment, result.cases, facts)
    typer.echo(report)
    if results is not None:
        write_section(results, size, report)


def _hu2019(request: "LadderRequest", size: str, results: Path | None) -> None:
    """The radiosurgery system's tables."""
    from training.tables.hu2019 import MODELS as NETWORKS  # noqa: PLC0415 - heavy
    from training.tables.hu2019 import load_hu2019, run_hu2019  # noqa: PLC0415
    from training.tables.hu2019_rendering import render_hu2019  # noqa: PLC0415

    if size != "tiny" or request.data:
        raise UsageError("--paper hu2019 makes its tables on tiny synthetic heads: no --size full, no --data")
    experiment = load_hu2019(size)
    result = run_hu2019(experiment, request)
    trained = "; ".join(
        f"{model} {result.steps[model]} steps in {result.training_s[model] / 60:.0f} min" for model in NETWORKS
    )
    split, second = result.split, sum(case.cohort == 2 for case in result.cases)  # noqa: PLR2004 - the second
    facts = [
        f"Command: `{_command(size, request.hours, request.max_steps)} --paper hu2019`; revision `{git_revision()}`.",
        f"{len(split.train)} training, {len(split.validation)} validation, {len(split.test)} and {second} test heads.",
        f"Trained: {trained}; {platform.machine()}, {os.cpu_count()} cores; {result.device}.",
    ]
    report = render_hu2019(experiment, result.cases, facts)
    typer.echo(report)
    if results is not None:
        write_section(results, "hu2019", report, title="The radiosurgery system, tiny")


def _command(size: str, hours: float | None, max_steps: int | None) -> str:
    words = ["python", "-m", "training", "tables", "--size", size]
    words += ["--hours", f"{hours:g}"] if hours else []
    words += ["--max-steps", str(max_steps)] if max_steps else []
    return shlex.join(words)


def write_section(path: Path, size: str, report: str, title: str = "") -> None:
    """Puts a report between its markers in a Markdown file, in place of the last one; at the end where it has none."""
    begin, end = f"<!-- tables {size}: begin -->", f"<!-- tables {size}: end -->"
    section = f"{begin}\n{report}{end}\n"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    marked = re.compile(re.escape(begin) + r".*?" + re.escape(end) + r"\n", re.DOTALL)
    if marked.search(text):
        text = marked.sub(lambda _: section, text)
    else:
        heading = title or f"The paper's ladder, {size}"
        text = f"{text.rstrip()}\n\n## {heading}\n\n{section}"
    write_atomically(path, text.encode())
