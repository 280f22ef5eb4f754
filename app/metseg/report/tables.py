"""`lesions.csv` and `cases.csv`: one row a lesion, one row a case, units in the column names."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from metseg.flags import WORDS
from metseg.labels import SystemName
from metseg.report.case_report import CaseReport
from metseg.report.lesions import Lesion
from metseg.report.words import common_system

Cell = str | int | float | None

LESION: Final = "lesion_26connected_wt"
"""The header says what a lesion is: a component of WT whose voxels share a face, an edge or a corner."""

LESION_COLUMNS: Final = (
    "case_id", LESION, "voxels", "wt_volume_mm3", "tc_volume_mm3", "et_volume_mm3", "cores_26connected_tc",
    "longest_axial_diameter_mm", "longest_3d_diameter_mm", "measurable_from_10_mm",
    "centroid_x_voxel", "centroid_y_voxel", "centroid_z_voxel",
    "centroid_r_mm", "centroid_a_mm", "centroid_s_mm",
    "box_first_x_voxel", "box_first_y_voxel", "box_first_z_voxel",
    "box_last_x_voxel", "box_last_y_voxel", "box_last_z_voxel",
    "box_min_r_mm", "box_min_a_mm", "box_min_s_mm", "box_max_r_mm", "box_max_a_mm", "box_max_s_mm",
    "finders_members", "vote_share", "vote_entropy_bits", "mean_probability_wt", "touches_brain_edge", "flags",
)  # fmt: skip

CASE_COLUMNS: Final = (
    "case_id", "outcome", "lesions_26connected_wt", "measurable_lesions_from_10_mm",
    "wt_volume_mm3", "tc_volume_mm3", "et_volume_mm3", "rc_volume_mm3", "largest_lesion_wt_mm3",
    "voxel_x_mm", "voxel_y_mm", "voxel_z_mm", "members", "elapsed_s", "peak_memory_mib",
    "reference_lesions_26connected_wt", "reference_wt_volume_mm3", "flags", "warnings", "error",
)  # fmt: skip

RENAMED: Final = {
    LESION: "lesion_26connected_metastasis",
    "wt_volume_mm3": "metastasis_volume_mm3",
    "mean_probability_wt": "mean_probability_metastasis",
    "lesions_26connected_wt": "lesions_26connected_metastasis",
    "largest_lesion_wt_mm3": "largest_metastasis_mm3",
    "reference_lesions_26connected_wt": "reference_lesions_26connected_metastasis",
    "reference_wt_volume_mm3": "reference_metastasis_volume_mm3",
}
"""How the radiosurgery system's tables call these columns: its label 1 is a metastasis, without parts."""

LEFT_OUT: Final = frozenset(
    {"tc_volume_mm3", "et_volume_mm3", "rc_volume_mm3", "cores_26connected_tc", "touches_brain_edge"}
)
"""What that system doesn't know: parts of a tumour, and where the brain ends in a whole head."""

REGISTRATION_COLUMNS: Final = ("label_grid", "ct_shift_mm", "ct_rotation_degrees", "ct_overlap_share", "ct_gain")
"""What that system's table of cases has at the end: see `metseg.prepare.registration.Registration`."""

JOINT: Final = "; "


def lesions_csv(cases: Iterable[CaseReport]) -> str:
    """One row for each lesion of each case; what is not known is empty."""
    cases = tuple(cases)
    rows = (lesion_row(case, lesion) for case in cases for lesion in case.lesions)
    return _to_csv(*_in_words_of(common_system(cases), LESION_COLUMNS, rows))


def cases_csv(cases: Iterable[CaseReport]) -> str:
    """One row for each case; numbers that need a label map are empty where there is none or a blank one."""
    cases = tuple(cases)
    system = common_system(cases)
    columns, rows = _in_words_of(system, CASE_COLUMNS, map(case_row, cases))
    if system == "brats":
        return _to_csv(columns, rows)
    more = map(_registration_row, cases)
    return _to_csv((*columns, *REGISTRATION_COLUMNS), ((*row, *end) for row, end in zip(rows, more, strict=True)))


def lesion_flags(lesion: Lesion) -> tuple[str, ...]:
    """The words of the flags that one lesion deserves."""
    edge = (WORDS["brain-edge"],) if lesion.at_brain_edge else ()
    return (*edge, *((WORDS["low-agreement"],) if lesion.has_low_agreement else ()))


def lesion_row(case: CaseReport, lesion: Lesion) -> tuple[Cell, ...]:
    """A lesion in the order of LESION_COLUMNS."""
    return (
        case.case_id,
        lesion.number,
        lesion.voxels,
        lesion.wt_volume_mm3,
        lesion.tc_volume_mm3,
        lesion.et_volume_mm3,
        lesion.cores,
        lesion.longest_axial_diameter_mm,
        lesion.longest_3d_diameter_mm,
        _yes(lesion.is_measurable),
        *lesion.centroid_voxel,
        *lesion.centroid_ras_mm,
        *lesion.box_first_voxel,
        *lesion.box_last_voxel,
        *lesion.box_min_ras_mm,
        *lesion.box_max_ras_mm,
        lesion.finders,
        lesion.vote_share,
        lesion.entropy_bits,
        lesion.mean_probability,
        _yes(lesion.at_brain_edge),
        JOINT.join(lesion_flags(lesion)),
    )


def case_row(case: CaseReport) -> tuple[Cell, ...]:
    """A case in the order of CASE_COLUMNS."""
    record = case.record
    measured: tuple[Cell, ...] = (None,) * 7
    if case.shape is not None and record.outcome != "blank":
        largest = case.lesions[0].wt_volume_mm3 if case.lesions else 0.0
        volumes = (case.wt_volume_mm3, case.tc_volume_mm3, case.et_volume_mm3, case.rc_volume_mm3, largest)
        measured = (len(case.lesions), case.measurable_lesions, *volumes)
    reference = case.reference
    return (
        case.case_id,
        record.outcome,
        *measured,
        *(case.spacing_mm or (None, None, None)),
        JOINT.join(record.members),
        record.elapsed_s or None,
        case.peak_memory_mib,
        reference.lesions if reference else None,
        reference.wt_volume_mm3 if reference else None,
        JOINT.join(flag.words for flag in record.flags),
        JOINT.join(record.warnings),
        record.error,
    )


def _registration_row(case: CaseReport) -> tuple[Cell, ...]:
    """A case in the order of REGISTRATION_COLUMNS."""
    found = case.record.registration
    if found is None:
        return (case.label_grid, None, None, None, None)
    return (case.label_grid, found.shift_mm, found.rotation_degrees, found.overlap, found.gain)


def _in_words_of(
    system: SystemName, columns: Sequence[str], rows: Iterable[Sequence[Cell]]
) -> tuple[tuple[str, ...], Iterable[tuple[Cell, ...]]]:
    """A table as one system calls it."""
    if system == "brats":
        return tuple(columns), map(tuple, rows)
    kept = [place for place, name in enumerate(columns) if name not in LEFT_OUT]
    names = tuple(RENAMED.get(columns[place], columns[place]) for place in kept)
    return names, (tuple(row[place] for place in kept) for row in rows)


def _to_csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_text(cell) for cell in row])
    return stream.getvalue()


def _text(cell: Cell) -> str:
    """Floats to a tenth of a micrometre or of a per mille, never in scientific notation."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.4f}".rstrip("0").rstrip(".")
    return str(cell)


def _yes(value: bool | None) -> str | None:  # noqa: FBT001 - a value, not a switch
    return None if value is None else "yes" if value else "no"
