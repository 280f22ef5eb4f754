"""The report of one case from its files: images, and a label map that any program made."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from metseg.errors import InputError, MetsegError
from metseg.files.case import CaseFiles
from metseg.files.discovery import missing_modalities
from metseg.files.image import ImageError, read_image
from metseg.files.listing import find_file
from metseg.files.names import REFERENCE_KIND, SUFFIXES
from metseg.files.read import LabelImage, examine_label_map, read_case
from metseg.findings import Finding, errors_among, missing_note, note, printable, resampling_notes, warning
from metseg.labels import LabelConvention, LabelMap
from metseg.plan.plan import Plan
from metseg.report.case_report import REFERENCE, SEGMENTATION, CaseReport
from metseg.report.case_store import hash_if_readable, write_case_report
from metseg.report.case_volumes import CaseVolumes, apply_window
from metseg.report.describe import describe_and_draw, describe_unmeasured
from metseg.run.record import CaseRecord
from metseg.space.grid import FloatVolume, Grid, grid_difference
from metseg.space.resampling import find_resampling
from metseg.systems import OWN_GRID, SOURCE_MODALITY, Modality, System


@dataclass(frozen=True, slots=True)
class CasePaths:
    """Where a case's files for a report lie.

    Attributes:
        files: the images.
        label_map: the label map to report on; None where there is none.
        reference: the label map to compare with; None where there is none.
        conventions: what label 4 means in SEGMENTATION and in REFERENCE; RC where nothing is said.
    """

    files: CaseFiles
    label_map: Path | None
    reference: Path | None = None
    conventions: Mapping[str, LabelConvention] = field(default_factory=dict)


def find_label_map(folder: Path, case_id: str) -> Path | None:
    """Finds a case's label map in a folder: `<ID>.nii.gz`, `<ID>-seg.nii.gz` or `<ID>/<ID>-seg.nii.gz`, or `.nii`.

    Raises:
        InputError: several references can be meant.
    """
    candidates = (folder / f"{case_id}{suffix}" for suffix in SUFFIXES)
    found = next((path for path in candidates if path.is_file()), None)
    return found or find_file(folder, case_id, REFERENCE_KIND) or find_file(folder / case_id, case_id, REFERENCE_KIND)


def report_from_files(
    paths: CasePaths, report_dir: Path, system: System, record: CaseRecord | None = None, *, plan: Plan | None = None
) -> CaseReport:
    """Measures and draws a case from its files and stores it; what can't be used becomes a line in the report.

    Args:
        paths: the files.
        report_dir: the report's folder.
        system: what the labels mean.
        record: what is known of the case; None makes one that says that the label map was there.
        plan: the plan that made the label map; None where it is not known.

    Raises:
        OutputError: the case's part of the report can't be written.
    """
    files = paths.files
    record = record or CaseRecord(files.case_id, "present")
    absent = missing_modalities(files, system.modalities)
    notes = (missing_note(absent),) if absent else ()
    loaded = _read_labels(paths)
    pictures: Mapping[str, bytes] = {}
    if isinstance(loaded, str):
        failed = replace(
            record, outcome="failed", error=loaded, findings=(*record.warnings, *notes, note("no-label-map"))
        )
        report = describe_unmeasured(failed, system)
    else:
        labels, grid = system.unify_labels(loaded.labels), loaded.grid
        images, image_warnings = _read_images(files, grid, system)
        notes = (*notes, *_note_resampling(grid, plan, system))
        reference, reference_warnings = _read_reference(paths, grid, system)
        warnings = (*record.warnings, *loaded.findings, *image_warnings, *reference_warnings)
        known = replace(record, findings=(*warnings, *notes))
        label_grid = next((name for name in images if name in OWN_GRID), SOURCE_MODALITY)
        volumes = CaseVolumes(grid, labels, system, images, reference=reference, label_grid=label_grid)
        report, pictures = describe_and_draw(known, volumes)
    report = replace(
        report,
        input_sha256=hash_inputs(files),
        label_map_sha256=hash_if_readable(paths.label_map) if paths.label_map else "",
        conventions=paths.conventions,
    )
    write_case_report(report_dir, files.case_id, report, pictures)
    return report


def hash_inputs(files: CaseFiles) -> Mapping[str, str]:
    """The SHA-256 of each image of a case, by file name."""
    return {printable(path.name): hash_if_readable(path) for path in files.images.values()}


def _read_labels(paths: CasePaths) -> LabelImage | str:
    if paths.label_map is None:
        return f"no label map of {printable(paths.files.case_id)} found"
    try:
        return examine_label_map(paths.label_map, convention=paths.conventions.get(SEGMENTATION))
    except MetsegError as error:
        return f"{error} {error.hint}".strip()


def _note_resampling(grid: Grid, plan: Plan | None, system: System) -> tuple[Finding, ...]:
    """Says that the label map's grid is not the network's or, where no plan is known, not the challenge's."""
    if plan is not None:
        resampled = not find_resampling(grid, plan.spacing_mm, plan.frame).only_turns
        return resampling_notes(grid.spacing_mm, plan.sides_mm, resampled=resampled)
    if system.spacing_mm is None:
        return ()
    return resampling_notes(grid.spacing_mm, resampled=not find_resampling(grid, system.spacing_mm).only_turns)


def _read_images(
    files: CaseFiles, grid: Grid, system: System
) -> tuple[Mapping[Modality, FloatVolume], tuple[Finding, ...]]:
    if system.is_registered:
        return _read_image_on_grid(files, grid, system)
    wanted = [name for name in system.pictured if name in files.images] or list(files.images)[:1]
    if not wanted:
        why = "; ".join(error.what for error in errors_among(files.findings)) or "no image"
        return {}, (warning("not-shown", f"no pictures: {why}"),)
    try:
        case = read_case(replace(files, rivals={}), modalities=wanted, source=wanted[0])
    except InputError as error:
        return {}, (warning("not-shown", f"no pictures: {error}"),)
    difference = grid_difference(grid, case.grid)
    if difference:
        what = f"no pictures: the label map's grid is not {wanted[0]}'s: {difference}"
        return {}, (warning("not-shown", what), *case.warnings)
    return case.images, case.warnings


def _read_image_on_grid(
    files: CaseFiles, grid: Grid, system: System
) -> tuple[Mapping[Modality, FloatVolume], tuple[Finding, ...]]:
    """Reads the first image that has the label map's grid: others lie elsewhere until they are registered."""
    differences = []
    for modality in system.pictured:
        if modality not in files.images:
            continue
        try:
            image = read_image(files.images[modality])
        except ImageError as error:
            differences.append(f"{modality}: {error}")
            continue
        difference = grid_difference(grid, image.grid)
        if not difference:
            voxels = np.nan_to_num(image.voxels)
            return {modality: apply_window(voxels, system.window_hu) if modality in OWN_GRID else voxels}, ()
        differences.append(f"the label map's grid is not {modality}'s: {difference}")
    return {}, (warning("not-shown", f"no pictures: {'; '.join(differences) or 'no image'}"),)


def _read_reference(paths: CasePaths, grid: Grid, system: System) -> tuple[LabelMap | None, tuple[Finding, ...]]:
    if paths.reference is None:
        return None, ()
    try:
        reference = examine_label_map(paths.reference, convention=paths.conventions.get(REFERENCE))
    except MetsegError as error:
        return None, (warning("not-shown", f"reference not shown: {error}"),)
    difference = grid_difference(reference.grid, grid)
    if difference:
        what = f"reference not shown: its grid is not the label map's: {difference}"
        return None, (warning("not-shown", what),)
    return system.unify_labels(reference.labels), reference.findings
