"""`metseg export-dicom`: a label map as DICOM objects on a series."""

import logging
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from metseg.cli.choices import LabelsOption, parse_modality, parse_system
from metseg.errors import UsageError

if TYPE_CHECKING:
    from metseg.dicom.export import Destination, ObjectKind
    from metseg.labels import LabelConvention
    from metseg.systems import Modality

logger = logging.getLogger(__name__)


class ExportFormat(StrEnum):
    """What is written."""

    seg = "seg"
    rtstruct = "rtstruct"
    both = "both"


def export_dicom(  # noqa: PLR0917 - typer passes options by name
    label_map: Annotated[Path, typer.Option("--label-map", "--label_map", help="Label map, NIfTI.")],
    dicom_series: Annotated[
        Path,
        typer.Option(
            "--dicom-series",
            "--dicom_series",
            help="DICOM series that t1c (of a label map made with --grid ct: the CT) was converted from: its folder, "
            "or the file of a multi-frame image. With --registration any series, with --import-json the whole study.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "--output_path",
            help="The DICOM file to write; for both: a folder for seg.dcm and rtstruct.dcm.",
        ),
    ],
    output_format: Annotated[
        ExportFormat,
        typer.Option("--format", help="A Segmentation, an RT Structure Set with one structure per lesion, or both."),
    ] = ExportFormat.seg,
    registration: Annotated[
        Path | None,
        typer.Option(
            "--registration",
            help="Text file of a rigid 4x4 matrix: from the label map's world to the series', in RAS millimetres.",
        ),
    ] = None,
    import_json: Annotated[
        Path | None,
        typer.Option(
            "--import-json", "--import_json", help="The case's import.json: finds series and registration in the study."
        ),
    ] = None,
    onto: Annotated[
        str,
        typer.Option(
            "--onto",
            parser=parse_modality,
            metavar="[t1c|ct|t1n|t2w|t2f]",
            help="With --import-json: the image whose series is meant.",
        ),
    ] = "t1c",
    salt_file: Annotated[
        Path | None,
        typer.Option(
            "--salt-file", "--salt_file", help="With --import-json: the import's secret. \\[default: beside the case]"
        ),
    ] = None,
    system: Annotated[
        str,
        typer.Option(
            "--system",
            parser=parse_system,
            metavar="[brats|radiosurgery]",
            help="What the labels mean; radiosurgery: label 1 is a metastasis.",
        ),
    ] = "brats",
    labels: LabelsOption = None,
) -> int:
    """Writes a label map as DICOM Segmentation, RT Structure Set or both, checked by reading them back."""
    if registration is not None and import_json is not None:
        raise UsageError("--registration and --import-json both say where the series lies", hint="Give one of them.")
    if import_json is None and (onto != "t1c" or salt_file is not None):
        raise UsageError(
            "--onto and --salt-file need --import-json", hint="Name the case's import.json, or leave them."
        )
    from metseg.dicom import export  # noqa: PLC0415 - heavy
    from metseg.systems import SystemName, find_system  # noqa: PLC0415 - imports numpy

    if import_json is None:
        destination = _find_series(dicom_series, registration)
    else:
        from metseg.dicom.imported import find_destination  # noqa: PLC0415 - heavy

        destination = find_destination(dicom_series, import_json, cast("Modality", onto), salt_file)
    written = export.export_dicom(
        label_map,
        destination,
        _name_outputs(output, output_format),
        find_system(cast("SystemName", system)),
        convention=cast("LabelConvention | None", labels),
    )
    say_written(written)
    return 0


def say_written(written: Mapping[Path, str]) -> None:
    """One line for each DICOM object.

    Args:
        written: from `metseg.dicom.export.export_dicom`.
    """
    for path, words in written.items():
        logger.info("%s: %s", path, words)


def _find_series(folder: Path, registration: Path | None) -> "Destination":
    from metseg.dicom.export import Destination  # noqa: PLC0415 - heavy
    from metseg.dicom.series import read_series  # noqa: PLC0415 - heavy
    from metseg.dicom.transform_file import read_registration  # noqa: PLC0415 - imports numpy

    matrix = None if registration is None else read_registration(registration)
    return Destination(read_series(folder), matrix)


def _name_outputs(output: Path, output_format: ExportFormat) -> dict["ObjectKind", Path]:
    from metseg.run.output_folder import prepare_output, warn_of_loss  # noqa: PLC0415 - imports numpy

    if output_format is not ExportFormat.both:
        warn_of_loss(output.parent)
        return {"seg" if output_format is ExportFormat.seg else "rtstruct": output}
    prepare_output(output)
    warn_of_loss(output)
    return {"seg": output / "seg.dcm", "rtstruct": output / "rtstruct.dcm"}
