"""A DICOM series as a volume: its slices in order, its grid, and what a Segmentation needs to know of its images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from metseg.dicom.planes import Plane, is_multi_frame, read_planes
from metseg.dicom.source import SourceFile, describe_sources
from metseg.dicom.tags import UNREADABLE, find_uid, find_value, refuse_tag
from metseg.errors import InputError
from metseg.findings import plain_number, printable
from metseg.space.grid import Grid

LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's patient axes point to the left and to posterior, NIfTI's to the right and to anterior."""

GAP_TOLERANCE: Final = 0.01
"""Relative: how far distances between neighbouring slices may differ."""

SEGMENTATIONS: Final = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of what this program writes: passed over where it lies among its sources."""


@dataclass(frozen=True, slots=True)
class Series:
    """A series in order.

    Attributes:
        path: where it was read.
        images: what a Segmentation says of its source: a dataset per file without pixels, complete as the standard
            asks. One per slice, along the direction in which the third index grows; or the one multi-frame image.
        frames: of a multi-frame image: each slice's frame, from 1; else empty.
        grid: the series' grid, from voxel indices (column, row, slice) to RAS+ millimetres.
        remarks: what was filled or left out in `images`, in words.
    """

    path: Path
    images: tuple[Any, ...]
    frames: tuple[int, ...]
    grid: Grid
    remarks: tuple[str, ...] = ()


def read_series(path: Path) -> Series:
    """Reads the headers of a series.

    Args:
        path: a folder that holds one series, or the file of a multi-frame image; other files are passed over.

    Raises:
        InputError: no DICOM image, several series or multi-frame images, slices that make no volume, or a tag is
            missing that nothing can stand for; names it.
    """
    files = _choose_series(_read_headers(path), path)
    several = [file for file in files if is_multi_frame(file.dataset)]
    if several and len(files) > 1:
        raise InputError(
            f"DICOM series {path}: {len(several)} multi-frame images among {len(files)} files, expected one alone",
            hint="Export the volume as one multi-frame image, or as images of one frame.",
        )
    planes = [plane for file in files for plane in read_planes(file.dataset, file.path)]
    order, grid = _order(planes, path)
    column_mm, row_mm, _ = grid.spacing_mm
    step_mm = grid.voxel_volume_mm3 / (column_mm * row_mm) if len(planes) > 1 else None
    if several:
        images, remarks = describe_sources(files, planes, step_mm)
        return Series(path, images, tuple(int(index) + 1 for index in order), grid, remarks)
    images, remarks = describe_sources([files[i] for i in order], [planes[i] for i in order], step_mm)
    return Series(path, images, (), grid, remarks)


def _read_headers(path: Path) -> list[SourceFile]:
    files = []
    for file in _list_files(path):
        try:
            dataset = dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        except OSError as error:
            raise InputError(f"DICOM file {printable(file.name)}: can't be read: {error.strerror or error}") from error
        except UNREADABLE as error:
            raise InputError(
                f"DICOM file {printable(file.name)}: damaged: {error}", hint="Copy or export the file again."
            ) from error
        if _is_image(dataset):
            files.append(SourceFile(file, dataset))
    if not files:
        raise InputError(f"DICOM folder {path}: no image in it", hint="Name the folder of the files.")
    return files


def _list_files(path: Path) -> list[Path]:
    try:
        if path.is_file():
            return [path]
        return [file for file in sorted(path.iterdir()) if file.is_file()]
    except FileNotFoundError:
        hint = "Name the folder of the source image's series."
        raise InputError(f"DICOM folder {path} does not exist", hint=hint) from None
    except OSError as error:
        raise InputError(f"DICOM folder {path}: can't be read: {error.strerror or error}") from error


def _is_image(dataset: Any) -> bool:
    telling = ("Rows", "Columns", "ImagePositionPatient", "PerFrameFunctionalGroupsSequence")
    shows = any(find_value(dataset, keyword) is not None for keyword in telling)
    return shows and find_uid(dataset, "SOPClassUID") not in SEGMENTATIONS


def _choose_series(files: Sequence[SourceFile], path: Path) -> list[SourceFile]:
    """The files of the one series whose images have a place; images without one of other series don't count."""
    placed = [file for file in files if _has_place(file.dataset)]
    if not placed:
        refuse_tag(files[0].path, "ImagePositionPatient")
    uids = {find_uid(file.dataset, "SeriesInstanceUID") for file in placed}
    if len(uids - {None}) > 1:
        raise InputError(
            f"DICOM folder {path}: {len(uids)} series in it",
            hint="Name a folder that holds the source image's series alone.",
        )
    for file in files:
        uid = find_uid(file.dataset, "SeriesInstanceUID")
        if uid is None:
            refuse_tag(file.path, "SeriesInstanceUID")
        if uid in uids and not _has_place(file.dataset):
            refuse_tag(file.path, "ImagePositionPatient")
    return placed


def _has_place(dataset: Any) -> bool:
    return is_multi_frame(dataset) or find_value(dataset, "ImagePositionPatient") is not None


def _order(planes: Sequence[Plane], path: Path) -> tuple[NDArray[np.intp], Grid]:
    """The slices' order along the third index, and the grid."""
    first = planes[0]
    if not all(plane.is_parallel_to(first) for plane in planes):
        raise InputError(
            f"DICOM series {path}: slices of different orientation, size or pixel spacing", hint="Split the series."
        )
    row, column = np.array(first.orientation, dtype=np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    positions = np.array([plane.position_mm for plane in planes], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    step = _measure_step(positions[order], normal * float(first.thickness_mm or 1), path)
    row_mm, column_mm = (float(side) for side in first.spacing_mm)
    affine = np.eye(4)
    # Within a row the column index grows along the first direction, by the second of PixelSpacing's values.
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * column_mm, column * row_mm, step
    affine[:3, 3] = positions[order[0]]
    rows, columns = first.shape
    return order, Grid((columns, rows, len(planes)), LPS_TO_RAS @ affine)


def _measure_step(positions: NDArray[np.float64], lone: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """The way from one slice to the next; `lone` for a single slice."""
    if len(positions) == 1:
        return lone
    steps = np.diff(positions, axis=0)
    mean: NDArray[np.float64] = steps.mean(axis=0)
    size = float(np.linalg.norm(mean))
    if size == 0 or float(np.abs(steps - mean).max()) > GAP_TOLERANCE * size:
        lengths = np.linalg.norm(steps, axis=1)
        shortest, longest = (plain_number(float(length)) for length in (lengths.min(), lengths.max()))
        raise InputError(
            f"DICOM series {path}: {_count(positions)} lie {shortest} to {longest} mm apart, expected equal steps",
            hint="Slices are missing or doubled, or there are several volumes: export one volume again.",
        )
    return mean


def _count(positions: Iterable[NDArray[np.float64]]) -> str:
    places = [tuple(position) for position in positions]
    return f"{len(places)} slices at {len(set(places))} places"
