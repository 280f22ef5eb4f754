"""`metseg import-dicom`: studies from the scanner, or raw NIfTI, as cases that `infer` reads."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from metseg.errors import ExitCode, MetsegError, UsageError

if TYPE_CHECKING:
    from metseg.dicom.import_case import ImportedCase, ImportOptions
    from metseg.dicom.recognition import Verdict
    from metseg.systems import Modality

logger = logging.getLogger(__name__)

Job = tuple[str, "Callable[[], ImportedCase]"]
"""What a message calls the case, and what makes it."""


def import_dicom(
    *,
    output_path: Annotated[
        Path, typer.Option("--output-path", "--output_path", help="Folder of cases; made where it is missing.")
    ],
    dicom_path: Annotated[
        list[Path] | None,
        typer.Option("--dicom-path", "--dicom_path", help="Folder of one patient's study, with all its series."),
    ] = None,
    more_studies: Annotated[
        list[Path] | None, typer.Argument(metavar="STUDY", help="Further studies: --dicom-path STUDIES/*.")
    ] = None,
    nifti: Annotated[
        Path | None,
        typer.Option("--nifti", help="Folder of cases with raw NIfTI images, named as docs/input.md says."),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option("--series", metavar="MODALITY=UID", help="The series of t1n, t1c, t2w, t2f or ct, of one study."),
    ] = None,
    case_id: Annotated[
        list[str] | None,
        typer.Option("--case-id", "--case_id", help="Name of each study's case, in order. \\[default: a salted hash]"),
    ] = None,
    brain_mask: Annotated[
        Path | None,
        typer.Option(
            "--brain-mask",
            "--brain_mask",
            help="Brain mask of one study's t1c, NIfTI. \\[default: found by networks]",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="The bundle that will run: decides which images must be there, and whether whole heads are kept. "
            "\\[default: t1c; whole heads for CT and t1c alone]",
        ),
    ] = None,
    salt_file: Annotated[
        Path | None,
        typer.Option("--salt-file", "--salt_file", help="Secret of the hashes. \\[default: one of the output folder]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave the cases that are there as they are.")] = False,
    on_error: Annotated[
        Literal["stop", "skip"], typer.Option("--on-error", "--on_error", help="What a study that fails costs.")
    ] = "stop",
) -> int:
    """Makes cases of DICOM studies: finds t1n, t1c, t2w, t2f and CT, registers them to t1c and takes the brain."""
    if find_spec("pydicom") is None:
        raise UsageError("import-dicom needs pydicom", hint="Install it: pip install 'metseg[dicom]'.")
    studies = [*(dicom_path or ()), *(more_studies or ())]
    _check_usage(studies, nifti, series or (), case_id or (), brain_mask)
    from metseg.dicom.import_case import ALWAYS_REQUIRED, ImportOptions  # noqa: PLC0415 - heavy
    from metseg.dicom.pseudonyms import open_salt  # noqa: PLC0415
    from metseg.dicom.stripping import brain_by_networks, brain_from_file  # noqa: PLC0415
    from metseg.plan.bundle import bundle_folder, open_bundle  # noqa: PLC0415
    from metseg.run.output_folder import prepare_output  # noqa: PLC0415

    prepare_output(output_path)
    options = ImportOptions(
        output_path=output_path,
        pseudonyms=open_salt(output_path, salt_file),
        find_brain=brain_by_networks if brain_mask is None else brain_from_file(brain_mask),
        named=_parse_series(series or ()),
        resume=resume,
    )
    if weights is not None:
        plan = open_bundle(bundle_folder(weights)).plan
        options = replace(options, system=plan.system, required=plan.required_modalities | ALWAYS_REQUIRED)
    names = [*(case_id or ()), *[None] * (len(studies) - len(case_id or ()))]
    jobs = [_study_job(path, replace(options, case_id=name)) for path, name in zip(studies, names, strict=True)]
    if nifti is not None:
        jobs += _nifti_jobs(nifti, options, has_mask=brain_mask is not None)
    failed = sum(not _run(job, is_last_word=on_error == "stop") for job in jobs)
    logger.info("%s: %d of %d cases", output_path, len(jobs) - failed, len(jobs))
    return int(ExitCode.SOME_FAILED if failed else ExitCode.DONE)


def _check_usage(
    studies: Sequence[Path], nifti: Path | None, series: Sequence[str], case_ids: Sequence[str], mask: Path | None
) -> None:
    """Raises UsageError where options do not fit each other."""
    if bool(studies) == (nifti is not None):
        raise UsageError("import-dicom needs --dicom-path or --nifti, one of them", hint="Name a study's folder.")
    if case_ids and len(case_ids) != len(studies):
        raise UsageError(f"{len(case_ids)} --case-id for {len(studies)} studies", hint="Give one for each, in order.")
    if series and len(studies) != 1:
        raise UsageError("--series is of one study", hint="Import that study by itself.")
    if mask is not None and len(studies) > 1:
        raise UsageError("--brain-mask is of one study", hint="Import that study by itself.")


def _parse_series(texts: Sequence[str]) -> "Mapping[Modality, str]":
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


def _study_job(path: Path, options: "ImportOptions") -> Job:
    def make() -> "ImportedCase":
        from metseg.dicom.import_case import import_study, recognise_study  # noqa: PLC0415 - heavy

        recognition = recognise_study(path, options.named)
        _print_series(recognition.verdicts)
        return import_study(recognition, options)

    return f"study {path}", make


def _print_series(verdicts: "Sequence[Verdict]") -> None:
    from rich.console import Console  # noqa: PLC0415 - heavy

    from metseg.cli.series_table import tabulate_series  # noqa: PLC0415

    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(tabulate_series(verdicts))


def _nifti_jobs(folder: Path, options: "ImportOptions", *, has_mask: bool) -> list[Job]:
    from metseg.dicom.import_case import import_images  # noqa: PLC0415 - heavy
    from metseg.files.discovery import discover_cases  # noqa: PLC0415
    from metseg.systems import Modality  # noqa: PLC0415

    cases = discover_cases(folder, modalities=get_args(Modality))
    if has_mask and len(cases) > 1:
        raise UsageError(f"--brain-mask for {len(cases)} cases", hint="Give a folder that holds one.")
    return [(f"case {files.case_id}", partial(import_images, files, options)) for files in cases]


def _run(job: Job, *, is_last_word: bool) -> bool:
    """Whether a case was made.

    Raises:
        MetsegError: it was not, and that ends the command.
    """
    name, make = job
    try:
        case = make()
    except MetsegError as error:
        if is_last_word:
            raise
        logger.error("%s%s", error, f"  -> {error.hint}" if error.hint else "")  # noqa: TRY400 - not a bug
        return False
    if not case.is_new:
        logger.info("%s: case %s is there already", name, case.facts.case_id)
        return True
    for finding in case.findings:
        logger.warning("%s: %s", case.facts.case_id, finding.what)
    took = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in case.facts.stage_s.items())
    written = ", ".join(case.facts.images)
    logger.info("%s: case %s for %s: %s (%s)", name, case.facts.case_id, case.facts.system, written, took)
    return True
