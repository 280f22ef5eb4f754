"""A label map as a DICOM Segmentation object on a series whose grid it lies on."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import highdicom as hd
import numpy as np
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

import metseg
from metseg.dicom.placing import turn_onto
from metseg.dicom.series import Series
from metseg.dicom.tags import UNREADABLE, name_tag
from metseg.errors import InputError
from metseg.labels import LabelMap
from metseg.space.grid import Grid
from metseg.systems import LabelKind, System

Frames = NDArray[np.uint8]
"""Shape (slices, rows, columns)."""

CATEGORY: Final = ("49755003", "SCT", "Morphologically Abnormal Structure")


def _list_segments(frames: Frames, system: System) -> list[int]:
    """The labels of the system's nested regions, and of its others those that occur."""
    return [label for label in system.label_kinds if label in system.regions.whole.labels or (frames == label).any()]


def count_voxels(frames: Frames, system: System) -> dict[str, int]:
    """The number of voxels of each segment, by the segment's name."""
    return {
        system.label_kinds[label].dicom_name: int((frames == label).sum()) for label in _list_segments(frames, system)
    }


def arrange_frames(labels: LabelMap, grid: Grid, series: Series) -> Frames:
    """The label map in the order of the series' slices, rows and columns.

    Raises:
        InputError: the grids differ by more than the order and direction of axes.
    """
    turned, difference = turn_onto(labels, grid, series.grid)
    if difference:
        raise InputError(
            f"label map and DICOM series don't lie on one grid: {difference}",
            hint="Give the series that the case's t1c was converted from, or name the way to another one "
            "(--registration); label maps in atlas space must first be brought back.",
        )
    return to_frames(turned)


def to_frames(labels: LabelMap) -> Frames:
    """A label map on the series' grid as slices, rows and columns."""
    return np.ascontiguousarray(labels.transpose(2, 1, 0))


def encode_segmentation(frames: Frames, series: Series, system: System) -> bytes:
    """A binary DICOM Segmentation with one segment per label of the system; that of a cavity only where it occurs.

    Raises:
        InputError: no Segmentation can be made on images of this class.
    """
    try:
        segmentation = _build_segmentation(frames, series, system)
    except UNREADABLE as error:  # all else that highdicom reads is ours
        image_class = series.images[0].SOPClassUID
        raise InputError(
            f"DICOM series {series.path}: no Segmentation can be made on images of {name_tag('SOPClassUID')} "
            f"{image_class}, {image_class.name}: {error}",
            hint="Export the volume as MR or CT images of one frame, or as one enhanced image.",
        ) from error
    buffer = io.BytesIO()
    segmentation.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _build_segmentation(frames: Frames, series: Series, system: System) -> Any:
    algorithm = hd.AlgorithmIdentificationSequence(
        name="metseg", version=metseg.__version__, family=_make_code(("123109", "DCM", "Artificial Intelligence"))
    )
    return hd.seg.Segmentation(
        source_images=list(series.images),
        pixel_array=_arrange_as_filed(frames, series),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=_describe_segments(_list_segments(frames, system), algorithm, system.label_kinds),
        series_instance_uid=hd.UID(),
        series_number=int(series.images[0].SeriesNumber) + 1000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="The metseg developers",
        manufacturer_model_name="metseg",
        software_versions=metseg.__version__,
        device_serial_number="none",
        content_label="METASTASES",
        series_description="metseg: brain metastases (research, not for diagnosis)",
        omit_empty_frames=bool(frames.any()),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )


def decode_segmentation(content: bytes, series: Series) -> Frames:
    """Labels of a Segmentation's bytes on the slices of the series."""
    segmentation = hd.seg.Segmentation.from_dataset(dcmread(io.BytesIO(content)), copy=False)
    uids = [str(image.SOPInstanceUID) for image in series.images]
    if series.frames:
        pixels = segmentation.get_pixels_by_source_frame(
            uids[0], series.frames, combine_segments=True, assert_missing_frames_are_empty=True
        )
    else:
        pixels = segmentation.get_pixels_by_source_instance(
            uids, combine_segments=True, assert_missing_frames_are_empty=True
        )
    return np.asarray(pixels, dtype=np.uint8)


def _arrange_as_filed(frames: Frames, series: Series) -> Frames:
    """The slices in the order of the source's frames, which a multi-frame image files in any."""
    if not series.frames:
        return frames
    filed = np.empty_like(frames)
    filed[np.array(series.frames) - 1] = frames
    return filed


def _describe_segments(labels: Sequence[int], algorithm: Any, kinds: Mapping[int, LabelKind]) -> list[Any]:
    return [
        hd.seg.SegmentDescription(
            segment_number=label,
            segment_label=kinds[label].dicom_name,
            segmented_property_category=_make_code(CATEGORY),
            segmented_property_type=_make_code(kinds[label].dicom_code),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for label in labels
    ]


def _make_code(code: tuple[str, str, str]) -> Any:
    value, scheme, meaning = code
    return CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)
