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
from metseg.report.case_from_files import find_label_map
from metseg.report.case_report import CaseReport
from metseg.report.case_store import read_case_report
from metseg.report.page import list_shown_regions, make_environment
from metseg.report.report_files import CASES_TABLE, RUN_FILE
from metseg.systems import OWN_GRID, Modality, modalities_to_find

logger = logging.getLogger(__name__)

SEGMENTATION: Final = "segmentation"
REFERENCE: Final = "reference"


@dataclass(frozen=True, slots=True)
class ViewerCase:
    """A case in the viewer.

    Attributes:
        report: what the report says of the case.
        folder_name: the case's ID as the file system spells it.
        volumes: name to file: the images by modality, `segmentation`, `reference`.
    """

    report: CaseReport
    folder_name: str
    volumes: Mapping[str, Path]

    @property
    def url_names(self) -> Mapping[str, str]:
        """Name of each volume to the last part of its address: NiiVue tells a compressed file by its suffix."""
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
    options = _read_options(report_dir)
    data = data or _find_path(options, "data_path")
    predictions = predictions or _find_path(options, "prediction_path")
    references = references or _find_path(options, "reference_path")
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
    found = {
        printable(files.case_id): files for files in discover_cases(paths.data, modalities=modalities_to_find(OWN_GRID))
    }
    cases = {}
    for case_id in _list_reported(report_dir):
        files = found.get(case_id)
        report = read_case_report(report_dir, files.case_id) if files else None
        if files and report:
            cases[case_id] = ViewerCase(report, files.case_id, _find_volumes(files, paths, report))
    if not cases:
        raise InputError(f"report {report_dir}: none of its cases is in {paths.data}", hint="Name --data-path.")
    return cases


def render_viewer(case: ViewerCase) -> str:
    """The viewer's page of a case."""
    names, system = case.url_names, case.report.system
    images = [name for name in dict.fromkeys((*system.pictured, *system.modalities)) if name in names]
    shown = {label for kind in list_shown_regions(system, [case.report]) for label in kind.region.labels}
    overlays = [name for name in (SEGMENTATION, REFERENCE) if name in names]
    state: dict[str, Any] = {
        "volumes": {name: f"volumes/{url}" for name, url in names.items()},
        "images": images,
        "overlays": overlays,
        "labels": [
            {"value": label, "name": kind.legend, "colour": kind.colour} for label, kind in system.label_kinds.items()
        ],
        "windows": dict.fromkeys(OWN_GRID, system.window_hu),
        "lesions": [{"number": item.number, "mm": item.inside_ras_mm} for item in case.report.lesions],
    }
    text: str = (
        make_environment()
        .get_template("viewer.html")
        .render(
            case=case.report,
            images=images,
            overlays=overlays,
            state=state,
            labels=[label for label in state["labels"] if label["value"] in shown],
            system=system,
        )
    )
    return text


def _find_volumes(files: CaseFiles, paths: ViewerPaths, report: CaseReport) -> Mapping[str, Path]:
    volumes: dict[str, Path] = {
        str(modality): path for modality, path in files.images.items() if _is_in_place(modality, report)
    }
    found = {SEGMENTATION: find_label_map(paths.predictions, files.case_id)}
    if paths.references:
        found[REFERENCE] = find_label_map(paths.references, files.case_id)
    return volumes | {name: path for name, path in found.items() if path is not None}


def _is_in_place(modality: Modality, report: CaseReport) -> bool:
    """Whether the label map lies right over this image's file: a registered one was brought there by a transform."""
    if modality not in report.system.modalities:
        return False
    found = report.record.registration
    is_moved = report.system.is_registered and modality != report.label_grid
    return not is_moved or (found is not None and found.is_identity)


def _list_reported(report_dir: Path) -> tuple[str, ...]:
    path = report_dir / CASES_TABLE
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(row["case_id"] for row in csv.DictReader(file))
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise InputError(
            f"report folder {report_dir}: {CASES_TABLE} can't be read: {error}",
            hint="metseg report makes a report; metseg infer --report-dir makes one on the way.",
        ) from error


def _read_options(report_dir: Path) -> Mapping[str, str]:
    files = [report_dir / RUN_FILE, *sorted(report_dir.glob("run-*-of-*.json"))]
    for path in files:
        try:
            options = json.loads(path.read_text(encoding="utf-8"))["options"]
            return {str(key): str(value) for key, value in options.items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            logger.debug("%s: %s", path, error)
    return {}


def _find_path(options: Mapping[str, str], name: str) -> Path | None:
    return Path(options[name]) if options.get(name) else None
