"""Scores as files: JSON as the official programs write it, and tables with a row per region or per lesion."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.batch import ScoredCase
from evaluation.lesions import LesionScore
from evaluation.protocols import PROTOCOLS
from evaluation.results import ScoringProtocol
from metseg.errors import InputError, OutputError
from metseg.files.atomic import write_atomically
from metseg.findings import plain_number

RegionColumns = Mapping[str, Mapping[str, float]]
"""Region to official column to value; NaN where there is no number."""

LESION_COLUMNS = (
    "case_id", "region", "kind", "number", "size_class", "volume_mm3", "dice", "hd95_mm", "nsd", "matched_components",
    "centroid_x_voxel", "centroid_y_voxel", "centroid_z_voxel", "centroid_x_mm", "centroid_y_mm", "centroid_z_mm",
)  # fmt: skip
"""Millimetres are RAS+ world coordinates; the matched components are separated by spaces."""


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """A scores file read back.

    Attributes:
        path: the file.
        protocol: the protocol whose columns it holds.
        cases: ID to the case's scores.
    """

    path: Path
    protocol: ScoringProtocol
    cases: Mapping[str, RegionColumns]


def list_columns(case: ScoredCase) -> RegionColumns:
    """The case's scores under their official names."""
    return {region.region: region.columns() for region in case.scores.regions}


def check_writable(path: Path) -> None:
    """Makes the file's folder and fails early, before the work whose result should go there.

    Raises:
        OutputError: the folder can't be made or written to, or the path is a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: its folder can't be made: {error.strerror or error}") from error
    if path.is_dir():
        raise OutputError(f"{path}: is a folder: expected the name of a file")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: no permission to write into {path.parent}")


def write_json(cases: Sequence[ScoredCase], path: Path) -> None:
    """Writes ID to scores; a score that is not a number becomes null.

    Raises:
        OutputError: the file can't be written.
    """
    content = {case.case_id: _replace_nan(case.scores.to_json()) for case in cases}
    _write(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> ScoreFile:
    """Reads what `write_json` wrote and finds out which protocol it is.

    Raises:
        InputError: no such file, no JSON, no cases, or columns of no known protocol.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable scores file: {error}") from error
    if isinstance(content, dict) and content:
        for build in PROTOCOLS.values():
            protocol = build()
            try:
                cases = {case_id: protocol.parse_json(entry) for case_id, entry in content.items()}
            except (KeyError, TypeError, AttributeError, ValueError):
                continue
            return ScoreFile(path, protocol, cases)
    raise InputError(
        f"{path}: holds no scores of {' or '.join(PROTOCOLS)}", hint="give a file that `score --output` wrote"
    )


def write_csv(cases: Sequence[ScoredCase], path: Path) -> None:
    """Writes a row per case and region; a score that is not a number is left empty.

    Where the user said what label 4 means, a column `labels` holds it.

    Raises:
        OutputError: the file can't be written.
    """
    rows = [
        {
            "case_id": case.case_id,
            "region": region,
            "missing_prediction": int(case.missing),
            **_blank_nan(columns),
            **({"labels": case.convention} if case.convention else {}),
        }
        for case in cases
        for region, columns in list_columns(case).items()
    ]
    _write_rows(path, list(rows[0]) if rows else ["case_id", "region"], rows)


def write_lesions(cases: Sequence[ScoredCase], path: Path) -> None:
    """Writes a row per reference lesion and per false positive.

    A case that is missing has a row for each lesion of its reference, all of them missed.

    Raises:
        OutputError: the file can't be written.
    """
    rows = [_lay_out(case, lesion) for case in cases for region in case.scores.regions for lesion in region.lesions]
    _write_rows(path, LESION_COLUMNS, rows)


def _lay_out(case: ScoredCase, lesion: LesionScore) -> dict[str, Any]:
    voxel = lesion.centroid_voxel
    world = case.affine[:3, :3] @ np.asarray(voxel) + case.affine[:3, 3]
    values = (
        case.case_id, lesion.region, lesion.kind, lesion.number, lesion.size_class, plain_number(lesion.volume_mm3, 6),
        lesion.dice, lesion.hd95_mm, "" if lesion.nsd is None else lesion.nsd,
        " ".join(map(str, lesion.matched_components)),
        *(f"{value:.2f}" for value in voxel), *(f"{value:.2f}" for value in world),
    )  # fmt: skip
    return dict(zip(LESION_COLUMNS, values, strict=True))


def _write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, buffer.getvalue())


def _write(path: Path, text: str) -> None:
    """Writes the whole file or none of it."""
    check_writable(path)
    write_atomically(path, text.encode())


def _replace_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _replace_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _blank_nan(columns: Mapping[str, float]) -> dict[str, float | str]:
    return {column: "" if math.isnan(value) else value for column, value in columns.items()}
