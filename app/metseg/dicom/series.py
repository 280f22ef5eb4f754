"""A DICOM series as a volume: its slices in order, its grid, and what an object on it needs to know of its images."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from metseg.dicom.planes import Plane, is_multi_frame, read_planes
from metseg.dicom.reading import SourceFile, read_header
from metseg.dicom.source import describe_sources
from metseg.dicom.stacking import order_planes
from metseg.dicom.tags import find_uid, find_value, refuse_tag
from metseg.errors import InputError
from metseg.space.grid import Grid

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
        planes: where each slice lies, as the files spell it; the grid is their mean.
        grid: the series' grid, from voxel indices (column, row, slice) to RAS+ millimetres.
        remarks: what was filled or left out in `images`, in words.
    """

    path: Path
    images: tuple[Any, ...]
    frames: tuple[int, ...]
    planes: tuple[Plane, ...]
    grid: Grid
    remarks: tuple[str, ...] = ()


def read_series(path: Path, is_wanted: Callable[[str], bool] | None = None) -> Series:
    """Reads the headers of a series.

    Args:
        path: a folder that holds one series, or the file of a multi-frame image; other files are passed over.
        is_wanted: tells the series among others by its SeriesInstanceUID; it may then lie anywhere below the folder.

    Raises:
        InputError: no DICOM image, several series or multi-frame images, slices that make no volume, or a tag is
            missing that nothing can stand for; names it.
    """
    files = _choose_series(_read_headers(path, is_wanted), path)
    several = [file for file in files if is_multi_frame(file.dataset)]
    if several and len(files) > 1:
        raise InputError(
            f"DICOM series {path}: {len(several)} multi-frame images among {len(files)} files, expected one alone",
            hint="Export the volume as one multi-frame image, or as images of one frame.",
        )
    planes = [plane for file in files for plane in read_planes(file.dataset, file.path)]
    try:
        order, grid = order_planes(planes)
    except InputError as error:
        raise InputError(f"DICOM series {path}: {error}", hint=error.hint) from None
    column_mm, row_mm, _ = grid.spacing_mm
    step_mm = grid.voxel_volume_mm3 / (column_mm * row_mm) if len(planes) > 1 else None
    ordered = tuple(planes[index] for index in order)
    if several:
        images, remarks = describe_sources(files, planes, step_mm)
        return Series(path, images, tuple(int(index) + 1 for index in order), ordered, grid, remarks)
    images, remarks = describe_sources([files[index] for index in order], ordered, step_mm)
    return Series(path, images, (), ordered, grid, remarks)


def _read_headers(path: Path, is_wanted: Callable[[str], bool] | None) -> list[SourceFile]:
    headers = map(read_header, _list_files(path, is_deep=is_wanted is not None))
    files = [header for header in headers if header is not None and _is_image(header.dataset)]
    if not files:
        raise InputError(f"DICOM folder {path}: no image in it", hint="Name the folder of the files.")
    if is_wanted is None:
        return files
    uids = {file.path: find_uid(file.dataset, "SeriesInstanceUID") or "" for file in files}
    wanted = [file for file in files if is_wanted(uids[file.path])]
    if not wanted:
        raise InputError(
            f"DICOM folder {path}: none of its {len(set(uids.values()))} series is the one that the case was made from",
            hint="Name the folder of the study that was imported.",
        )
    return wanted


def _list_files(path: Path, *, is_deep: bool) -> list[Path]:
    try:
        if path.is_file():
            return [path]
        if is_deep and path.is_dir():
            return sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names)
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
