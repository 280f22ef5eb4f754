"""One DICOM file: its header as a dataset, its pixels as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from metseg.dicom.tags import UNREADABLE
from metseg.errors import InputError
from metseg.findings import printable


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
        raise InputError(f"DICOM file {printable(path.name)}: can't be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise InputError(
            f"DICOM file {printable(path.name)}: damaged: {error}", hint="Copy or export the file again."
        ) from error
    return SourceFile(path, dataset)
