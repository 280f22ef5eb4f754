"""What a report says of one case: plain data, from which tables, page and `run.json` are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from metseg.findings import printable
from metseg.flags import Flag, agreement_flags, count_flags, edge_flags
from metseg.labels import LabelMap, SystemName, whole_tumour
from metseg.report.lesions import Lesion, Votes, measure_lesions, region_volumes_mm3
from metseg.run.record import CaseRecord
from metseg.space.components import find_components
from metseg.space.domain import FloatVolume, Grid, Modality

PLANES_FILE: Final = "planes.webp"
LESIONS_FILE: Final = "lesions.webp"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a reference label map holds, for comparison at a glance; `python -m evaluation` scores.

    Attributes:
        lesions: 26-connected components of WT.
        wt_volume_mm3: whole tumour.
    """

    lesions: int
    wt_volume_mm3: float


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What the report says of one case.

    Attributes:
        record: what became of it; the number of lesions in it was counted on the network's grid, that of `lesions` on
            the label map's, and the two may differ where the grid was resampled. Its flags and warnings are complete.
        shape: voxels of the label map along each axis; None where there is no label map.
        spacing_mm: voxel sides; None likewise.
        wt_volume_mm3: whole tumour of the whole label map.
        tc_volume_mm3: tumour core.
        et_volume_mm3: enhancing tumour.
        rc_volume_mm3: resection cavity (label 4, which this program never writes).
        lesions: by volume, the largest first.
        reference: where there is one.
        input_sha256: file name of each image to the hash of the file.
        label_map_sha256: hash of the label map's file; empty where there is none.
        peak_memory_mib: the process's largest memory so far when the case was done; None where it wasn't measured.
        gpu_peak_memory_mib: the same for the GPU's memory.
        pictures: names of pictures in the case's folder of the report.
        saved: names of other files there (--save).
        system: what the label map's numbers mean. Without parts the whole tumour is the core, and nothing enhances.
        label_grid: whose grid the label map has, and the world coordinates of its lesions.
    """

    record: CaseRecord
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    wt_volume_mm3: float = 0.0
    tc_volume_mm3: float = 0.0
    et_volume_mm3: float = 0.0
    rc_volume_mm3: float = 0.0
    lesions: tuple[Lesion, ...] = ()
    reference: Reference | None = None
    input_sha256: Mapping[str, str] = field(default_factory=dict)
    label_map_sha256: str = ""
    peak_memory_mib: float | None = None
    gpu_peak_memory_mib: float | None = None
    pictures: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    system: SystemName = "brats"
    label_grid: Modality = "t1c"

    @property
    def case_id(self) -> str:
        """The case's name, as any file or terminal can show it."""
        return self.record.case_id

    @property
    def measurable_lesions(self) -> int:
        """Lesions that RANO-BM would follow by their diameter."""
        return sum(lesion.is_measurable for lesion in self.lesions)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a case's lesions are measured on, all on one grid.

    Attributes:
        grid: of everything else.
        labels: the label map.
        images: what could be read; may be empty.
        votes: the members', where they are known.
        reference: label map to compare with, where there is one.
        system: what the labels mean; the images of `radiosurgery` show whole heads.
        label_grid: whose grid it is.
    """

    grid: Grid
    labels: LabelMap
    images: Mapping[Modality, FloatVolume] = field(default_factory=dict)
    votes: Votes | None = None
    reference: LabelMap | None = None
    system: SystemName = "brats"
    label_grid: Modality = "t1c"


def describe_case(record: CaseRecord, evidence: Evidence | None, system: SystemName = "brats") -> CaseReport:
    """Measures a case and completes its flags.

    Args:
        record: what became of the case.
        evidence: None where there is no label map; of a blank one nothing is measured.
        system: of a case without evidence, which has its own.
    """
    record = _printable(record)
    if evidence is None:
        return CaseReport(record, system=system)
    wt, tc, et, rc = region_volumes_mm3(evidence.labels, evidence.grid)
    stripped = evidence.images.values() if evidence.system == "brats" else ()  # whole heads don't tell the brain's edge
    lesions = measure_lesions(evidence.labels, evidence.grid, images=stripped, votes=evidence.votes)
    return CaseReport(
        record=replace(record, flags=_complete(record, lesions)),
        shape=evidence.grid.shape,
        spacing_mm=evidence.grid.spacing_mm,
        wt_volume_mm3=wt,
        tc_volume_mm3=tc,
        et_volume_mm3=et,
        rc_volume_mm3=rc,
        lesions=lesions,
        reference=_reference(evidence),
        system=evidence.system,
        label_grid=evidence.label_grid,
    )


def _printable(record: CaseRecord) -> CaseRecord:
    """Names and messages as any file can hold them: folders' names are opaque bytes."""
    return replace(
        record,
        case_id=printable(record.case_id),
        warnings=tuple(printable(warning) for warning in record.warnings),
        error=printable(record.error),
    )


def _complete(record: CaseRecord, lesions: tuple[Lesion, ...]) -> tuple[Flag, ...]:
    """The record's flags and those that measuring the label map adds; of one kind the measured one counts."""
    if record.outcome == "blank":
        return record.flags
    counted = {"no-lesion", "many-lesions", "low-agreement", "brain-edge"}  # on this grid, not on the network's
    return (
        *(flag for flag in record.flags if flag.code not in counted),
        *count_flags(len(lesions)),
        *agreement_flags(lesions),
        *edge_flags(sum(bool(lesion.at_brain_edge) for lesion in lesions), len(lesions)),
    )


def _reference(evidence: Evidence) -> Reference | None:
    if evidence.reference is None:
        return None
    wt = whole_tumour(evidence.reference)
    return Reference(find_components(wt).sizes.size, float(wt.sum()) * evidence.grid.voxel_volume_mm3)
