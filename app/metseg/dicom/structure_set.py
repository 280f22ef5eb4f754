"""A DICOM RT Structure Set on a series: closed planar contours in the planes of its slices, checked by reading back.

Attributes follow DICOM PS3.3: A.19.3, C.8.8.1, C.8.8.5, C.8.8.6 and C.8.8.8. What planning systems are known to refuse
decides the rest (docs/decisions/061-rtstruct.md).
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

import metseg
from metseg.dicom.contours import Polygon, trace_mask
from metseg.dicom.placing import Placed
from metseg.dicom.planes import Plane
from metseg.dicom.series import Series
from metseg.dicom.targets import MM3_PER_CC, NO_TARGET

Voxels = frozenset[tuple[int, int, int]]
"""Column, row and slice of each."""

STUDY_CLASS: Final = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management: retired, and still the class that every planning system writes for a study."""

COLOURS: Final = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Okabe and Ito's palette, in turn."""

DECIMALS: Final = 6
"""Of a coordinate in millimetres: at most 13 of the 16 characters of a decimal string (Eclipse refuses longer ones)."""

SUBJECT: Final = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
)
"""Tags of the series' own images: patient, study and frame of reference."""

PLANE_TOLERANCE_MM: Final = 1e-4
"""How far a contour may lie from its image's plane when it is read back."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure of a set (an ROI, as the standard calls it).

    Attributes:
        name: of the ROI.
        description: in words.
        interpreted_type: such as GTV; may be empty.
        volume_mm3: of the lesion, as the label map states it.
        placed: its voxels on the series' grid; None for one without contours.
    """

    name: str
    description: str
    interpreted_type: str
    volume_mm3: float
    placed: Placed | None

    def list_voxels(self) -> Voxels:
        """Those that its contours enclose."""
        if self.placed is None:
            return frozenset()
        places = np.argwhere(self.placed.mask) + [side.start for side in self.placed.box]
        return frozenset((column, row, index) for column, row, index in places.tolist())


NOTHING_FOUND: Final = Structure("no lesion found", "The label map shows no lesion.", NO_TARGET, 0.0, None)
"""What a set without lesions holds: one without any structure is not valid (PS3.3, C.8.8.5)."""


def encode_structure_set(structures: Sequence[Structure], series: Series) -> bytes:
    """Writes structures as an RT Structure Set, in implicit VR little endian.

    Args:
        structures: at least one.
        series: its images are referred to, each contour to the image of its slice.
    """
    data = Dataset()
    _describe_subject(data, series)
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, generate_uid(prefix=None)
    _describe_set(data, series)
    numbered = list(enumerate(structures, start=1))
    data.StructureSetROISequence = [_name_structure(number, structure, series) for number, structure in numbered]
    data.ROIContourSequence = [_draw_structure(number, structure.placed, series) for number, structure in numbered]
    data.RTROIObservationsSequence = [_observe_structure(number, structure) for number, structure in numbered]
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # explicit VR ends a contour at 65534 bytes
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _describe_subject(data: Any, series: Series) -> None:
    source = series.images[0]
    for keyword in SUBJECT:
        if keyword in source:
            data[keyword] = source[keyword]


def _describe_set(data: Any, series: Series) -> None:
    """Modules RT Series, General Equipment, Structure Set and Approval; type 2 tags without a value are empty."""
    now = datetime.now(UTC).astimezone()
    data.Modality, data.SeriesInstanceUID = "RTSTRUCT", generate_uid(prefix=None)
    data.SeriesNumber, data.InstanceNumber = int(series.images[0].SeriesNumber) + 1001, 1
    data.SeriesDescription = "metseg: brain metastases (research, not for diagnosis)"
    data.OperatorsName = ""
    data.Manufacturer, data.ManufacturerModelName = "The metseg developers", "metseg"
    data.SoftwareVersions = metseg.__version__
    data.StructureSetLabel, data.StructureSetName = "metseg", "brain metastases"
    data.StructureSetDescription = "Drawn by software for research; a physician has not looked at it."
    data.StructureSetDate, data.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    data.ApprovalStatus = "UNAPPROVED"
    images = [_refer_to(series, index) for index in range(len(series.planes))]
    inner = _make_item(SeriesInstanceUID=series.images[0].SeriesInstanceUID, ContourImageSequence=images)
    study = _make_item(
        ReferencedSOPClassUID=STUDY_CLASS,
        ReferencedSOPInstanceUID=series.images[0].StudyInstanceUID,
        RTReferencedSeriesSequence=[inner],
    )
    frame = _make_item(FrameOfReferenceUID=series.images[0].FrameOfReferenceUID, RTReferencedStudySequence=[study])
    data.ReferencedFrameOfReferenceSequence = [frame]


