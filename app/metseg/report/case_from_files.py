"""A case's part of the report, made from files: images, and a label map that anyone made."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from metseg.errors import InputError, MetsegError
from metseg.files.case import CaseFiles
from metseg.files.discovery import SUFFIXES, missing_modalities
from metseg.files.image import ImageError, read_image
from metseg.files.read import LabelImage, read_case, read_label_map
from metseg.findings import Finding, missing_note, note, printable, resampling_notes, warning
from metseg.labels import LabelMap
from metseg.plan.plan import Plan
from metseg.plan.radiosurgery import RadiosurgeryIntensityPlan
from metseg.prepare.radiosurgery import window_hounsfield
from metseg.report.case_report import LESIONS_FILE, PLANES_FILE, CaseReport, Evidence, describe_case
from metseg.report.case_store import file_sha256, write_piece
from metseg.report.pictures import SHOWN_MODALITIES, Scene, draw_planes, draw_thumbnails
from metseg.run.record import CaseRecord
from metseg.space.grid import FloatVolume, Grid, grid_difference
from metseg.space.resampling import plan_resampling
from metseg.systems import SYSTEMS, Modality, SystemName

logger = logging.getLogger(__name__)


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


def report_from_files(
    paths: CasePaths,
    report_dir: Path,
    record: CaseRecord | None = None,
    *,
    plan: Plan | None = None,
    system: SystemName = "brats",
) -> CaseReport:
    """Measures and draws a case from its files and writes its piece; what can't be used becomes a line in the report.

    Args:
        paths: the files.
        report_dir: the report's folder.
        record: what is known of the case; None makes one that says that the label map was there.
        plan: that made the label map, where it is known.
        system: of the label map, where the plan isn't known.

    Raises:
        OutputError: the piece can't be written.
    """
    files = paths.files
    record = record or CaseRecord(files.case_id, "present")
    system = plan.system.name if plan else system
    absent = missing_modalities(files, SYSTEMS[system].modalities)
    notes = (missing_note(absent),) if absent else ()
    loaded = _read_labels(paths)
    if isinstance(loaded, str):
        failed = replace(record, outcome="failed", error=loaded, findings=(*notes, note("no-label-map")))
        report = describe_case(failed, None, system)
        pictures: Mapping[str, bytes] = {}
    else:
        labels, grid = loaded.labels, loaded.grid
        images, image_warnings = _read_images(files, grid, system)
        notes = (*notes, *_resampling(grid, plan, system))
        reference, reference_warnings = _read_reference(paths.reference, grid)
        known = replace(record, findings=(*record.warnings, *image_warnings, *reference_warnings, *notes))
        label_grid: Modality = "ct" if "ct" in images else "t1c"
        evidence = Evidence(grid, labels, images, reference=reference, system=system, label_grid=label_grid)
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
        lost = warning("not-shown", f"no pictures: {printable(str(error))}")
        return replace(report, record=replace(report.record, findings=(*report.record.findings, lost))), {}
    return replace(report, pictures=tuple(pictures)), pictures


def draw_pictures(evidence: Evidence, report: CaseReport) -> Mapping[str, bytes]:
    """File name to content of a case's pictures; none without images."""
    if not evidence.images:
        return {}
    scene = Scene(evidence.grid, evidence.images, evidence.labels, report.lesions, evidence.reference, evidence.system)
    pictures = {PLANES_FILE: draw_planes(scene)}
    thumbnails = draw_thumbnails(scene)
    return pictures if thumbnails is None else pictures | {LESIONS_FILE: thumbnails}


def hash_inputs(files: CaseFiles) -> Mapping[str, str]:
    """File name to SHA-256 of a case's images."""
    return {printable(path.name): file_sha256(path) for path in files.images.values()}


def _read_labels(paths: CasePaths) -> LabelImage | str:
    if paths.label_map is None:
        return f"no label map of {printable(paths.files.case_id)} found"
    try:
        return read_label_map(paths.label_map)
    except MetsegError as error:
        return f"{error} {error.hint}".strip()


def _resampling(grid: Grid, plan: Plan | None, system: SystemName) -> tuple[Finding, ...]:
    """Whether the label map's grid is another than the network's; of a stranger's, than the challenge's."""
    if plan is not None:
        resampled = not plan_resampling(grid, plan.spacing_mm, plan.frame).only_turns
        return resampling_notes(grid.spacing_mm, plan.sides_mm, resampled=resampled)
    return (
        resampling_notes(grid.spacing_mm, resampled=not plan_resampling(grid).only_turns) if system == "brats" else ()
    )


def _read_images(
    files: CaseFiles, grid: Grid, system: SystemName
) -> tuple[Mapping[Modality, FloatVolume], tuple[Finding, ...]]:
    if system == "radiosurgery":
        return _read_image_of_grid(files, grid)
    wanted = [name for name in SHOWN_MODALITIES if name in files.images] or list(files.images)[:1]
    try:
        case = read_case(replace(files, rivals={}), modalities=wanted, source=wanted[0])
    except (InputError, IndexError) as error:
        return {}, (warning("not-shown", f"no pictures: {error}"),)
    difference = grid_difference(grid, case.grid)
    if difference:
        what = f"no pictures: the label map's grid is not {wanted[0]}'s: {difference}"
        return {}, (warning("not-shown", what), *case.warnings)
    return case.images, case.warnings


def _read_image_of_grid(files: CaseFiles, grid: Grid) -> tuple[Mapping[Modality, FloatVolume], tuple[Finding, ...]]:
    """The MR where the label map is on its grid, else the CT in a brain window; both only when they were registered."""
    differences = []
    for modality in ("t1c", "ct"):
        if modality not in files.images:
            continue
        try:
            image = read_image(files.images[modality])
        except ImageError as error:
            differences.append(f"{modality}: {error}")
            continue
        difference = grid_difference(grid, image.grid)
        if not difference:
            window = RadiosurgeryIntensityPlan(kind="radiosurgery")
            voxels = np.nan_to_num(image.voxels)
            return {modality: window_hounsfield(voxels, window) if modality == "ct" else voxels}, ()
        differences.append(f"the label map's grid is not {modality}'s: {difference}")
    return {}, (warning("not-shown", f"no pictures: {'; '.join(differences) or 'no image'}"),)


def _read_reference(path: Path | None, grid: Grid) -> tuple[LabelMap | None, tuple[Finding, ...]]:
    if path is None:
        return None, ()
    try:
        image = read_label_map(path)
    except MetsegError as error:
        return None, (warning("not-shown", f"reference not shown: {error}"),)
    difference = grid_difference(image.grid, grid)
    if difference:
        what = f"reference not shown: its grid is not the label map's: {difference}"
        return None, (warning("not-shown", what),)
    return image.labels, ()
