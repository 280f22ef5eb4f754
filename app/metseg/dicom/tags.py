"""Values of DICOM datasets, as they can be used; what can't is refused by the name of its tag."""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from metseg.errors import InputError
from metseg.findings import printable

UNREADABLE: Final = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    NotImplementedError,
    struct.error,
)
"""What pydicom raises at values and files that break the standard."""

NO_VALUE: Final = "is missing or has no usable value"


class DicomFileError(InputError):
    """A file that can't be used.

    Attributes:
        problem: what is wrong, without the file's name and without what libraries say: both may hold identifiers.
    """

    def __init__(self, name: str, problem: str, *, detail: str = "", hint: str = "") -> None:
        super().__init__(f"DICOM file {printable(name)}: {problem}{detail and f': {detail}'}", hint=hint)
        self.problem = problem


def name_tag(keyword: str) -> str:
    """A tag as people look it up: `PixelSpacing (0028,0030)`."""
    number = tag_for_keyword(keyword) or 0
    return f"{keyword} ({number >> 16:04X},{number & 0xFFFF:04X})"


def refuse_tag(path: Path, keyword: str, what: str = NO_VALUE) -> NoReturn:
    """Raises the error of a tag without which a file can't be used.

    Raises:
        InputError: names the file and the tag.
    """
    hint = "Export the series again with this tag; anonymisation must keep it."
    raise DicomFileError(str(path), f"{name_tag(keyword)} {what}", hint=hint)


def find_value(dataset: Any, keyword: str) -> Any | None:
    """A tag's value; None where it is absent, empty or can't be read."""
    try:
        value = dataset.get(keyword)
        parts = [value] if isinstance(value, str) or not hasattr(value, "__len__") else list(value)
        is_there = any(isinstance(part, Dataset) or (part is not None and str(part).strip()) for part in parts)
    except UNREADABLE:
        return None
    return value if is_there else None


def find_uid(dataset: Any, keyword: str) -> str | None:
    """A tag's one unique identifier; None where there is no such value."""
    value = find_value(dataset, keyword)
    return str(value).strip() if isinstance(value, str) else None


def find_numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """A tag's numbers as the file spells them; None where they are not so many finite ones."""
    value = find_value(dataset, keyword)
    try:
        numbers = tuple(value) if isinstance(value, Iterable) else (value,)
        usable = len(numbers) == count and bool(np.isfinite([float(number) for number in numbers]).all())
    except UNREADABLE:
        return None
    return numbers if usable else None


def find_whole_number(dataset: Any, keyword: str) -> int | None:
    """A tag's one whole number; None where there is none."""
    numbers = find_numbers(dataset, keyword, 1)
    return int(numbers[0]) if numbers and float(numbers[0]).is_integer() else None
