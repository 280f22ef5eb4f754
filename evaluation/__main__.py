"""`python -m evaluation`: scores and comparisons on the command line."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.progress import Progress

from evaluation.batch import ScoredCase, score_cohort
from evaluation.brats2023 import CHALLENGES, Brats2023, ChallengeName
from evaluation.brats2026 import LARGE_VOLUME_MM3, OVERLAP_THRESHOLD, Brats2026
from evaluation.cohort import Cohort, find_cohort
from evaluation.files import check_writable, list_columns, read_json, write_csv, write_json, write_lesions
from evaluation.protocols import ProtocolName, find_protocol
from evaluation.results import ScoringProtocol
from evaluation.sizes import check_picture, plot_sizes, sort_by_size
from evaluation.terminal import build_comparison_table, build_size_table, build_summary_table, open_console
from metseg.cli.choices import LabelsOption
from metseg.errors import ExitCode, MetsegError, UsageError
from metseg.findings import printable
from metseg.labels import LabelConvention

PROGRAM = "python -m evaluation"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _describe() -> None:
    """The challenge's scores, computed as the official programs compute them."""


@app.command()
def score(  # noqa: PLR0917 - typer makes a named option of each
    protocol: Annotated[ProtocolName | None, typer.Option(help="How to score. Required.")] = None,
    reference_path: Annotated[
        Path | None, typer.Option(help="Folder of <ID>-seg.nii.gz or <ID>/<ID>-seg.nii.gz, or one file. Required.")
    ] = None,
    prediction_path: Annotated[Path | None, typer.Option(help="Folder of <ID>.nii.gz, or one file. Required.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write all scores as JSON: ID to scores.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a table with a row per case and region.")] = None,
    lesions: Annotated[
        Path | None, typer.Option(help="Write a table with a row per lesion and false positive.")
    ] = None,
    labels: LabelsOption = None,
    challenge: Annotated[ChallengeName, typer.Option(help="Parameters of brats2023.")] = "METS",
    large_volume_mm3: Annotated[
        float | None, typer.Option(help=f"brats2026: smallest large instance. Default: {LARGE_VOLUME_MM3:g}.")
    ] = None,
    overlap_threshold: Annotated[
        float | None, typer.Option(help=f"brats2026: Dice of a found instance. Default: {OVERLAP_THRESHOLD:g}.")
    ] = None,
    true_millimetres: Annotated[  # noqa: FBT002
        bool, typer.Option("--true-millimetres", help="brats2026: spacing applied to the right axes.")
    ] = False,
    by_size: Annotated[  # noqa: FBT002
        bool, typer.Option("--by-size", help="Print what was found and invented by lesion volume, too.")
    ] = False,
    size_plot: Annotated[Path | None, typer.Option(help="Draw the same into a file, such as sizes.png.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cases scored at the same time.")] = 1,
    strict: Annotated[  # noqa: FBT002
        bool, typer.Option("--strict", help="Exit with 10 when a prediction is missing or unknown.")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Compare two JSON files of scores instead of scoring.")
    ] = None,
) -> None:
    """Scores predictions against references."""
    if compare is not None:
        compare_files(*compare)
        return
    if protocol is None or reference_path is None or prediction_path is None:
        raise UsageError(
            "score needs --protocol, --reference-path and --prediction-path (or --compare A B)",
            hint=f"{PROGRAM} score --help",
        )
    chosen = _configure(protocol, challenge, large_volume_mm3, overlap_threshold, true_millimetres=true_millimetres)
    cohort = find_cohort(reference_path, prediction_path)
    files = _Files(output, csv, lesions, size_plot)
    files.check()
    scored = _score_with_progress(cohort, chosen, jobs, cast("LabelConvention | None", labels))
    files.write(scored)
    columns = {case.case_id: list_columns(case) for case in scored}
    open_console().print(build_summary_table(columns, chosen, labels))
    if by_size or size_plot is not None:
        bands = sort_by_size(scored)
        open_console().print(build_size_table(bands))
        if size_plot is not None:
            plot_sizes(bands, size_plot)
    _list_unpaired(cohort)
    if strict and (cohort.missing or cohort.unknown):
        raise typer.Exit(ExitCode.SOME_FAILED)