def _refer_to(series: Series, index: int) -> Any:
    """Names the image, or the frame of the multi-frame image, of a slice."""
    image = series.images[0 if series.frames else index]
    item = _make_item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
    if series.frames:
        item.ReferencedFrameNumber = series.frames[index]
    return item


def _name_structure(number: int, structure: Structure, series: Series) -> Any:
    return _make_item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=series.images[0].FrameOfReferenceUID,
        ROIName=structure.name,
        ROIDescription=structure.description,
        ROIVolume=f"{structure.volume_mm3 / MM3_PER_CC:.6g}",
        ROIGenerationAlgorithm="AUTOMATIC",
        ROIGenerationDescription=f"metseg {metseg.__version__}",
    )


def _observe_structure(number: int, structure: Structure) -> Any:
    return _make_item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIInterpretedType=structure.interpreted_type,
        ROIInterpreter="",
    )


def _draw_structure(number: int, placed: Placed | None, series: Series) -> Any:
    drawn = _make_item(ReferencedROINumber=number, ROIDisplayColor=list(COLOURS[(number - 1) % len(COLOURS)]))
    if placed is None:
        return drawn
    columns, rows, slices = placed.box
    corner = np.array([columns.start, rows.start], dtype=np.float64)
    drawn.ContourSequence = [
        _make_item(
            ContourImageSequence=[_refer_to(series, slices.start + index)],
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=len(polygon),
            ContourData=_spell(_to_patient(corner + polygon, series.planes[slices.start + index])),
        )
        for index in range(placed.mask.shape[2])
        for polygon in trace_mask(placed.mask[:, :, index])
    ]
    return drawn


def _make_item(**tags: Any) -> Any:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return item


def _to_patient(polygon: Polygon, plane: Plane) -> NDArray[np.float64]:
    """Points of a slice in DICOM's patient axes, shape (points, 3), in millimetres."""
    origin, across, down = _read_axes(plane)
    points: NDArray[np.float64] = origin + polygon[:, :1] * across + polygon[:, 1:] * down
    return points


def _read_axes(plane: Plane) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The centre of a slice's first pixel, and the way to the next column and to the next row."""
    row, column = np.array(plane.orientation, dtype=np.float64).reshape(2, 3)
    row_mm, column_mm = (float(side) for side in plane.spacing_mm)
    return np.array(plane.position_mm, dtype=np.float64), row * column_mm, column * row_mm


def _spell(points: NDArray[np.float64]) -> list[str]:
    """Coordinates as decimal strings."""
    rounded = points.ravel().round(DECIMALS) + 0.0  # no negative zero
    return [f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".") for value in rounded.tolist()]


def decode_structure_set(content: bytes, series: Series) -> tuple[Voxels, ...]:
    """Voxels of each structure of a structure set's bytes, in the order of their numbers.

    Every contour is filled on the image that it refers to; those of one image are combined by exclusive or.

    Raises:
        ValueError: a contour does not lie in the plane of its image.
    """
    slice_of = {_name_image(_refer_to(series, index)): index for index in range(len(series.planes))}
    return tuple(
        _fill_contours(drawn.get("ContourSequence", ()), series, slice_of)
        for drawn in dcmread(io.BytesIO(content)).ROIContourSequence
    )


def _fill_contours(contours: Sequence[Any], series: Series, slice_of: Mapping[tuple[str, int], int]) -> Voxels:
    found: set[tuple[int, int, int]] = set()
    for contour in contours:
        index = slice_of[_name_image(contour.ContourImageSequence[0])]
        points = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
        found ^= {(column, row, index) for column, row in _fill(points, series.planes[index])}
    return frozenset(found)


def _name_image(item: Any) -> tuple[str, int]:
    return str(item.ReferencedSOPInstanceUID), int(item.get("ReferencedFrameNumber", 0))


def _fill(points: NDArray[np.float64], plane: Plane) -> list[tuple[int, int]]:
    """The pixels, by column and row, whose centres lie in a contour."""
    from skimage.draw import polygon  # noqa: PLC0415 - slow to import

    origin, across, down = _read_axes(plane)
    normal = np.cross(across, down)
    axes = np.stack([across, down, normal / np.linalg.norm(normal)], axis=1)
    columns, rows, off_mm = np.linalg.solve(axes, (points - origin).T)
    if np.abs(off_mm).max() > PLANE_TOLERANCE_MM:
        raise ValueError(f"a contour lies {np.abs(off_mm).max()} mm from its image's plane")
    return list(zip(*(axis.tolist() for axis in polygon(columns, rows)), strict=True))
