"""`python -m training tables`."""

import logging
import os
import platform
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from metseg.atomic import write_atomically
from metseg.device import DeviceChoice
from training.revision import git_revision
from training.tables.experiment import MODELS, ExperimentName, load_experiment


def tables(
    *,
    output: Annotated[Path, typer.Option(help="Folder for cohort, runs and scores; interrupted work is continued.")],
    size: Annotated[ExperimentName, typer.Option(help="tiny: a toy cohort, two CPU cores; full: a GPU.")] = "tiny",
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
    """Trains the paper's ladder on one cohort and prints its Tables 3 to 6 beside the published figures."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    from training.tables.ladder import LadderRequest, LadderResult, run_ladder  # noqa: PLC0415 - heavy
    from training.tables.rendering import render_report  # noqa: PLC0415

    experiment = load_experiment(size)
    request = LadderRequest(
        output=output,
        data=tuple(data or ()),
        hours=hours,
        max_steps=max_steps,
        device=device,
        jobs=jobs,
        threads=threads,
    )
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


def _command(size: str, hours: float | None, max_steps: int | None) -> str:
    words = ["python", "-m", "training", "tables", "--size", size]
    words += ["--hours", f"{hours:g}"] if hours else []
    words += ["--max-steps", str(max_steps)] if max_steps else []
    return shlex.join(words)


def write_section(path: Path, size: str, report: str) -> None:
    """Puts a report between its markers in a Markdown file, in place of the last one; at the end where it has none."""
    begin, end = f"<!-- tables {size}: begin -->", f"<!-- tables {size}: end -->"
    section = f"{begin}\n{report}{end}\n"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    marked = re.compile(re.escape(begin) + r".*?" + re.escape(end) + r"\n", re.DOTALL)
    if marked.search(text):
        text = marked.sub(lambda _: section, text)
    else:
        text = f"{text.rstrip()}\n\n## The paper's ladder, {size}\n\n{section}"
    write_atomically(path, text.encode())
