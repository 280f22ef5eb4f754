"""`lesions.csv` and `cases.csv`: one row per lesion, one row per case, units in the column names."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from metseg.findings import WORDS
from metseg.report.case_report import CaseReport
from metseg.report.lesions import Lesion
from metseg.systems import System, common_system

Cell = str | int | float | None

REGISTRATION_COLUMNS: Final = ("label_grid", "ct_shift_mm", "ct_rotation_degrees", "ct_overlap_share", "ct_gain")
"""The last columns of `cases.csv` where images are registered: see `metseg.prepare.registration.Registration`."""

JOINT: Final = "; "


def format_lesions(cases: Iterable[CaseReport]) -> str:
    """`lesions.csv`: one row for each lesion of each case; what is not known is empty."""
    cases = tuple(cases)
    system = common_system(case.system for case in cases)
    rows = (fill_lesion_row(case, lesion, system) for case in cases for lesion in case.lesions)
    return _format_csv(name_lesion_columns(system), rows)


def format_cases(cases: Iterable[CaseReport]) -> str:
    """`cases.csv`: one row per case; numbers that need a label map are empty where there is none or a blank one."""
    cases = tuple(cases)
    system = common_system(case.system for case in cases)
    return _format_csv(name_case_columns(system), (fill_case_row(case, system) for case in cases))


def list_lesion_flags(lesion: Lesion) -> tuple[str, ...]:
    """The words of the flags that one lesion deserves."""
    edge = (WORDS["brain-edge"],) if lesion.at_brain_edge else ()
    return (*edge, *((WORDS["low-agreement"],) if lesion.has_low_agreement else ()))


def name_lesion_columns(system: System) -> tuple[str, ...]:
    """The columns of `lesions.csv`.

    The name of the second one says what a lesion is: a component of the whole region whose voxels share a face, an edge
    or a corner.
    """
    whole, core = system.regions.whole.name.lower(), system.regions.core.name.lower()
    names = (
        "case_id", f"lesion_26connected_{whole}", "voxels",
        *(f"{region.name.lower()}_volume_mm3" for region in system.regions.nested),
        *((f"cores_26connected_{core}",) if system.has_parts else ()),
        "longest_axial_diameter_mm", "longest_3d_diameter_mm", "measurable_from_10_mm",
        "centroid_x_voxel", "centroid_y_voxel", "centroid_z_voxel",
        "centroid_r_mm", "centroid_a_mm", "centroid_s_mm",
        "box_first_x_voxel", "box_first_y_voxel", "box_first_z_voxel",
        "box_last_x_voxel", "box_last_y_voxel", "box_last_z_voxel",
        "box_min_r_mm", "box_min_a_mm", "box_min_s_mm", "box_max_r_mm", "box_max_a_mm", "box_max_s_mm",
        "finders_members", "vote_share", "vote_entropy_bits", f"mean_probability_{whole}",
        *(("touches_brain_edge",) if system.is_stripped else ()),
        "flags",
    )  # fmt: skip
    return _rename(names, system)


def fill_lesion_row(case: CaseReport, lesion: Lesion, system: System) -> tuple[Cell, ...]:
    """A lesion in the order of `name_lesion_columns`."""
    return (
        case.case_id,
        lesion.number,
        lesion.voxels,
        lesion.volume_mm3,
        *(lesion.part_volumes_mm3.get(part.name) for part in system.regions.nested[1:]),
        *((lesion.cores,) if system.has_parts else ()),
        lesion.longest_axial_diameter_mm,
        lesion.longest_3d_diameter_mm,
        _answer(lesion.is_measurable),
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
        *((_answer(lesion.at_brain_edge),) if system.is_stripped else ()),
        JOINT.join(list_lesion_flags(lesion)),
    )


def name_case_columns(system: System) -> tuple[str, ...]:
    """The columns of `cases.csv`."""
    whole = system.regions.whole.name.lower()
    names = (
        "case_id", "outcome", f"lesions_26connected_{whole}", "measurable_lesions_from_10_mm",
        *(f"{name.lower()}_volume_mm3" for name in system.regions.names), f"largest_lesion_{whole}_mm3",
        "voxel_x_mm", "voxel_y_mm", "voxel_z_mm", "members", "elapsed_s", "peak_memory_mib",
        f"reference_lesions_26connected_{whole}", f"reference_{whole}_volume_mm3", "flags", "warnings", "error",
        *(REGISTRATION_COLUMNS if system.is_registered else ()),
    )  # fmt: skip
    return _rename(names, system)


def fill_case_row(case: CaseReport, system: System) -> tuple[Cell, ...]:
    """A case in the order of `name_case_columns`."""
    record = case.record
    reference = case.reference
    return (
        case.case_id,
        record.outcome,
        *_list_measures(case, system),
        *(case.spacing_mm or (None, None, None)),
        JOINT.join(record.members),
        record.elapsed_s or None,
        case.peak_memory_mib,
        reference.lesions if reference else None,
        reference.volume_mm3 if reference else None,
        JOINT.join(note.words for note in record.notes),
        JOINT.join(warning.what for warning in record.warnings),
        record.error,
        *(_list_registration(case) if system.is_registered else ()),
    )


def _list_measures(case: CaseReport, system: System) -> tuple[Cell, ...]:
    """Numbers of lesions, the regions' volumes, and the largest lesion's; empty where there is nothing to measure."""
    others = [region.name for region in system.regions if region is not system.regions.whole]
    if not case.is_measured:
        return (None,) * (4 + len(others))
    largest = case.lesions[0].volume_mm3 if case.lesions else None
    volumes = (case.volume_mm3, *(case.volumes_mm3.get(name) for name in others))
    return (len(case.lesions), case.measurable_lesions, *volumes, largest)


def _list_registration(case: CaseReport) -> tuple[Cell, ...]:
    """A case in the order of REGISTRATION_COLUMNS."""
    found = case.record.registration
    if found is None:
        return (case.label_grid, None, None, None, None)
    return (case.label_grid, found.shift_mm, found.rotation_degrees, found.overlap, found.gain)


def _rename(names: Iterable[str], system: System) -> tuple[str, ...]:
    return tuple(system.column_names.get(name, name) for name in names)


def _format_csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_format_cell(cell) for cell in row])
    return stream.getvalue()


def _format_cell(cell: Cell) -> str:
    """Floats to a tenth of a micrometre or of a per mille, never in scientific notation."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.4f}".rstrip("0").rstrip(".")
    return str(cell)


def _answer(value: bool | None) -> str | None:  # noqa: FBT001 - a value, not a switch
    return None if value is None else "yes" if value else "no"
