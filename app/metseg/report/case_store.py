"""The folder that the report has for each case, `cases/<ID>/`: pictures, and `case.json` with the case's report.

Each is written while the batch runs. Memory stays flat, a killed run keeps what it has, and shards and resumed runs
find the cases of one another.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from metseg.errors import OutputError
from metseg.files.atomic import write_atomically
from metseg.files.hashing import hash_file
from metseg.report.case_report import CaseReport

logger = logging.getLogger(__name__)

CASES_FOLDER: Final = "cases"
CASE_FILE: Final = "case.json"


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case of the report, whose folder may hold pictures.

    Attributes:
        folder_name: the case's ID as the file system spells it.
        report: what is said of the case.
    """

    folder_name: str
    report: CaseReport


def locate_case(report_dir: Path, case_id: str) -> Path:
    """The folder of a case within the report."""
    return report_dir / CASES_FOLDER / case_id


def make_folder(folder: Path) -> None:
    """Makes a folder of the report with its parents.

    Raises:
        OutputError: the folder can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"report folder {folder}: can't be made: {error.strerror or error}",
            hint="Name a folder that this user may write to.",
        ) from error


def write_case_report(report_dir: Path, case_id: str, report: CaseReport, pictures: Mapping[str, bytes]) -> None:
    """Writes a case's pictures and then its `case.json`, which makes the folder complete.

    Raises:
        OutputError: one of the files can't be written.
    """
    folder = locate_case(report_dir, case_id)
    make_folder(folder)
    for name, content in pictures.items():
        write_atomically(folder / name, content)
    write_atomically(folder / CASE_FILE, _make_adapter().dump_json(report, indent=1))


def read_case_report(report_dir: Path, case_id: str) -> CaseReport | None:
    """Reads a case's report back; None where there is none, or one that this version can't read."""
    path = locate_case(report_dir, case_id) / CASE_FILE
    try:
        return _make_adapter().validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        logger.warning("%s can't be used: %s", path, str(error).splitlines()[0])
        return None


def hash_if_readable(path: Path) -> str:
    """SHA-256 of a file's bytes; empty where it can't be read."""
    try:
        return hash_file(path)
    except OSError:
        return ""


@cache
def _make_adapter() -> TypeAdapter[CaseReport]:
    return TypeAdapter(CaseReport)
