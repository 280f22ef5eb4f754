"""What the interactive viewer shows: a page per case with NiiVue, the images, the label map and the lesion table."""

import csv
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.findings import printable
from metseg.labels import ET, METASTASIS, NETC, RC, SNFH
from metseg.report.case_from_files import find_label_map
from metseg.report.case_report import CaseReport
from metseg.report.case_store import read_piece
from metseg.report.page import environment
from metseg.report.pictures import COLOURS
from metseg.report.report_files import CASES_TABLE, RUN_FILE
from metseg.report.words import WORDS
from metseg.systems import Modality, SystemName, modalities_to_find

logger = logging.getLogger(__name__)

SEGMENTATION: Final = "segmentation"
REFERENCE: Final = "reference"
IMAGE_ORDER: Final = ("t1c", "t2f", "t1n", "t2w", "ct")

CT_WINDOW_HU: Final = (0, 80)
"""The brain window of most readers, and of the radiosurgery system's plans."""

LEGENDS: Final[dict[SystemName, tuple[tuple[int, str, str], ...]]] = {
    "brats": (
        (NETC, "non-enhancing core", COLOURS["TC"]),
        (SNFH, "oedema (SNFH)", COLOURS["WT"]),
        (ET, "enhancing", COLOURS["ET"]),
        (RC, "resection cavity", COLOURS["RC"]),
    ),
    "radiosurgery": ((METASTASIS, "metastasis", COLOURS["metastasis"]),),
}
"""Label, words, colour."""


@dataclass(frozen=True, slots=True)
class ViewerCase:
    """A case in the viewer.

    Attributes:
        report: what the report says of it.
        folder_name: its ID as the file system spells it.
        volumes: name to file: the images by modality, `segmentation`, `reference`.
    """

    report: CaseReport
    folder_name: str
    volumes: Mapping[str, Path]

    def url_names(self) -> Mapping[str, str]:
        """Name to the last part of its address: NiiVue tells a compressed file by its suffix."""
        return {
            name: f"{name}.nii.gz" if path.name.endswith(".gz") else f"{name}.nii"
            for name, path in self.volumes.items()
        }


@dataclass(frozen=True, slots=True)
class ViewerPaths:
    """Where the volumes lie: what the command line names, else what the report's `run.json` says."""

    data: Path
    predictions: Path
    references: Path | None


def find_paths(report_dir: Path, data: Path | None, predictions: Path | None, references: Path | None) -> ViewerPaths:
    """Puts the command line and `run.json` together.

    Raises:
        InputError: neither says where the images or the label maps are, or they are not there.
    """
    options = _options(report_dir)
    data = data or _path(options, "data_path")
    predictions = predictions or _path(options, "prediction_path")
    references = references or _path(options, "reference_path")
    for name, path in (("data", data), ("prediction", predictions)):
        if path is None or not path.is_dir():
            where = "is not known" if path is None else f"{path} is not there"
            raise InputError(
                f"viewer: the {name} folder {where}",
                hint=f"Name it with --{name}-path; the report may come from elsewhere.",
            )
    assert data is not None and predictions is not None  # noqa: S101, PT018 - for the type checker: see above
    return ViewerPaths(data, predictions, references if references and references.is_dir() else None)


def collect_cases(report_dir: Path, paths: ViewerPaths) -> Mapping[str, ViewerCase]:
    """The report's cases by ID, in the report's order.

    Raises:
        InputError: there is no report, or none of its cases is in the data folder.
    """
    files_of = {
        printable(files.case_id): files for files in discover_cases(paths.data, modalities=modalities_to_find(["ct"]))
    }
    cases = {}
    for case_id in _reported(report_dir):
        files = files_of.get(case_id)
        report = read_piece(report_dir, files.case_id) if files else None
        if files and report:
            cases[case_id] = ViewerCase(report, files.case_id, _volumes(files, paths, report))
    if not cases:
        raise InputError(f"report {report_dir}: none of its cases is in {paths.data}", hint="Name --data-path.")
    return cases


def render_viewer(case: ViewerCase) -> str:
    """The viewer's page of a case."""
    names = case.url_names()
    images = [name for name in IMAGE_ORDER if name in names]
    overlays = [name for name in (SEGMENTATION, REFERENCE) if name in names]
    state: dict[str, Any] = {
        "volumes": {name: f"volumes/{url}" for name, url in names.items()},
        "images": images,
        "overlays": overlays,
        "labels": [
            {"value": value, "name": name, "colour": colour} for value, name, colour in LEGENDS[case.report.system]
        ],
        "windows": {"ct": CT_WINDOW_HU},
        "lesions": [{"number": item.number, "mm": item.inside_ras_mm} for item in case.report.lesions],
    }
    text: str = (
        environment()
        .get_template("viewer.html")
        .render(
            case=case.report,
            images=images,
            overlays=overlays,
            state=state,
            labels=state["labels"][:3],
            words=WORDS[case.report.system],
        )
    )
    return text


def _volumes(files: CaseFiles, paths: ViewerPaths, report: CaseReport) -> Mapping[str, Path]:
    volumes: dict[str, Path] = {
        str(modality): path for modality, path in files.images.items() if _is_in_place(modality, report)
    }
    found = {SEGMENTATION: find_label_map(paths.predictions, files.case_id)}
    if paths.references:
        found[REFERENCE] = find_label_map(paths.references, files.case_id)
    return volumes | {name: path for name, path in found.items() if path is not None}


def _is_in_place(modality: Modality, report: CaseReport) -> bool:
    """Whether the label map lies right over this image's file: a CT was brought there by a transform, if at all."""
    if report.system == "brats":
        return modality != "ct"
    found = report.record.registration
    return modality == report.label_grid or (found is not None and found.is_identity)


def _reported(report_dir: Path) -> tuple[str, ...]:
    path = report_dir / CASES_TABLE
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(row["case_id"] for row in csv.DictReader(file))
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise InputError(
            f"report folder {report_dir}: {CASES_TABLE} can't be read: {error}",
            hint="metseg report makes a report; metseg infer --report-dir makes one on the way.",
        ) from error


def _options(report_dir: Path) -> Mapping[str, str]:
    files = [report_dir / RUN_FILE, *sorted(report_dir.glob("run-*-of-*.json"))]
    for path in files:
        try:
            options = json.loads(path.read_text(encoding="utf-8"))["options"]
            return {str(key): str(value) for key, value in options.items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            logger.debug("%s: %s", path, error)
    return {}


def _path(options: Mapping[str, str], name: str) -> Path | None:
    return Path(options[name]) if options.get(name) else None