@app.command("compare")
def compare_files(
    a: Annotated[Path, typer.Argument(help="JSON file of scores.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="JSON file of the same protocol.", metavar="B")],
) -> None:
    """Prints paired differences B - A with intervals and Wilcoxon signed-rank p-values."""
    first, second = read_json(a), read_json(b)
    console, complaints = open_console(), open_console(stderr=True)
    table = build_comparison_table(first, second)
    console.print(f"A = {a}\nB = {b}", markup=False, soft_wrap=True)
    console.print(table)
    for name, one, other in (("A", first, second), ("B", second, first)):
        alone = [case_id for case_id in one.cases if case_id not in other.cases]
        if alone:
            complaints.print(f"only in {name}, left out: {printable(', '.join(alone))}", markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Files:
    """What to write; None where it was not asked for.

    Attributes:
        output: all scores as JSON.
        csv: a table of regions.
        lesions: a table of lesions.
        size_plot: a picture, drawn where its table is printed.
    """

    output: Path | None
    csv: Path | None
    lesions: Path | None
    size_plot: Path | None

    def check(self) -> None:
        """Fails before the work where a file could not be written after it."""
        if self.size_plot is not None:
            check_picture(self.size_plot)
        for path in (self.output, self.csv, self.lesions, self.size_plot):
            if path is not None:
                check_writable(path)

    def write(self, scored: Sequence[ScoredCase]) -> None:
        """Writes the scores and the tables."""
        for path, write in ((self.output, write_json), (self.csv, write_csv), (self.lesions, write_lesions)):
            if path is not None:
                write(scored, path)


def _configure(
    protocol: ProtocolName,
    challenge: ChallengeName,
    large_volume_mm3: float | None,
    overlap_threshold: float | None,
    *,
    true_millimetres: bool,
) -> ScoringProtocol:
    if protocol != "brats2026" and (large_volume_mm3 is not None or overlap_threshold is not None or true_millimetres):
        raise UsageError("--large-volume-mm3, --overlap-threshold and --true-millimetres belong to brats2026")
    if protocol == "brats2023":
        return Brats2023(CHALLENGES[challenge])
    if protocol != "brats2026":
        return find_protocol(protocol)
    if challenge != "METS":
        raise UsageError(f"brats2026 has METS parameters only: found --challenge {challenge}")
    return Brats2026(
        large_volume_mm3=LARGE_VOLUME_MM3 if large_volume_mm3 is None else large_volume_mm3,
        overlap_threshold=OVERLAP_THRESHOLD if overlap_threshold is None else overlap_threshold,
        true_millimetres=true_millimetres,
    )


def _score_with_progress(
    cohort: Cohort, protocol: ScoringProtocol, jobs: int, convention: LabelConvention | None
) -> tuple[ScoredCase, ...]:
    console = open_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scoring", total=len(cohort.cases))
        return score_cohort(cohort, protocol, jobs, on_progress=lambda: progress.advance(task), convention=convention)


def _list_unpaired(cohort: Cohort) -> None:
    complaints = open_console(stderr=True)
    if cohort.missing:
        ids = printable(", ".join(cohort.missing))
        complaints.print(
            f"{len(cohort.missing)} prediction(s) missing, scored as such: {ids}",
            markup=False,
            soft_wrap=True,
        )
    if cohort.unknown:
        names = printable(", ".join(path.name for path in cohort.unknown))
        complaints.print(
            f"{len(cohort.unknown)} prediction(s) without reference, left out: {names}", markup=False, soft_wrap=True
        )


def main() -> int:
    """Runs the command line; the only place that catches broadly."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        result = app(prog_name=PROGRAM, standalone_mode=False)
    except MetsegError as error:
        sys.stderr.write(f"error: {printable(str(error))}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # `... | head` closed the pipe: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OUTPUT)
    except Exception as error:  # noqa: BLE001
        if hasattr(error, "show"):  # click's exceptions, wherever typer keeps them: the arguments are wrong
            error.show()
            return int(ExitCode.USAGE)
        traceback.print_exc()  # a bug: the traceback is the message
        return int(ExitCode.BUG)
    return int(result or ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
