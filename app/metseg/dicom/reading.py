"""One DICOM file: its header as a dataset, its pixels as numbers."""

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.errors import InvalidDicomError

from metseg.dicom.tags import UNREADABLE, DicomFileError, find_uid, find_value, find_whole_number

logging.getLogger("pydicom").setLevel(logging.ERROR)  # what is wrong is said here, in our words

HINT_COPY: Final = "Copy or export the file again."

PLAIN: Final = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
    }
)
"""Transfer syntaxes that pydicom reads by itself."""

COMPRESSED: Final = frozenset(
    {
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
    }
)
"""Transfer syntaxes that SimpleITK's GDCM decodes."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the series and its dataset."""

    path: Path
    dataset: Any


def read_header(path: Path, keywords: Sequence[str] | None = None) -> SourceFile | None:
    """Reads what a file says before its pixels.

    Args:
        path: the file.
        keywords: the tags to read; None for all of them.

    Returns:
        None where the file is not DICOM.

    Raises:
        InputError: it can't be read, or is damaged.
    """
    tags = None if keywords is None else list(keywords)
    try:
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except InvalidDicomError:
        return None
    except OSError as error:
        raise DicomFileError(path.name, "can't be read", detail=str(error.strerror or error)) from error
    except UNREADABLE as error:
        raise DicomFileError(path.name, "damaged", detail=str(error), hint=HINT_COPY) from error
    return SourceFile(path, dataset)


def can_decode(dataset: Any) -> bool:
    """Whether `read_pixels` knows the transfer syntax of a file; True where the file states none."""
    syntax = find_uid(getattr(dataset, "file_meta", {}), "TransferSyntaxUID")
    return syntax is None or syntax in (PLAIN | COMPRESSED)


def read_pixels(file: SourceFile) -> NDArray[np.float32]:
    """A file's pixels in the units that its header promises (Hounsfield units of a CT).

    pydicom reads plain pixels and run lengths; SimpleITK's GDCM decodes JPEG, JPEG-LS and JPEG 2000.

    Returns:
        Shape (frames, rows, columns).

    Raises:
        InputError: the file is truncated or damaged, or its compression is not known.
    """
    if not can_decode(file.dataset):
        hint = "Export the series again, uncompressed."
        raise DicomFileError(file.path.name, "its compression can't be read", hint=hint)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(file.path)
            syntax = find_uid(dataset.file_meta, "TransferSyntaxUID")
            slopes = _find_slopes(dataset)
            if syntax in COMPRESSED:
                pixels = _undo_first_slope(_decode(file.path), slopes[0])
            else:
                pixels = np.asarray(dataset.pixel_array)
    except (*UNREADABLE, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise DicomFileError(file.path.name, "its pixels can't be read", detail=reason, hint=HINT_COPY) from error
    frames = pixels.reshape(-1, *pixels.shape[-2:]).astype(np.float32)
    for index, (slope, intercept) in enumerate(slopes):
        frames[index] = frames[index] * slope + intercept
    return frames


def _decode(path: Path) -> NDArray[Any]:
    import SimpleITK as sitk  # noqa: N813, PLC0415 - heavy

    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # noqa: FBT003 - its interface
    decoded: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    return decoded


def _undo_first_slope(pixels: NDArray[Any], first: tuple[float, float]) -> NDArray[Any]:
    """Stored values: GDCM has applied the first frame's slope to all frames, whatever the others state."""
    slope, intercept = first
    return pixels if first == (1.0, 0.0) else (pixels.astype(np.float64) - intercept) / slope


def _find_slopes(dataset: Any) -> list[tuple[float, float]]:
    """Slope and intercept of each frame."""
    frames = find_whole_number(dataset, "NumberOfFrames") or 1
    found = []
    for frame in range(frames):
        slope, intercept = (find_in_frame(dataset, key, frame) for key in ("RescaleSlope", "RescaleIntercept"))
        found.append((1.0 if not slope else float(slope), 0.0 if intercept is None else float(intercept)))
    return found


def find_in_frame(dataset: Any, keyword: str, frame: int = 0) -> Any | None:
    """A tag's value in a dataset itself, or in the functional groups of one frame.

    Returns:
        None where neither has a usable value.
    """
    value = find_value(dataset, keyword)
    if value is not None:
        return value
    for groups in _groups_of(dataset, frame):
        for element in groups:
            if element.VR == "SQ":
                for item in element.value:
                    if (value := find_value(item, keyword)) is not None:
                        return value
    return None


def _groups_of(dataset: Any, frame: int) -> Iterable[Any]:
    per_frame = find_value(dataset, "PerFrameFunctionalGroupsSequence") or ()
    yield from per_frame[frame : frame + 1]
    yield from find_value(dataset, "SharedFunctionalGroupsSequence") or ()
