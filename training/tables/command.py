"""`python -m training tables`."""

import logging
import os
import platform
import re
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from metseg.cli.choices import LabelsOption
from metseg.errors import UsageError
from metseg.files.atomic import write_atomically
from metseg.predict.device import DeviceChoice
from training.revision import git_revision
from training.tables.experiment import ExperimentName, load_experiment

if TYPE_CHECKING:
    from metseg.labels import LabelConvention
    from training.tables.stages import TablesRequest, TrainedModels

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
    labels: LabelsOption = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Nothing is trained: this bundle's three members on --data.")
    ] = None,
    plan: Annotated[str | None, typer.Option(help="Plan of --bundle; default its own.")] = None,
    hours: Annotated[float | None, typer.Option(help="Budget for everything; default each recipe's epochs.")] = None,
    results: Annotated[Path | None, typer.Option(help="Markdown file whose section of this size to replace.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Steps of each run, for trials.")] = None,
    device: Annotated[DeviceChoice, typer.Option(help="Where.")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Processes that make the cohort.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch; default all.")] = None,
) -> None:
    """Trains a paper's networks on one cohort and prints its tables beside the published figures."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    from training.tables.stages import TablesRequest  # noqa: PLC0415 - heavy

    request = TablesRequest(
        output=output,
        data=tuple(data or ()),
        hours=hours,
        max_steps=max_steps,
        device=device,
        jobs=jobs,
        threads=threads,
        convention=cast("LabelConvention | None", labels),
    )
    command = _made_with(shlex.join([*_command(paper, size, hours, max_steps), *_labels_words(request.convention)]))
    if bundle is not None:
        section, title, report = _bundle(request, bundle, plan)
    elif paper == "hu2019":
        section, title, report = _hu2019(request, size, command)
    else:
        section, title, report = _erdur2023(request, size, command)
    typer.echo(report)
    if results is not None:
        write_section(results, section, report, title=title)


def _erdur2023(request: "TablesRequest", size: ExperimentName, command: str) -> tuple[str, str, str]:
    """The paper's section, heading and report."""
    from training.tables.model_steps import run_model_steps  # noqa: PLC0415 - heavy
    from training.tables.rendering import render_report  # noqa: PLC0415

    experiment = load_experiment(size)
    result = run_model_steps(experiment, request)
    source = "cases given with --data" if request.data else f"synthetic cases, seed {experiment.cohort.seed}"
    split = result.split
    counts = f"{len(split.train)} training, {len(split.validation)} validation and {len(split.test)} test cases"
    facts = [command, f"{counts} ({source}).", _made_by(result.trained, result.device)]
    return size, f"The paper's models, {size}", render_report(experiment.description, result.cases, facts)


def _bundle(request: "TablesRequest", bundle: Path, plan: str | None) -> tuple[str, str, str]:
    """The section, heading and report of a bundle's members."""
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
    description = f"{name}: its members are baseline, + blob loss and + subtraction"
    return f"bundle {name}", f"The members of {name}", render_report(description, cases, facts)


def _hu2019(request: "TablesRequest", size: ExperimentName, command: str) -> tuple[str, str, str]:
    """The radiosurgery system's section, heading and report."""
    from training.tables.hu2019 import load_hu2019, run_hu2019  # noqa: PLC0415 - heavy
    from training.tables.hu2019_rendering import render_hu2019  # noqa: PLC0415

    if size != "tiny" or request.data:
        raise UsageError("--paper hu2019 makes its tables on tiny synthetic heads: no --size full, no --data")
    experiment = load_hu2019(size)
    result = run_hu2019(experiment, request)
    split, second = result.split, sum(case.cohort == 2 for case in result.cases)  # noqa: PLR2004 - the second
    counts = (
        f"{len(split.train)} training, {len(split.validation)} validation, {len(split.test)} and {second} test heads."
    )
    facts = [command, counts, _made_by(result.trained, result.device)]
    return "hu2019", "The radiosurgery system, tiny", render_hu2019(experiment, result.cases, facts)


def _made_with(command: str) -> str:
    """The command, the day and the revision, as the report states them."""
    return f"Command: `{command}`; {datetime.now(tz=UTC):%Y-%m-%d}; revision `{git_revision()}`."


def _made_by(trained: "TrainedModels", device: str) -> str:
    return f"Trained: {trained}; {platform.machine()}, {os.cpu_count()} cores; {device}."


def _labels_words(convention: "LabelConvention | None") -> list[str]:
    return ["--labels", convention] if convention else []


def _command(paper: PaperName, size: str, hours: float | None, max_steps: int | None) -> list[str]:
    words = ["python", "-m", "training", "tables", "--size", size]
    words += ["--paper", paper] if paper != "erdur2023" else []
    words += ["--hours", f"{hours:g}"] if hours else []
    words += ["--max-steps", str(max_steps)] if max_steps else []
    return words


def write_section(path: Path, name: str, report: str, *, title: str) -> None:
    """Puts a report between its markers in a Markdown file, in place of the last one; at the end where it has none."""
    begin, end = f"<!-- tables {name}: begin -->", f"<!-- tables {name}: end -->"
    section = f"{begin}\n{report}{end}\n"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    marked = re.compile(re.escape(begin) + r".*?" + re.escape(end) + r"\n", re.DOTALL)
    replaced, found = marked.subn(lambda _: section, text)
    write_atomically(path, (replaced if found else f"{text.rstrip()}\n\n## {title}\n\n{section}").encode())
