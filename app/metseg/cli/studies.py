"""What `import-dicom` and `study` share: the options that name studies, and what becomes of one that fails."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast, get_args

import typer

from metseg.errors import MetsegError, UsageError

if TYPE_CHECKING:
    from metseg.dicom.import_case import ImportedCase, ImportOptions
    from metseg.dicom.recognition import Recognition
    from metseg.plan.plan import Plan
    from metseg.systems import Modality

logger = logging.getLogger(__name__)

T = TypeVar("T")

DicomPathOption = Annotated[
    list[Path] | None,
    typer.Option("--dicom-path", "--dicom_path", help="Folder of one patient's study, with all its series."),
]
MoreStudiesArgument = Annotated[
    list[Path] | None, typer.Argument(metavar="STUDY", help="Further studies: --dicom-path STUDIES/*.")
]
SeriesOption = Annotated[
    list[str] | None,
    typer.Option("--series", metavar="MODALITY=UID", help="The series of t1n, t1c, t2w, t2f or ct, of one study."),
]
CaseIdOption = Annotated[
    list[str] | None,
    typer.Option("--case-id", "--case_id", help="Name of each study's case, in order. \\[default: a salted hash]"),
]
BrainMaskOption = Annotated[
    Path | None,
    typer.Option(
        "--brain-mask", "--brain_mask", help="Brain mask of one study's t1c, NIfTI. \\[default: found by networks]"
    ),
]
SaltFileOption = Annotated[
    Path | None,
    typer.Option("--salt-file", "--salt_file", help="Secret of the hashes. \\[default: one beside the cases]"),
]
OnStudyErrorOption = Annotated[
    Literal["stop", "skip"], typer.Option("--on-error", "--on_error", help="What a study that fails costs.")
]


def check_studies(
    studies: Sequence[Path], series: Sequence[str], case_ids: Sequence[str], brain_mask: Path | None
) -> None:
    """Refuses options of one study that are given for many, and names that do not fit the studies.

    Raises:
        UsageError: see above.
    """
    if case_ids and len(case_ids) != len(studies):
        raise UsageError(f"{len(case_ids)} --case-id for {len(studies)} studies", hint="Give one for each, in order.")
    if len({name.casefold() for name in case_ids}) != len(case_ids):
        raise UsageError("--case-id: two studies have the same name", hint="Give each a name of its own.")
    if series and len(studies) != 1:
        raise UsageError("--series is of one study", hint="Import that study by itself.")
    if brain_mask is not None and len(studies) > 1:
        raise UsageError("--brain-mask is of one study", hint="Import that study by itself.")


def parse_series(texts: Sequence[str]) -> "Mapping[Modality, str]":
    """Reads `MODALITY=UID`.

    Raises:
        UsageError: not of that form, or a modality is named twice.
    """
    from metseg.systems import Modality  # noqa: PLC0415 - imports numpy

    known: tuple[str, ...] = get_args(Modality)
    found: dict[Modality, str] = {}
    for text in texts:
        name, _, uid = text.partition("=")
        if name not in known or not uid:
            raise UsageError(f"--series {text}: expected MODALITY=UID", hint=f"Modalities are {', '.join(known)}.")
        if name in found:
            raise UsageError(f"--series {text}: {name} is named twice", hint="Name one series for each modality.")
        found[cast("Modality", name)] = uid.strip()
    return found


def make_import_options(
    cases: Path,
    *,
    series: Sequence[str],
    brain_mask: Path | None,
    salt_file: Path | None,
    resume: bool,
) -> "ImportOptions":
    """What the options say of an import.

    Args:
        cases: the folder of cases; it exists.
        series: as given.
        brain_mask: likewise.
        salt_file: likewise.
        resume: likewise.

    Raises:
        UsageError: see `parse_series`.
        InputError: see `metseg.dicom.pseudonyms.open_salt`.
        OutputError: likewise.
    """
    from metseg.dicom.import_case import ImportOptions  # noqa: PLC0415 - heavy
    from metseg.dicom.pseudonyms import open_salt  # noqa: PLC0415
    from metseg.dicom.stripping import brain_by_networks, brain_from_file  # noqa: PLC0415

    return ImportOptions(
        output_path=cases,
        pseudonyms=open_salt(cases, salt_file),
        find_brain=brain_by_networks if brain_mask is None else brain_from_file(brain_mask),
        named=parse_series(series),
        resume=resume,
    )


def name_cases(options: "ImportOptions", studies: Sequence[Path], case_ids: Sequence[str]) -> "list[ImportOptions]":
    """The options of each study."""
    if not case_ids:
        return [options] * len(studies)
    return [replace(options, case_id=name) for name in case_ids]


def fit_to_plan(options: "ImportOptions", plan: "Plan") -> "ImportOptions":
    """The options for cases that a plan will run: of its system, with the images that it needs."""
    from metseg.dicom.import_case import ALWAYS_REQUIRED  # noqa: PLC0415 - heavy

    return replace(options, system=plan.system, required=plan.required_modalities | ALWAYS_REQUIRED)


def recognise_and_print(study: Path, options: "ImportOptions") -> "Recognition":
    """Chooses a study's series, and prints the table of them.

    Raises:
        InputError: see `metseg.dicom.import_case.recognise_study`.
    """
    from rich.console import Console  # noqa: PLC0415 - heavy

    from metseg.cli.series_table import tabulate_series  # noqa: PLC0415
    from metseg.dicom.import_case import recognise_study  # noqa: PLC0415

    recognition = recognise_study(study, options.named)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(tabulate_series(recognition.verdicts))
    return recognition


def say_imported(name: str, case: "ImportedCase") -> None:
    """One line, and one for each finding.

    Args:
        name: what the case was made of.
        case: as imported, or there already.
    """
    if not case.is_new:
        logger.info("%s: case %s is there already", name, case.facts.case_id)
        return
    for finding in case.findings:
        logger.warning("%s: %s", case.facts.case_id, finding.what)
    took = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in case.facts.stage_s.items())
    written = ", ".join(case.facts.images)
    logger.info("%s: case %s for %s: %s (%s)", name, case.facts.case_id, case.facts.system, written, took)


def attempt(name: str, make: Callable[[], T], *, is_last_word: bool) -> T | None:
    """What is made; None where that fails, which one line says.

    Args:
        name: of the study or case, for that line.
        make: makes it.
        is_last_word: whether a failure ends the command.

    Raises:
        MetsegError: it failed, and that ends the command; its message names the study or case.
    """
    try:
        return make()
    except MetsegError as error:
        what = str(error) if name in str(error) else f"{name}: {error}"
        if is_last_word:
            error.args = (what,)
            raise
        logger.error("%s%s", what, f"  -> {error.hint}" if error.hint else "")  # noqa: TRY400 - not a bug
        return None
