"""A DICOM series of single-frame images as a volume: its slices in order and its grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.findings import printable
from metseg.space.grid import Grid

LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's patient axes point to the left and to posterior, NIfTI's to the right and to anterior."""

GAP_TOLERANCE: Final = 0.01
"""Relative: how far distances between neighbouring slices may differ."""

DIRECTION_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Series:
    """A series in order.

    Attributes:
        images: one dataset per slice without pixels, along the direction in which the third index grows.
        grid: the series' grid, from voxel indices (column, row, slice) to RAS+ millimetres.
    """

    images: tuple[Any, ...]
    grid: Grid


def read_series(folder: Path) -> Series:
    """Reads the headers of a folder that holds one series; other files are passed over.

    Raises:
        InputError: no DICOM image, several series, multi-frame images, or slices that make no volume.
    """
    images = _read_headers(folder)
    uids = {str(image.SeriesInstanceUID) for image in images}
    if len(uids) > 1:
        raise InputError(
            f"DICOM folder {folder}: {len(uids)} series in it",
            hint="Name a folder that holds the source image's series alone.",
        )
    if any(int(image.get("NumberOfFrames", 1)) > 1 for image in images):
        raise InputError(
            f"DICOM folder {folder}: multi-frame (enhanced) images", hint="Export the series as single-frame images."
        )
    return _order(images, folder)


def _read_headers(folder: Path) -> list[Any]:
    from pydicom import dcmread  # noqa: PLC0415 - an optional extra
    from pydicom.errors import InvalidDicomError  # noqa: PLC0415

    if not folder.is_dir():
        raise InputError(f"DICOM folder {folder} does not exist", hint="Name the folder of the source image's series.")
    images = []
    for path in sorted(folder.iterdir()):
        if not path.is_file():
            continue
        try:
            image = dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        except OSError as error:
            raise InputError(f"DICOM file {printable(path.name)}: can't be read: {error.strerror or error}") from error
        if "ImagePositionPatient" in image and "Rows" in image:
            images.append(image)
    if not images:
        raise InputError(f"DICOM folder {folder}: no image with a position in it", hint="Name the folder of the files.")
    return images


def _order(images: Sequence[Any], folder: Path) -> Series:
    first = images[0]
    row, column = np.array(first.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    for image in images:
        turned = np.abs(np.array(image.ImageOrientationPatient, dtype=np.float64) - [*row, *column]).max()
        if turned > DIRECTION_TOLERANCE or (image.Rows, image.Columns) != (first.Rows, first.Columns):
            raise InputError(
                f"DICOM folder {folder}: slices of different orientation or size", hint="Split the series."
            )
    positions = np.array([image.ImagePositionPatient for image in images], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    step = _measure_step(positions[order], normal * float(first.get("SliceThickness") or 1), folder)
    row_mm, column_mm = (float(side) for side in first.PixelSpacing)
    affine = np.eye(4)
    # Within a row the column index grows along the first direction, by the second of PixelSpacing's values.
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * column_mm, column * row_mm, step
    affine[:3, 3] = positions[order[0]]
    shape = (int(first.Columns), int(first.Rows), len(images))
    return Series(tuple(images[index] for index in order), Grid(shape, LPS_TO_RAS @ affine))


def _measure_step(positions: NDArray[np.float64], lone: NDArray[np.float64], folder: Path) -> NDArray[np.float64]:
    """The way from one slice to the next; `lone` for a single slice."""
    if len(positions) == 1:
        return lone
    steps = np.diff(positions, axis=0)
    mean: NDArray[np.float64] = steps.mean(axis=0)
    size = float(np.linalg.norm(mean))
    if size == 0 or float(np.abs(steps - mean).max()) > GAP_TOLERANCE * size:
        lengths = np.linalg.norm(steps, axis=1)
        raise InputError(
            f"DICOM folder {folder}: slices lie {lengths.min():.3g} to {lengths.max():.3g} mm apart, "
            "expected equal steps",
            hint="Slices are missing or doubled: export the series again.",
        )
    return mean
