"""`metseg study`: from the scanner's studies to label maps, a report and DICOM objects, in one go."""

from pathlib import Path
from typing import Annotated

import typer

from metseg.cli.infer import PlanOption
from metseg.cli.studies import (
    BrainMaskOption,
    CaseIdOption,
    DicomPathOption,
    MoreStudiesArgument,
    OnStudyErrorOption,
    SaltFileOption,
    SeriesOption,
    check_studies,
)
from metseg.errors import UsageError
from metseg.predict.device import DeviceChoice


def study(
    *,
    output_path: Annotated[
        Path, typer.Option("--output-path", "--output_path", help="Folder for cases/, labels/, report/ and dicom/.")
    ],
    dicom_path: DicomPathOption = None,
    more_studies: MoreStudiesArgument = None,
    case_id: CaseIdOption = None,
    series: SeriesOption = None,
    brain_mask: BrainMaskOption = None,
    salt_file: SaltFileOption = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            help="A bundle's folder or name, for all studies. "
            "\\[default: as of infer; for CT and t1c alone a radiosurgery bundle]",
        ),
    ] = None,
    plan: PlanOption = None,
    device: Annotated[
        DeviceChoice | None, typer.Option("--device", help="Where the networks run. \\[default: auto]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Do only what is missing of each study.")] = False,
    on_error: OnStudyErrorOption = "stop",
) -> int:
    """Takes DICOM studies all the way: import-dicom, infer with a report, and export-dicom.

    The table of series, the report and the contours must be looked at by a person.
    """
    studies = [*(dicom_path or ()), *(more_studies or ())]
    if not studies:
        raise UsageError("study needs --dicom-path", hint="Name a study's folder.")
    check_studies(studies, series or (), case_id or (), brain_mask)
    from metseg.cli.run_studies import Folders, Ways, choose_settings, run_studies  # noqa: PLC0415 - heavy
    from metseg.cli.studies import make_import_options, name_cases  # noqa: PLC0415
    from metseg.run.output_folder import prepare_output, warn_of_loss  # noqa: PLC0415

    choose = choose_settings(weights=weights, plan=plan, device=device, on_error=on_error)
    folders = Folders(output_path)
    for folder in (output_path, folders.cases, folders.labels, folders.dicom):
        prepare_output(folder)
    warn_of_loss(output_path)
    options = make_import_options(
        folders.cases, series=series or (), brain_mask=brain_mask, salt_file=salt_file, resume=resume
    )
    each = name_cases(options, studies, case_id or ())
    ways = Ways(folders, choose, salt_file, stops=on_error == "stop", resume=resume)
    return run_studies(list(zip(studies, each, strict=True)), ways)
