"""What `import.json` says of images, series and the brain."""

from typing import Final

from metseg.dicom.import_json import BrainFacts, FindingFacts, ImageFacts, SeriesFacts
from metseg.dicom.pseudonyms import Pseudonyms
from metseg.dicom.recognition import Verdict
from metseg.dicom.stripping import FoundBrain
from metseg.dicom.tags import DicomFileError, find_uid
from metseg.errors import InputError
from metseg.files.case import Scan
from metseg.findings import Finding, FindingCode
from metseg.space.grid import Affine, Grid

NAMING_FILES: Final[frozenset[FindingCode]] = frozenset({"ignored-file", "unreadable", "left-out", "file-name"})
"""Findings whose words may hold a file's name, and with it an identifier: the log alone shows them."""


def describe_finding(item: Finding) -> FindingFacts:
    """A finding without files' names."""
    what = "see the log" if item.code in NAMING_FILES else item.what
    return FindingFacts(severity=item.severity, code=item.code, what=what)


def say_problem(error: InputError) -> str:
    """An error without the file's name."""
    return error.problem if isinstance(error, DicomFileError) else str(error)


def describe_image(item: Verdict, pseudonyms: Pseudonyms) -> ImageFacts:
    """An image of a series, before registration and writing."""
    stack = item.stack
    frame = find_uid(stack.first.dataset, "FrameOfReferenceUID")
    if stack.grid is None:
        raise ValueError(stack.problem)
    return ImageFacts(
        series=pseudonyms.of(stack.series_uid),
        study=pseudonyms.of(stack.study_uid),
        frame_of_reference=None if frame is None else pseudonyms.of(frame),
        part=stack.part,
        rule=item.rule,
        reason=item.reason,
        shape=stack.grid.shape,
        affine=_as_rows(stack.grid.affine),
        alignment=None,
        sha256="",
    )


def describe_series(item: Verdict, pseudonyms: Pseudonyms) -> SeriesFacts:
    """A series, taken or not."""
    return SeriesFacts(
        series=pseudonyms.of(item.stack.series_uid),
        part=item.stack.part,
        images=item.stack.images,
        modality=item.modality,
        is_chosen=item.is_chosen,
        rule=item.rule,
        reason=item.reason,
    )


def describe_brain(brain: FoundBrain, source: Scan) -> BrainFacts:
    """The brain's mask."""
    return BrainFacts(source=brain.source, volume_ml=float(brain.mask.sum()) * source.grid.voxel_volume_mm3 / 1000)


def describe_file(grid: Grid) -> ImageFacts:
    """An image of a NIfTI file."""
    return ImageFacts(
        series=None,
        study=None,
        frame_of_reference=None,
        part=0,
        rule="file",
        reason="named so by its file",
        shape=grid.shape,
        affine=_as_rows(grid.affine),
        alignment=None,
        sha256="",
    )


def _as_rows(affine: Affine) -> tuple[tuple[float, float, float, float], ...]:
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in affine)
