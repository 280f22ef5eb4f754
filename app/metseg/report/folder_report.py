"""`metseg report`: the report of a folder of label maps, which any program may have made."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases, survey_cases
from metseg.files.label_sets import require_clear_files
from metseg.findings import Finding, printable, warning
from metseg.labels import LabelConvention, tells_et_from_rc
from metseg.report.canvas import load_matplotlib
from metseg.report.case_from_files import CasePaths, find_label_map, report_from_files
from metseg.report.case_report import REFERENCE, SEGMENTATION, CaseReport
from metseg.report.case_store import StoredCase, hash_if_readable, make_folder
from metseg.report.earlier_runs import hashes_of_bundles
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
    convention: LabelConvention | None = None,
    listener: Callable[[CaseReport], None] = lambda _: None,
) -> tuple[CaseReport, ...]:
    """Reports on a folder of label maps; bad and missing ones are listed, not fatal.

    Args:
        data_path: the folder of cases.
        prediction_path: the folder of label maps (see `metseg.report.case_from_files.find_label_map` for their names).
        report_dir: where the report goes; made when missing.
        reference_path: the folder of label maps to compare with; None compares with none.
        convention: what label 4 means in both folders; needed where one of them leaves it open, but for label maps that
            a bundle made, as the report's folder says.
        listener: told about each case when it is done.

    Returns:
        One report per case, in order.

    Raises:
        InputError: there is no case, a folder is missing, or label 4 of one could mean two things
            (`metseg.files.label_sets`).
        OutputError: the report can't be written.
    """
    for path in (prediction_path, reference_path):
        if path is not None and not path.is_dir():
            raise InputError(f"folder {path} does not exist", hint="Name the folder of label maps.")
    options = {"data_path": str(data_path.resolve()), "prediction_path": str(prediction_path.resolve())}
    options |= {"reference_path": str(reference_path.resolve())} if reference_path else {}
    options |= {"labels": convention} if convention else {}
    run = describe_run("report", options)
    apart = [path for path in (prediction_path, reference_path, report_dir) if path is not None]
    found = survey_cases(data_path, modalities=modalities_to_find(OWN_GRID), apart_from=apart).cases
    system = system_of_images(name for files in found for name in (*files.images, *files.rivals))
    to_report = [
        _find_paths(files, prediction_path, reference_path)
        for files in discover_cases(data_path, modalities=system.modalities, apart_from=apart)
    ]
    if tells_et_from_rc(system.regions):
        to_report = _settle_labels(to_report, report_dir, convention)
    make_folder(report_dir)
    load_matplotlib(report_dir)
    cases = []
    for paths in to_report:
        report = _report_case(paths, report_dir, system, has_references=reference_path is not None)
        cases.append(StoredCase(paths.files.case_id, report))
        listener(report)
    write_report(report_dir, cases, run)
    return tuple(case.report for case in cases)


def _find_paths(files: CaseFiles, predictions: Path, references: Path | None) -> CasePaths:
    reference = find_label_map(references, files.case_id) if references else None
    return CasePaths(files, find_label_map(predictions, files.case_id), reference)


def _settle_labels(cases: Sequence[CasePaths], report_dir: Path, convention: LabelConvention | None) -> list[CasePaths]:
    """Says what label 4 means in each label map: what a bundle made is known, all others are judged together."""
    hashes = hashes_of_bundles(report_dir)
    known = {
        case.label_map for case in cases if hashes and case.label_map and hash_if_readable(case.label_map) in hashes
    }
    others = [case.label_map for case in cases if case.label_map and case.label_map not in known]
    require_clear_files(others, "label maps", convention)
    require_clear_files([case.reference for case in cases if case.reference], "references", convention)
    if convention is None:
        return list(cases)
    return [
        replace(
            case,
            conventions={REFERENCE: convention} | ({} if case.label_map in known else {SEGMENTATION: convention}),
        )
        for case in cases
    ]


def _report_case(paths: CasePaths, report_dir: Path, system: System, *, has_references: bool) -> CaseReport:
    case_id = paths.files.case_id
    warnings: tuple[Finding, ...] = ()
    if has_references and paths.reference is None:
        warnings = (warning("not-shown", f"no reference of {printable(case_id)} found"),)
    return report_from_files(paths, report_dir, system, CaseRecord(case_id, "present", findings=warnings))
