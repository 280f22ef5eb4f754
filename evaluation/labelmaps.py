"""Label maps on disk: reading them, and telling whether two lie on the same grid."""

import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from evaluation.joint_box import Spacing, check_labels
from metseg.errors import InputError
from metseg.space.grid import Affine

SPACING_TOLERANCE = 1e-3
"""Voxel sides may differ by this share: headers store them as rounded 32-bit floats."""

DIRECTION_TOLERANCE = 1e-2
"""Direction cosines may differ by this much (about half a degree): qform and sform round differently."""

ORIGIN_TOLERANCE_VOXELS = 0.1
"""Origins further apart than this are worth a warning; the official scorers never look at them."""

_UNREADABLE = (
    OSError, EOFError, zlib.error, ValueError, OverflowError, ImageFileError, HeaderDataError, WrapStructError
)  # fmt: skip
"""What nibabel raises where a file is no image, is cut short, or has a header that can't be."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabelMapHeader:
    """What a label map's header says.

    Attributes:
        path: the file.
        shape: voxels along each axis, (x, y, z).
        spacing_mm: voxel size as the header stores it, which is what the official scorers multiply by.
        affine: voxel indices to RAS+ millimetres.
    """

    path: Path
    shape: tuple[int, ...]
    spacing_mm: Spacing
    affine: Affine

    @property
    def orientation(self) -> str:
        """Where the axes point: LPS, RAS, ..."""
        return "".join(code or "?" for code in nib.aff2axcodes(self.affine))


def read_header(path: Path) -> LabelMapHeader:
    """Reads a label map's header alone.

    Raises:
        InputError: no NIfTI file, not three-dimensional, or a header without usable voxel size or affine.
    """
    return _describe(path, _open(path))


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Reads a label map: shape (x, y, z), labels 0..4, as stored (no reorientation).

    Raises:
        InputError: unreadable, or a value is not a label; the message lists the values.
    """
    image = _open(path)
    header = _describe(path, image)
    try:
        values: NDArray[Any] = np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        raise InputError(f"{path}: the image data can't be read: {error}", hint="is the file complete?") from error
    return check_labels(values.reshape(header.shape, order="F"), str(path))


def check_same_grid(reference: LabelMapHeader, prediction: LabelMapHeader) -> None:
    """Makes sure that two maps can be compared voxel by voxel.

    Raises:
        InputError: names both files and each thing that differs: shape, spacing, orientation.
    """
    differences = []
    if reference.shape != prediction.shape:
        differences.append(f"shape {reference.shape} against {prediction.shape}")
    if not np.allclose(reference.spacing_mm, prediction.spacing_mm, rtol=SPACING_TOLERANCE, atol=0):
        differences.append(f"spacing {_millimetres(reference)} against {_millimetres(prediction)}")
    if reference.orientation != prediction.orientation:
        differences.append(f"orientation {reference.orientation} against {prediction.orientation}")
    elif not np.allclose(_directions(reference), _directions(prediction), rtol=0, atol=DIRECTION_TOLERANCE):
        differences.append(f"orientation {reference.orientation} in both, but the axes point in different directions")
    if differences:
        raise InputError(
            f"the grids of {reference.path} (reference) and {prediction.path} (prediction) differ: "
            + "; ".join(differences),
            hint="write the prediction on the grid of the case's own images, with their header",
        )
    if reference.spacing_mm != prediction.spacing_mm:
        _log.warning("%s: voxel size %s is not bit for bit that of %s, %s: the official 2026 scorer refuses it",
                     prediction.path, prediction.spacing_mm, reference.path, reference.spacing_mm)  # fmt: skip
    offset = np.abs(reference.affine[:3, 3] - prediction.affine[:3, 3]) / min(reference.spacing_mm)
    if offset.max() > ORIGIN_TOLERANCE_VOXELS:
        _log.warning("%s: origin %.1f voxels away from that of %s; scored voxel by voxel, as the official scorers do",
                     prediction.path, offset.max(), reference.path)  # fmt: skip


def _open(path: Path) -> Any:
    try:
        return nib.load(path)
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable NIfTI file: {error}") from error


def _describe(path: Path, image: Any) -> LabelMapHeader:
    shape = tuple(int(side) for side in image.shape)
    while len(shape) > 3 and shape[-1] == 1:  # noqa: PLR2004 - some writers add a fourth axis of one
        shape = shape[:-1]
    if len(shape) != 3:  # noqa: PLR2004
        raise InputError(f"{path}: a label map has three axes: found shape {image.shape}")
    x, y, z = (float(side) for side in image.header.get_zooms()[:3])
    if not all(np.isfinite(side) and side > 0 for side in (x, y, z)):
        raise InputError(f"{path}: the header's voxel size must be positive millimetres: found {x:g} x {y:g} x {z:g}")
    affine: Affine = np.asarray(image.affine, dtype=np.float64)
    if not (np.isfinite(affine).all() and affine[:3, :3].any(axis=0).all()):
        raise InputError(
            f"{path}: the header's affine must be finite, with a direction for each axis: found {affine[:3].tolist()}",
            hint="repair its qform or sform, or write the map with the header of the case's own images",
        )
    return LabelMapHeader(path, shape, (x, y, z), affine)


def _directions(header: LabelMapHeader) -> NDArray[np.float64]:
    axes = header.affine[:3, :3]
    directions: NDArray[np.float64] = axes / np.sqrt((axes**2).sum(axis=0))
    return directions


def _millimetres(header: LabelMapHeader) -> str:
    return " x ".join(f"{side:g}" for side in header.spacing_mm) + " mm"
