"""Measures and draws a case: from its volumes to what the report says and shows."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from metseg.findings import Finding, agreement_notes, count_notes, edge_notes, printable, warning
from metseg.report.case_report import LESIONS_FILE, PLANES_FILE, CaseReport, Reference
from metseg.report.case_volumes import CaseVolumes
from metseg.report.lesions import Lesion, measure_lesions, measure_regions
from metseg.report.pictures import draw_planes, draw_thumbnails
from metseg.run.record import CaseRecord
from metseg.space.components import find_components
from metseg.systems import System

logger = logging.getLogger(__name__)


def describe_and_draw(record: CaseRecord, volumes: CaseVolumes) -> tuple[CaseReport, Mapping[str, bytes]]:
    """Measures a case and draws its pictures; a picture that fails costs the picture alone."""
    report = describe_case(record, volumes)
    try:
        pictures = draw_pictures(volumes, report.lesions)
    except Exception as error:  # pictures are not worth a table
        logger.warning("case %s: no pictures: %s", report.case_id, error, exc_info=True)
        lost = warning("not-shown", f"no pictures: {printable(str(error))}")
        return replace(report, record=replace(report.record, findings=(*report.record.findings, lost))), {}
    return replace(report, pictures=tuple(pictures)), pictures


def draw_pictures(volumes: CaseVolumes, lesions: Sequence[Lesion]) -> Mapping[str, bytes]:
    """Draws the pictures of a case: their content by file name; none without images."""
    if not volumes.images:
        return {}
    pictures = {PLANES_FILE: draw_planes(volumes, lesions)}
    thumbnails = draw_thumbnails(volumes, lesions)
    return pictures if thumbnails is None else pictures | {LESIONS_FILE: thumbnails}


def describe_unmeasured(record: CaseRecord, system: System) -> CaseReport:
    """Reports on a case that has no label map, or one that can't be used."""
    return CaseReport(_make_printable(record), system.name)


def describe_case(record: CaseRecord, volumes: CaseVolumes) -> CaseReport:
    """Measures a case and completes its findings.

    Args:
        record: what became of the case; of a blank label map no findings are added.
        volumes: what is measured.
    """
    record, regions = _make_printable(record), volumes.system.regions
    stripped = volumes.images.values() if volumes.system.is_stripped else ()
    lesions = measure_lesions(volumes.labels, volumes.grid, regions, images=stripped, votes=volumes.votes)
    return CaseReport(
        record=replace(record, findings=_complete_findings(record, lesions)),
        system_name=volumes.system.name,
        shape=volumes.grid.shape,
        spacing_mm=volumes.grid.spacing_mm,
        volumes_mm3=measure_regions(volumes.labels, volumes.grid, regions),
        lesions=lesions,
        reference=_measure_reference(volumes),
        label_grid=volumes.label_grid,
    )


def _make_printable(record: CaseRecord) -> CaseRecord:
    """Escapes names and messages so that any file can hold them: folders' names are opaque bytes."""
    return replace(
        record,
        case_id=printable(record.case_id),
        findings=tuple(
            replace(finding, case_id="", what=printable(finding.what), hint=printable(finding.hint))
            for finding in record.findings
        ),
        error=printable(record.error),
    )


def _complete_findings(record: CaseRecord, lesions: tuple[Lesion, ...]) -> tuple[Finding, ...]:
    """Adds what measuring the label map finds; it replaces findings of the same kind on the network's grid."""
    if record.outcome == "blank":
        return record.findings
    counted = {"no-lesion", "many-lesions", "low-agreement", "brain-edge"}  # on this grid, not on the network's
    return (
        *(finding for finding in record.findings if finding.code not in counted),
        *count_notes(len(lesions)),
        *agreement_notes(lesions),
        *edge_notes(sum(bool(lesion.at_brain_edge) for lesion in lesions), len(lesions)),
    )


def _measure_reference(volumes: CaseVolumes) -> Reference | None:
    if volumes.reference is None:
        return None
    whole = volumes.system.regions.whole_mask(volumes.reference)
    return Reference(find_components(whole).sizes.size, float(whole.sum()) * volumes.grid.voxel_volume_mm3)
