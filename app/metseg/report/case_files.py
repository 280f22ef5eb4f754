"""A case's part of the report, made from files: images, and a label map that anyone made."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from metseg.discovery import MODALITIES, missing_modalities
from metseg.domain import CaseFiles, FloatVolume, Grid, Modality
from metseg.errors import InputError, MetsegError
from metseg.examine import grid_difference
from metseg.flags import flag, missing_flag
from metseg.labels import LabelMap
from metseg.nifti import read_case, read_label_map
from metseg.problems import printable
from metseg.records import CaseRecord
from metseg.report.case_report import LESIONS_FILE, PLANES_FILE, CaseReport, Evidence, describe_case
from metseg.report.pictures import SHOWN_MODALITIES, Scene, draw_planes, draw_thumbnails
from metseg.report.pieces import file_sha256, write_piece

logger = logging.getLogger(__name__)

SUFFIXES: Final = (".nii.gz", ".nii")


@dataclass(frozen=True, slots=True)
class CasePaths:
    """Where a case's files for a report lie.

    Attributes:
        files: the images.
        label_map: None where there is none.
        reference: label map to compare with; None where there is none.
    """

    files: CaseFiles
    label_map: Path | None
    reference: Path | None = None


def find_label_map(folder: Path, case_id: str) -> Path | None:
    """A case's label map in a folder: `<ID>.nii.gz`, `<ID>-seg.nii.gz` or `<ID>/<ID>-seg.nii.gz`, or `.nii`."""
    stems = (folder / case_id, folder / f"{case_id}-seg", folder / case_id / f"{case_id}-seg")
    candidates = (stem.with_name(stem.name + suffix) for stem in stems for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def report_from_files(paths: CasePaths, report_dir: Path, record: CaseRecord | None = None) -> CaseReport:
    """Measures and draws a case from its files and writes its piece; what can't be used becomes a line in the report.

    Args:
        paths: the files.
        report_dir: the report's folder.
        record: what is known of the case; None makes one that says that the label map was there.

    Raises:
        OutputError: the piece can't be written.
    """
    files = paths.files
    record = record or CaseRecord(files.case_id, "present")
    absent = missing_modalities(files, MODALITIES)
    flags = (missing_flag(absent),) if absent else ()
    loaded = _read_labels(paths)
    if isinstance(loaded, str):
        failed = replace(record, outcome="failed", error=loaded, flags=(*flags, flag("no-label-map")))
        report = describe_case(failed, None)
        pictures: Mapping[str, bytes] = {}
    else:
        labels, grid = loaded
        images, image_warnings = _read_images(files, grid)
        reference, reference_warnings = _read_reference(paths.reference, grid)
        known = replace(record, flags=flags, warnings=(*record.warnings, *image_warnings, *reference_warnings))
        evidence = Evidence(grid, labels, images, reference=reference)
        report, pictures = describe_and_draw(known, evidence)
    report = replace(
        report,
        input_sha256=hash_inputs(files),
        label_map_sha256=file_sha256(paths.label_map) if paths.label_map else "",
    )
    write_piece(report_dir, files.case_id, report, pictures)
    return report


def describe_and_draw(record: CaseRecord, evidence: Evidence) -> tuple[CaseReport, Mapping[str, bytes]]:
    """Measures a case and draws its pictures; a picture that fails costs the picture alone."""
    report = describe_case(record, evidence)
    try:
        pictures = draw_pictures(evidence, report)
    except Exception as error:  # pictures are not worth a table
        logger.warning("case %s: no pictures: %s", report.case_id, error, exc_info=True)
        warnings = (*report.record.warnings, f"no pictures: {printable(str(error))}")
        return replace(report, record=replace(report.record, warnings=warnings)), {}
    return replace(report, pictures=tuple(pictures)), pictures


def draw_pictures(evidence: Evidence, report: CaseReport) -> Mapping[str, bytes]:
    """File name to content of a case's pictures; none without images."""
    if not evidence.images:
        return {}
    scene = Scene(evidence.grid, evidence.images, evidence.labels, report.lesions, evidence.reference)
    pictures = {PLANES_FILE: draw_planes(scene)}
    thumbnails = draw_thumbnails(scene)
    return pictures if thumbnails is None else pictures | {LESIONS_FILE: thumbnails}


def hash_inputs(files: CaseFiles) -> Mapping[str, str]:
    """File name to SHA-256 of a case's images."""
    return {printable(path.name): file_sha256(path) for path in files.images.values()}


def _read_labels(paths: CasePaths) -> tuple[LabelMap, Grid] | str:
    if paths.label_map is None:
        return f"no label map of {printable(paths.files.case_id)} found"
    try:
        return read_label_map(paths.label_map)
    except MetsegError as error:
        return f"{error} {error.hint}".strip()


def _read_images(files: CaseFiles, grid: Grid) -> tuple[Mapping[Modality, FloatVolume], tuple[str, ...]]:
    wanted = [name for name in SHOWN_MODALITIES if name in files.images] or list(files.images)[:1]
    try:
        case = read_case(replace(files, rivals={}), modalities=wanted, reference=wanted[0])
    except (InputError, IndexError) as error:
        return {}, (f"no pictures: {error}",)
    difference = grid_difference(grid, case.grid)
    if difference:
        return {}, (f"no pictures: the label map's grid is not {wanted[0]}'s: {difference}", *case.warnings)
    return case.images, case.warnings


def _read_reference(path: Path | None, grid: Grid) -> tuple[LabelMap | None, tuple[str, ...]]:
    if path is None:
        return None, ()
    try:
        labels, reference_grid = read_label_map(path)
    except MetsegError as error:
        return None, (f"reference not shown: {error}",)
    difference = grid_difference(reference_grid, grid)
    if difference:
        return None, (f"reference not shown: its grid is not the label map's: {difference}",)
    return labels, ()
