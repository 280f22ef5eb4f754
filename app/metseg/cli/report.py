"""`metseg report`: lesion tables, pictures and a page for label maps that exist already."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from metseg.cli.choices import LabelsOption

if TYPE_CHECKING:
    from metseg.labels import LabelConvention
    from metseg.report.case_report import CaseReport

logger = logging.getLogger(__name__)


def report(
    data_path: Annotated[Path, typer.Option("--data-path", "--data_path", help="Folder of cases.")],
    prediction_path: Annotated[
        Path, typer.Option("--prediction-path", "--prediction_path", help="Folder of label maps, made by any program.")
    ],
    report_dir: Annotated[
        Path, typer.Option("--report-dir", "--report_dir", help="Folder for the report; made when missing.")
    ],
    reference_path: Annotated[
        Path | None,
        typer.Option("--reference-path", "--reference_path", help="Folder of label maps to show beside them."),
    ] = None,
    labels: LabelsOption = None,
) -> int:
    """Makes report.html, lesions.csv, cases.csv and run.json from label maps.

    Missing and unusable label maps are listed in the report.
    """
    from metseg.cli.run import check_report_dir  # noqa: PLC0415 - heavy
    from metseg.report.folder_report import report_label_maps  # noqa: PLC0415

    check_report_dir(report_dir, prediction_path, frozenset())
    reports = report_label_maps(
        data_path,
        prediction_path,
        report_dir,
        reference_path=reference_path,
        convention=cast("LabelConvention | None", labels),
        listener=_say,
    )
    failed = sum(not report.record.succeeded for report in reports)
    if failed:
        logger.warning("%d of %d cases have no usable label map; the report lists them", failed, len(reports))
    logger.info("report of %d cases in %s", len(reports), report_dir / "report.html")
    return 0


def _say(report: "CaseReport") -> None:
    record = report.record
    count = len(report.lesions)
    line = f"{report.case_id}: " + (f"{count} lesion{'' if count == 1 else 's'}" if report.shape else "no label map")
    notes = [note.words for note in record.notes if note.words not in line]
    logger.info("%s", line + (f"; {', '.join(notes)}" if notes else ""))
    for warning in record.warnings:
        logger.warning("case %s: %s", report.case_id, warning.what)
    if record.error:
        logger.error("case %s: %s", report.case_id, record.error)
