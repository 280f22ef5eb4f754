"""What DICOM objects say of their source images: their tags, complete as the standard asks, the user's files untouched.

Tags that the standard lets be empty (type 2) are left empty where the source has no value. The images' own identifiers
can't be invented: an object without them points nowhere.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from highdicom import SpecificCharacterSetValues
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pydicom.uid import generate_uid
from pydicom.valuerep import DA, TM, DSfloat

from metseg.dicom.planes import Plane, is_multi_frame
from metseg.dicom.reading import SourceFile
from metseg.dicom.tags import (
    NO_VALUE,
    UNREADABLE,
    find_uid,
    find_value,
    find_whole_number,
    name_tag,
    refuse_tag,
)
from metseg.errors import InputError

MAY_BE_EMPTY: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
"""Type 2 tags of an object that are its source's (DICOM PS3.3, C.7.1.1, C.7.2.1, C.7.4.1)."""

SEXES: Final = ("M", "F", "O")

LOSSY: Final = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
"""What a Segmentation must say where its source was compressed with loss."""

OWN_GROUPS: Final = (0x0028, 0x5200, 0x7FE0)
"""Tags about pixels and frames: the Segmentation has its own."""

UTF_8: Final = "ISO_IR 192"

MAX_SERIES_NUMBER: Final = 2**30
"""Larger ones, and negative ones, are left aside: the Segmentation's own number is a sum."""


def describe_sources(
    files: Sequence[SourceFile], planes: Sequence[Plane], step_mm: float | None
) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Describes the images of a series for a Segmentation on them.

    Args:
        files: in the slices' order, or the one multi-frame image.
        planes: of the slices in this order; of a multi-frame image in the order of its frames.
        step_mm: from slice to slice, across them; None for a single slice.

    Returns:
        A new dataset per file, and in words what was filled or left out.

    Raises:
        InputError: a tag is missing that nothing can stand for.
    """
    remarks: list[str] = []
    images = [_carry_subject(files[0].dataset, remarks), *(Dataset() for _ in files[1:])]
    study = _agree(files, "StudyInstanceUID", is_required=True)
    frame = _agree(files, "FrameOfReferenceUID", is_required=False)
    series = find_uid(files[0].dataset, "SeriesInstanceUID")
    if frame is None:
        frame = _make_frame_of_reference(f"{study} {series}")
        remarks.append(
            f"{name_tag('FrameOfReferenceUID')} is missing: what is written gets one of its own, and viewers must "
            "find its place by the images it refers to"
        )
    thickness_mm = _choose_thickness(files[0], planes, step_mm, remarks)
    for image, file in zip(images, files, strict=True):
        for keyword in ("SOPClassUID", "SOPInstanceUID"):
            setattr(image, keyword, _find_identity(file, keyword, remarks))
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.Rows, image.Columns = planes[0].shape
    _refuse_twins(images, files)
    if is_multi_frame(files[0].dataset):
        _lay_frames(images[0], planes, thickness_mm)
    else:
        for image, plane in zip(images, planes, strict=True):
            image.ImageOrientationPatient = list(planes[0].orientation)
            image.ImagePositionPatient = list(plane.position_mm)
            image.PixelSpacing, image.SliceThickness = list(planes[0].spacing_mm), thickness_mm
    return tuple(images), tuple(dict.fromkeys(remarks))


def _carry_subject(dataset: Any, remarks: list[str]) -> Any:
    """What the first image says of patient, study and equipment, as far as it can be written again."""
    subject, lost = Dataset(), []
    kept = {*LOSSY} if find_value(dataset, LOSSY[0]) == "01" else set()
    for tag in dataset.keys():  # noqa: SIM118 - a dataset iterates over elements, and reads them
        if tag.is_private or (tag.group in OWN_GROUPS and keyword_for_tag(tag) not in kept):
            continue
        if not _can_be_written(dataset, tag):
            lost.append(keyword_for_tag(tag))
        elif keyword_for_tag(tag) not in MAY_BE_EMPTY:
            subject.add(deepcopy(dataset[tag]))
    empty = []
    for keyword in MAY_BE_EMPTY:
        value = _find_usable(dataset, keyword)
        if value is None and (keyword not in dataset or find_value(dataset, keyword) is not None or keyword in lost):
            empty.append(keyword)
        setattr(subject, keyword, "" if value is None else value)
    subject.SpecificCharacterSet = _choose_character_set(dataset)
    number = find_whole_number(dataset, "SeriesNumber") or 0
    if "SeriesNumber" in subject:
        del subject.SeriesNumber
    subject.SeriesNumber = number if 0 <= number <= MAX_SERIES_NUMBER else 0
    if empty:
        remarks.append(f"without a usable value, left empty: {_list_tags(empty)}")
    if lost := [keyword for keyword in lost if keyword and keyword not in MAY_BE_EMPTY]:
        remarks.append(f"can't be read, left out: {_list_tags(lost)}")
    return subject


def _list_tags(keywords: Iterable[str]) -> str:
    return ", ".join(map(name_tag, keywords))


def _can_be_written(dataset: Any, tag: Any) -> bool:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    try:
        alone = Dataset()
        alone.add(dataset[tag])
        write_dataset(buffer, alone, UTF_8)
    except UNREADABLE:
        return False
    return True


def _find_usable(dataset: Any, keyword: str) -> Any | None:
    """The value of a tag that may be empty, the first of several; None where it has none, or a wrong one."""
    value = find_value(dataset, keyword)
    if isinstance(value, MultiValue):
        value = next(part for part in value if str(part).strip())
    try:
        if keyword.endswith("Date"):
            return DA(value) or None
        if keyword.endswith("Time"):
            return TM(value) or None
    except UNREADABLE:
        return None
    return None if keyword == "PatientSex" and value not in SEXES else value


def _choose_character_set(dataset: Any) -> str:
    """The source's character set where it is one without extensions, else UTF-8, which holds every text."""
    stated = find_uid(dataset, "SpecificCharacterSet")
    known = {item.value for item in SpecificCharacterSetValues if item.value.startswith("ISO_IR")}
    return stated if stated in known else UTF_8


