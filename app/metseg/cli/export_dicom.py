"""`metseg export-dicom`: a label map as a DICOM Segmentation object."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from metseg.cli.choices import LabelsOption, parse_system

if TYPE_CHECKING:
    from metseg.labels import LabelConvention

logger = logging.getLogger(__name__)


def export_dicom(
    label_map: Annotated[
        Path, typer.Option("--label-map", "--label_map", help="Label map on the grid of the series, NIfTI.")
    ],
    dicom_series: Annotated[
        Path,
        typer.Option(
            "--dicom-series",
            "--dicom_series",
            help="DICOM series that t1c (of a label map made with --grid ct: the CT) was converted from: its folder, "
            "or the file of a multi-frame image.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "--output_path", help="The DICOM file to write.")],
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
    """Writes a label map as DICOM Segmentation on the series of its source image, checked by reading it back."""
    from metseg.dicom.seg import export_segmentation  # noqa: PLC0415 - heavy
    from metseg.systems import SystemName, find_system  # noqa: PLC0415 - imports numpy

    voxels = export_segmentation(
        label_map,
        dicom_series,
        output,
        find_system(cast("SystemName", system)),
        convention=cast("LabelConvention | None", labels),
    )
    logger.info("%s: %s", output, "; ".join(f"{name}: {count} voxels" for name, count in voxels.items()))
    return 0
