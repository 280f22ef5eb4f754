"""`metseg report`: the report of a folder of label maps, which any program may have made."""

import logging
from collections.abc import Callable
from pathlib import Path

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases, survey_cases
from metseg.findings import Finding, printable, warning
from metseg.report.case_from_files import CasePaths, find_label_map, report_from_files
from metseg.report.case_report import CaseReport
from metseg.report.case_store import StoredCase, make_folder
from metseg.report.report_files import write_report
from metseg.report.run_json import describe_run
from metseg.run.record import CaseRecord
from metseg.systems import OWN_GRID, System, modalities_to_find, system_of_images

logger = logging.getLogger(__name__)


def report_label_maps(
    data_path: Path,
    prediction_path: Path,
    report_dir: Path,
    *,
    reference_path: Path | None = None,
    listener: Callable[[CaseReport], None] = lambda _: None,
) -> tuple[CaseReport, ...]:
    """Reports on a folder of label maps; bad and missing ones are listed, not fatal.

    Args:
        data_path: the folder of cases.
        prediction_path: the folder of label maps (see `metseg.report.case_from_files.find_label_map` for their names).
        report_dir: where the report goes; made when missing.
        reference_path: the folder of label maps to compare with; None compares with none.
        listener: told about each case when it is done.

    Returns:
        One report per case, in order.

    Raises:
        InputError: there is no case, or a folder is missing.
        OutputError: the report can't be written.
    """
    for path in (prediction_path, reference_path):
        if path is not None and not path.is_dir():
            raise InputError(f"folder {path} does not exist", hint="Name the folder of label maps.")
    options = {"data_path": str(data_path.resolve()), "prediction_path": str(prediction_path.resolve())}
    options |= {"reference_path": str(reference_path.resolve())} if reference_path else {}
    run = describe_run("report", options)
    found = survey_cases(data_path, modalities=modalities_to_find(OWN_GRID)).cases
    system = system_of_images(name for files in found for name in (*files.images, *files.rivals))
    to_report = discover_cases(data_path, modalities=system.modalities)
    make_folder(report_dir)
    cases = []
    for files in to_report:
        report = _report_case(files, prediction_path, reference_path, report_dir, system)
        cases.append(StoredCase(files.case_id, report))
        listener(report)
    write_report(report_dir, cases, run)
    return tuple(case.report for case in cases)


def _report_case(
    files: CaseFiles, predictions: Path, references: Path | None, report_dir: Path, system: System
) -> CaseReport:
    reference = find_label_map(references, files.case_id) if references else None
    paths = CasePaths(files, find_label_map(predictions, files.case_id), reference)
    warnings: tuple[Finding, ...] = ()
    if references and reference is None:
        warnings = (warning("not-shown", f"no reference of {printable(files.case_id)} found"),)
    record = CaseRecord(files.case_id, "present", findings=warnings)
    return report_from_files(paths, report_dir, system, record)
