"""`metseg import-dicom`: studies from the scanner, or raw NIfTI, as cases that `infer` reads."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from metseg.cli.studies import (
    BrainMaskOption,
    CaseIdOption,
    DicomPathOption,
    MoreStudiesArgument,
    OnStudyErrorOption,
    SaltFileOption,
    SeriesOption,
    attempt,
    check_studies,
    fit_to_plan,
    make_import_options,
    name_cases,
    recognise_and_print,
    say_imported,
)
from metseg.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from metseg.dicom.import_case import ImportedCase, ImportOptions

logger = logging.getLogger(__name__)

Job = tuple[str, "Callable[[], ImportedCase]"]
"""What a message calls the case, and what makes it."""


def import_dicom(
    *,
    output_path: Annotated[
        Path, typer.Option("--output-path", "--output_path", help="Folder of cases; made where it is missing.")
    ],
    dicom_path: DicomPathOption = None,
    more_studies: MoreStudiesArgument = None,
    nifti: Annotated[
        Path | None,
        typer.Option("--nifti", help="Folder of cases with raw NIfTI images, named as docs/input.md says."),
    ] = None,
    series: SeriesOption = None,
    case_id: CaseIdOption = None,
    brain_mask: BrainMaskOption = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="The bundle that will run: decides which images must be there, and whether whole heads are kept. "
            "\\[default: t1c; whole heads for CT and t1c alone]",
        ),
    ] = None,
    salt_file: SaltFileOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave the cases that are there as they are.")] = False,
    on_error: OnStudyErrorOption = "stop",
) -> int:
    """Makes cases of DICOM studies: finds t1n, t1c, t2w, t2f and CT, registers them to t1c and takes the brain."""
    studies = [*(dicom_path or ()), *(more_studies or ())]
    if bool(studies) == (nifti is not None):
        raise UsageError("import-dicom needs --dicom-path or --nifti, one of them", hint="Name a study's folder.")
    check_studies(studies, series or (), case_id or (), brain_mask)
    from metseg.plan.bundle import bundle_folder, open_bundle  # noqa: PLC0415 - heavy
    from metseg.run.output_folder import prepare_output, warn_of_loss  # noqa: PLC0415

    prepare_output(output_path)
    warn_of_loss(output_path)
    options = make_import_options(
        output_path, series=series or (), brain_mask=brain_mask, salt_file=salt_file, resume=resume
    )
    if weights is not None:
        options = fit_to_plan(options, open_bundle(bundle_folder(weights)).plan)
    each = name_cases(options, studies, case_id or ())
    jobs: list[Job] = [
        (f"study {path}", partial(_import_study, path, own)) for path, own in zip(studies, each, strict=True)
    ]
    if nifti is not None:
        jobs += _nifti_jobs(nifti, options, has_mask=brain_mask is not None)
    failed = 0
    for name, make in jobs:
        case = attempt(name, make, is_last_word=on_error == "stop")
        if case is None:
            failed += 1
        else:
            say_imported(name, case)
    logger.info("%s: %d of %d cases", output_path, len(jobs) - failed, len(jobs))
    return int(ExitCode.SOME_FAILED if failed else ExitCode.DONE)


def _import_study(path: Path, options: "ImportOptions") -> "ImportedCase":
    from metseg.dicom.import_case import import_study  # noqa: PLC0415 - heavy

    return import_study(recognise_and_print(path, options), options)


def _nifti_jobs(folder: Path, options: "ImportOptions", *, has_mask: bool) -> list[Job]:
    from metseg.dicom.import_case import import_images  # noqa: PLC0415 - heavy
    from metseg.files.discovery import discover_cases  # noqa: PLC0415
    from metseg.systems import Modality  # noqa: PLC0415

    cases = discover_cases(folder, modalities=get_args(Modality))
    if has_mask and len(cases) > 1:
        raise UsageError(f"--brain-mask for {len(cases)} cases", hint="Give a folder that holds one.")
    return [(f"case {files.case_id}", partial(import_images, files, options)) for files in cases]