def _agree(files: Sequence[SourceFile], keyword: str, *, is_required: bool) -> str | None:
    """The identifier that all files share; where it is not required, some may lack it, or all of them."""
    found = [find_uid(file.dataset, keyword) for file in files]
    if is_required and None in found:
        refuse_tag(files[found.index(None)].path, keyword)
    values = sorted({value for value in found if value is not None})
    if len(values) > 1:
        raise InputError(
            f"DICOM series {files[0].path.parent}: {len(values)} values of {name_tag(keyword)}, expected one",
            hint="Name a folder that holds the source image's series alone.",
        )
    return values[0] if values else None


def _make_frame_of_reference(name: str) -> str:
    """A frame of reference for a series that states none, the same for each segmentation on it.

    That is lawful: a new identifier claims no relation to other coordinates. A segmentation lies on its source by the
    images that it refers to.
    """
    return str(generate_uid(entropy_srcs=["metseg frame of reference", name]))


def _find_identity(file: SourceFile, keyword: str, remarks: list[str]) -> str:
    """Class or identifier of an image: its own, or that of the file's meta information, which must be the same."""
    value = find_uid(file.dataset, keyword)
    if value is not None:
        return value
    value = find_uid(getattr(file.dataset, "file_meta", {}), f"MediaStorage{keyword}")
    if value is None:
        refuse_tag(file.path, keyword)
    remarks.append(f"{name_tag(keyword)} taken from the file's meta information")
    return value


def _refuse_twins(images: Sequence[Any], files: Sequence[SourceFile]) -> None:
    known: dict[str, Path] = {}
    for image, file in zip(images, files, strict=True):
        other = known.setdefault(str(image.SOPInstanceUID), file.path)
        if other != file.path:
            refuse_tag(file.path, "SOPInstanceUID", f"is that of {other.name} too")


def _choose_thickness(file: SourceFile, planes: Sequence[Plane], step_mm: float | None, remarks: list[str]) -> Any:
    """The slices' thickness: the file's, else the way from slice to slice."""
    stated = planes[0].thickness_mm
    if stated is not None:
        return stated
    if step_mm is None:
        refuse_tag(file.path, "SliceThickness", f"{NO_VALUE}, and a single slice has no neighbour to measure to")
    remarks.append(f"{name_tag('SliceThickness')} derived from the positions")
    return DSfloat(step_mm, auto_format=True)


def _lay_frames(image: Any, planes: Sequence[Plane], thickness_mm: Any) -> None:
    """The functional groups that say where the frames lie."""
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(planes[0].orientation)
    measures.PixelSpacing, measures.SliceThickness = list(planes[0].spacing_mm), thickness_mm
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    image.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for plane in planes:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = list(plane.position_mm)
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    image.PerFrameFunctionalGroupsSequence = frames
    image.NumberOfFrames = len(frames)
