"""A case's reference: where it lies, and how it comes to the network's grid."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.header import ImageError
from metseg.files.label_sets import require_clear_files
from metseg.files.listing import find_file
from metseg.files.names import REFERENCE_KIND
from metseg.files.read import LabelImage, read_label_map
from metseg.findings import printable
from metseg.labels import LabelConvention, LabelMap, Regions, tells_et_from_rc
from metseg.space.grid import grid_difference
from metseg.space.resampling import Resampling, labels_to_network
from metseg.systems import system_of_regions


def read_reference(files: CaseFiles, resampling: Resampling, regions: Regions) -> LabelMap:
    """The case's reference on the network's grid.

    Args:
        files: the case.
        resampling: of its images.
        regions: of the map.

    Raises:
        InputError: there is none, it can't be read, or it lies on another grid than the images.
    """
    reference = read_reference_map(files)
    difference = grid_difference(reference.grid, resampling.source)
    if difference:
        raise InputError(
            f"case {printable(files.case_id)}: its reference's grid is not the images': {difference}",
            hint="Export the reference on the grid of t1c.",
        )
    return bring_to_network(reference.labels, resampling, regions)


def settle_labels(
    cases: Sequence[CaseFiles], regions: Regions, convention: LabelConvention | None
) -> tuple[CaseFiles, ...]:
    """The cases, of which it is known what label 4 of their references means; each folder of cases is judged apart.

    Args:
        cases: one without reference is left to whoever reads it.
        regions: what the references are read for.
        convention: what the user says.

    Raises:
        InputError: label 4 of a folder's references could mean two things (`metseg.files.label_sets`).
    """
    if not tells_et_from_rc(regions):
        return tuple(cases)
    for folder in dict.fromkeys(files.folder.parent for files in cases):
        references = (find_reference_if_any(files) for files in cases if files.folder.parent == folder)
        require_clear_files((path for path in references if path), f"references in {folder}", convention)
    return tuple(replace(files, convention=convention) for files in cases)


def bring_to_network(labels: LabelMap, resampling: Resampling, regions: Regions) -> LabelMap:
    """A label map of any program in the regions' labels on the network's grid (`System.unify_labels`)."""
    return labels_to_network(system_of_regions(regions.names).unify_labels(labels), resampling, regions)


def read_reference_map(files: CaseFiles) -> LabelImage:
    """The case's reference as it is in its file.

    Raises:
        InputError: there is none, or it can't be read; names the case and the file.
    """
    try:
        return read_label_map(find_reference(files), convention=files.convention)
    except ImageError as error:
        raise ImageError(error.code, f"case {files.case_id}: {error}", hint=error.hint) from None


def find_reference(files: CaseFiles) -> Path:
    """The case's reference.

    Raises:
        InputError: there is none, or several can be meant.
    """
    path = find_reference_if_any(files)
    if path is None:
        name = printable(files.case_id)
        raise InputError(
            f"case {name}: no {name}-{REFERENCE_KIND}.nii.gz in {printable(str(files.folder))}",
            hint="Training needs a reference.",
        )
    return path


def find_reference_if_any(files: CaseFiles) -> Path | None:
    """The same; None where there is none."""
    return find_file(files.folder, files.case_id, REFERENCE_KIND)
