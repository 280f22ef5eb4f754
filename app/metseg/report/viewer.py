"""What the interactive viewer shows: a page per case with NiiVue, the images, the label map and the lesion table."""

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.files.label_sets import require_clear_files
from metseg.findings import printable
from metseg.labels import ET, RC, LabelConvention, tells_et_from_rc
from metseg.report.case_from_files import find_label_map
from metseg.report.case_report import REFERENCE, SEGMENTATION, CaseReport
from metseg.report.case_store import hash_if_readable, read_case_report
from metseg.report.earlier_runs import read_options
from metseg.report.page import list_shown_regions, make_environment
from metseg.report.report_files import CASES_TABLE
from metseg.systems import OWN_GRID, LabelKind, Modality, System, modalities_to_find

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ViewerCase:
    """A case in the viewer.

    Attributes:
        report: what the report says of the case.
        folder_name: the case's ID as the file system spells it.
        volumes: name to file: the images by modality, SEGMENTATION, REFERENCE.
        conventions: what label 4 means in SEGMENTATION and in REFERENCE; RC where nothing is said.
    """

    report: CaseReport
    folder_name: str
    volumes: Mapping[str, Path]
    conventions: Mapping[str, LabelConvention | None] = field(default_factory=dict)

    @property
    def url_names(self) -> Mapping[str, str]:
        """Name of each volume to the last part of its address: NiiVue tells a compressed file by its suffix."""
        return {
            name: f"{name}.nii.gz" if path.name.lower().endswith(".gz") else f"{name}.nii"
            for name, path in self.volumes.items()
        }


@dataclass(frozen=True, slots=True)
class ViewerPaths:
    """Where the volumes lie: what the command line names, else what the report's `run.json` says.

    Attributes:
        data: the folder of cases.
        predictions: the folder of label maps.
        references: the folder of references; None shows none.
        named: which of SEGMENTATION and REFERENCE the command line names: the report may have read others.
        convention: what the command line says that label 4 means; None leaves it to the report.
    """

    data: Path
    predictions: Path
    references: Path | None
    named: frozenset[str] = frozenset()
    convention: LabelConvention | None = None


def find_paths(
    report_dir: Path,
    data: Path | None,
    predictions: Path | None,
    references: Path | None,
    *,
    convention: LabelConvention | None = None,
) -> ViewerPaths:
    """Puts the command line and `run.json` together.

    Raises:
        InputError: neither says where the images or the label maps are, or they are not there.
    """
    options = read_options(report_dir)
    named = {name for name, path in ((SEGMENTATION, predictions), (REFERENCE, references)) if path is not None}
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
    references = references if references and references.is_dir() else None
    return ViewerPaths(data, predictions, references, frozenset(named), convention)


def collect_cases(report_dir: Path, paths: ViewerPaths) -> Mapping[str, ViewerCase]:
    """The report's cases by ID, in the report's order.

    Raises:
        InputError: there is no report, none of its cases is in the data folder, or label 4 of maps that the report did
            not read could mean two things (`metseg.files.label_sets`).
    """
    found = {
        printable(files.case_id): files for files in discover_cases(paths.data, modalities=modalities_to_find(OWN_GRID))
    }
    cases = {}
    for case_id in _list_reported(report_dir):
        files = found.get(case_id)
        report = read_case_report(report_dir, files.case_id) if files else None
        if files and report:
            volumes = _find_volumes(files, paths, report)
            conventions = {name: paths.convention or report.conventions.get(name) for name in (SEGMENTATION, REFERENCE)}
            cases[case_id] = ViewerCase(report, files.case_id, volumes, conventions)
    if not cases:
        raise InputError(f"report {report_dir}: none of its cases is in {paths.data}", hint="Name --data-path.")
    for name in sorted(paths.named):
        require_clear_files(_list_unread(name, cases.values()), f"{name}s", None)
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
        "labels": {name: _list_labels(system, case.conventions.get(name)) for name in overlays},
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
            labels=[label for label in _list_labels(system, None) if label["value"] in shown],
            system=system,
        )
    )
    return text


def _list_labels(system: System, convention: LabelConvention | None) -> list[dict[str, Any]]:
    """How each label of a file is called and drawn."""
    kinds: dict[int, LabelKind] = dict(system.label_kinds)
    if convention == "brats2021" and RC in kinds:
        kinds[RC] = kinds[ET]
    return [{"value": label, "name": kind.legend, "colour": kind.colour} for label, kind in kinds.items()]


def _list_unread(name: str, cases: Iterable[ViewerCase]) -> Iterator[Path]:
    """The label maps of one kind that the report knows nothing of."""
    for case in cases:
        path = case.volumes.get(name)
        if path is None or case.conventions[name] is not None or not tells_et_from_rc(case.report.system.regions):
            continue
        if name != SEGMENTATION or hash_if_readable(path) != case.report.label_map_sha256:
            yield path


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


def _find_path(options: Mapping[str, str], name: str) -> Path | None:
    return Path(options[name]) if options.get(name) else None
