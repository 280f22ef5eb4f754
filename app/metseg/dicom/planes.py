"""Where the slices of DICOM images lie: an image of one frame, or each frame of a multi-frame (enhanced) image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np

from metseg.dicom.tags import NO_VALUE, find_numbers, find_value, find_whole_number, name_tag, refuse_tag

DIRECTION_TOLERANCE: Final = 1e-3
"""How far one component of two slices' directions may differ, and how many millimetres their pixels' sides."""

UNIT_TOLERANCE: Final = 0.01
"""How far directions may be from unit length and from a right angle: some programs write two decimals."""

GROUP_OF: Final = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
}
"""Of a multi-frame image: the functional group that holds a tag."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Where one slice lies, in numbers as the file spells them.

    Attributes:
        shape: rows and columns.
        orientation: direction in which the columns' index grows, then that of the rows' index, in DICOM's patient axes.
        position_mm: centre of the first pixel.
        spacing_mm: from row to row, and from column to column.
        thickness_mm: of the slice; None where the file does not say.
    """

    shape: tuple[int, int]
    orientation: tuple[float, ...]
    position_mm: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    thickness_mm: float | None

    def is_parallel_to(self, other: "Plane") -> bool:
        """Whether both have the same directions, size and pixels."""
        mine, others = ((*plane.orientation, *plane.spacing_mm) for plane in (self, other))
        return self.shape == other.shape and np.allclose(
            np.array(mine, dtype=np.float64), np.array(others, dtype=np.float64), rtol=0, atol=DIRECTION_TOLERANCE
        )


def is_multi_frame(dataset: Any) -> bool:
    """Whether a file holds frames that each have a place of their own."""
    frames = find_whole_number(dataset, "NumberOfFrames") or 1
    return frames > 1 or find_value(dataset, "PerFrameFunctionalGroupsSequence") is not None


def read_planes(dataset: Any, path: Path) -> tuple[Plane, ...]:
    """The planes of an image's frames, in the file's order.

    Args:
        dataset: of the image; its pixels are not needed.
        path: of its file, for messages.

    Raises:
        InputError: a tag is missing that says where they lie.
    """
    if not is_multi_frame(dataset):
        return (_read_plane([dataset], dataset, path),)
    frames = find_value(dataset, "PerFrameFunctionalGroupsSequence")
    if frames is None:
        refuse_tag(path, "PerFrameFunctionalGroupsSequence")
    stated = find_whole_number(dataset, "NumberOfFrames")
    if stated not in {None, len(frames)}:
        refuse_tag(path, "NumberOfFrames", f"is {stated}, but {len(frames)} frames have a place")
    shared = find_value(dataset, "SharedFunctionalGroupsSequence") or ()
    return tuple(_read_plane([frame, *shared], dataset, path) for frame in frames)


def _refuse_place(path: Path, keyword: str, dataset: Any) -> NoReturn:
    """Raises the error of a tag that says where a slice lies, and where it was looked for."""
    if not is_multi_frame(dataset):
        refuse_tag(path, keyword)
    groups = " and ".join(name_tag(f"{kind}FunctionalGroupsSequence") for kind in ("Shared", "PerFrame"))
    refuse_tag(path, keyword, f"{NO_VALUE} in {name_tag(GROUP_OF[keyword])} of {groups}")


def _read_plane(places: Sequence[Any], dataset: Any, path: Path) -> Plane:
    """Reads one plane; `places` are where to look for its tags, in this order."""
    rows, columns = (find_whole_number(dataset, keyword) for keyword in ("Rows", "Columns"))
    for keyword, side in (("Rows", rows), ("Columns", columns)):
        if side is None or side < 1:
            refuse_tag(path, keyword)
    orientation = _find(places, "ImageOrientationPatient", 6)
    if orientation is None or not _is_right_angled(orientation):
        _refuse_place(path, "ImageOrientationPatient", dataset)
    position = _find(places, "ImagePositionPatient", 3)
    if position is None:
        _refuse_place(path, "ImagePositionPatient", dataset)
    spacing = _find(places, "PixelSpacing", 2)
    if spacing is None or min(map(float, spacing)) <= 0:
        _refuse_place(path, "PixelSpacing", dataset)
    thickness = _find(places, "SliceThickness", 1)
    return Plane(
        shape=(rows or 0, columns or 0),
        orientation=orientation,
        position_mm=position,
        spacing_mm=spacing,
        thickness_mm=thickness[0] if thickness and float(thickness[0]) > 0 else None,
    )


def _find(places: Sequence[Any], keyword: str, count: int) -> tuple[float, ...] | None:
    for place in places:
        items = find_value(place, GROUP_OF[keyword]) or ()
        for holder in (place, *items):
            numbers = find_numbers(holder, keyword, count)
            if numbers is not None:
                return numbers
    return None


def _is_right_angled(orientation: Sequence[float]) -> bool:
    row, column = np.array(orientation, dtype=np.float64).reshape(2, 3)
    off = np.array([np.linalg.norm(row) - 1, np.linalg.norm(column) - 1, row @ column], dtype=np.float64)
    return bool(np.abs(off).max() <= UNIT_TOLERANCE)
