"""The challenge's own rules for a finished output folder, applied before somebody else applies them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.discovery import survey_cases
from metseg.files.header import ImageError, voxel_sizes
from metseg.files.image import Image, read_image
from metseg.files.read import list_values, whole_labels
from metseg.findings import Finding, errors_among, printable
from metseg.labels import BRATS_REGIONS, ET, RC
from metseg.space.grid import grid_difference
from metseg.systems import SOURCE_MODALITY, Modality

SUFFIX: Final = ".nii.gz"

SHOWN_VALUES: Final = 5

RC_HINT: Final = (
    f" {RC} is enhancing tumour in challenges up to 2021: write {ET} for it. From 2025 on it is a cavity: name the "
    "plan that predicts it, or give --labels brats2025."
)


def check_submission(
    data_path: Path,
    prediction_path: Path,
    *,
    labels: Sequence[int] = BRATS_REGIONS.labels,
    source: Modality = SOURCE_MODALITY,
) -> tuple[Finding, ...]:
    """Applies the official validator's rules to a finished output folder.

    Exactly one `<ID>.nii.gz` for each case and nothing else, no sub-folder; each 3-D, of t1c's shape, with t1c's voxel
    size to the last bit, and with labels that it may hold. A map that lies elsewhere in space than t1c, or is not
    stored as uint8, is a warning: the validator does not look, but something went wrong.

    Args:
        data_path: the folder of cases.
        prediction_path: the folder of label maps.
        labels: what they may hold beside 0.
        source: the source image: the modality whose grid the label maps must have.

    Returns:
        What is wrong, with the folder itself first, then by case; empty when nothing is.
    """
    try:
        survey = survey_cases(data_path, apart_from=[prediction_path])
        entries = _entries(prediction_path)
    except InputError as error:
        return (Finding("", "error", "no-case", str(error), error.hint),)
    names = {path.name for path in entries if path.is_file()}
    findings = list(errors_among(survey.findings))
    findings += _foreign(entries, survey.cases)
    for files in survey.cases:
        name = files.case_id + SUFFIX
        if name in names:
            findings += _compare(files, prediction_path / name, labels, source)
        else:
            what = f"no label map: {printable(name)} is missing"
            findings.append(Finding(files.case_id, "error", "missing", what, "Run again with --resume."))
    return tuple(findings)


def _entries(prediction_path: Path) -> tuple[Path, ...]:
    try:
        return tuple(sorted(prediction_path.iterdir()))
    except OSError as error:
        raise InputError(f"prediction folder {prediction_path} can't be listed: {error.strerror or error}") from error


def _foreign(entries: Sequence[Path], cases: Sequence[CaseFiles]) -> Iterator[Finding]:
    """What must not lie in the folder, and IDs that two files could stand for."""
    known = {files.case_id for files in cases}
    claims: defaultdict[str, list[str]] = defaultdict(list)
    for path in entries:
        name = printable(path.name)
        case_id = path.name.removesuffix(".gz").removesuffix(".nii")
        if path.is_dir():
            yield Finding("", "error", "foreign", f"sub-folder {name}: only label maps may lie here", "Remove it.")
        elif not path.is_file() or not path.name.endswith((SUFFIX, ".nii")):
            yield Finding("", "error", "foreign", f"{name} is not a label map (<ID>{SUFFIX})", "Remove it.")
        elif case_id not in known:
            yield Finding("", "error", "unknown", f"{name} belongs to no case of the input", "Remove it.")
        elif not path.name.endswith(SUFFIX):
            what = f"{name}: names must end in {SUFFIX}"
            yield Finding(case_id, "error", "foreign", what, "Compress it or remove it.")
        if path.is_file():
            claims[case_id.casefold()].append(name)
    for case_id, names in claims.items():
        if len(names) > 1:
            what = f"several files for one case: {', '.join(names)}"
            yield Finding(case_id, "error", "duplicate", what, "Keep one of them.")


def _compare(files: CaseFiles, path: Path, labels: Sequence[int], source: Modality) -> Iterator[Finding]:
    name = printable(path.name)
    try:
        prediction = read_image(path)
    except ImageError as error:
        yield Finding(files.case_id, "error", error.code, f"{name}: {error}", "Segment the case again.")
        return
    yield from _check_labels(files.case_id, name, prediction, labels)
    if prediction.stored_dimensions != len(prediction.grid.shape):
        what = f"{name}: {prediction.stored_dimensions}-D, expected 3-D"
        yield Finding(files.case_id, "error", "not-3d", what, "Drop the further dimensions.")
    try:
        source_image = read_image(files.images[source])
    except (ImageError, KeyError) as error:
        reason = f"{source} is missing" if isinstance(error, KeyError) else f"{source}: {error}"
        yield Finding(files.case_id, "warning", "unreadable", f"{name} can't be compared with the case: {reason}")
        return
    yield from _check_grid(files.case_id, name, prediction, source_image, source)


def _check_grid(case_id: str, name: str, prediction: Image, source_image: Image, source: Modality) -> Iterator[Finding]:
    if prediction.grid.shape != source_image.grid.shape:
        what = f"{name}: {grid_difference(prediction.grid, source_image.grid)}, the shape of {source}"
        yield Finding(case_id, "error", "shape", what, "Bring the labels back to the source grid.")
        return
    found, expected = voxel_sizes(prediction.header), voxel_sizes(source_image.header)
    if found != expected:
        what = f"{name}: voxel size {found}, expected exactly {expected} as in {source}"
        yield Finding(case_id, "error", "spacing", what, f"Copy {source}'s header instead of making one.")
    difference = grid_difference(prediction.grid, source_image.grid)
    if difference:
        what = f"{name}: lies elsewhere than {source}: {difference}"
        yield Finding(case_id, "warning", "moved", what, f"Copy {source}'s header instead of making one.")


def _check_labels(case_id: str, name: str, prediction: Image, labels: Sequence[int]) -> Iterator[Finding]:
    highest = max(labels)
    found = whole_labels(prediction.voxels, highest)
    wrong = np.union1d(found.wrong, found.rounded)  # the challenge's scorer rounds nothing
    wrong = np.union1d(wrong, np.setdiff1d(found.labels, [0, *labels]))
    if wrong.size:
        every = len(set(labels)) == highest
        expected = f"whole numbers from 0 to {highest}" if every else f"0, {', '.join(map(str, sorted(labels)))}"
        what = f"{name}: holds {list_values(wrong, SHOWN_VALUES)}, expected {expected}"
        hint = f"Write labels {f'0 to {highest}' if every else expected} only."
        yield Finding(case_id, "error", "labels", what, hint + (RC_HINT if RC in wrong and ET in labels else ""))
    elif prediction.stored_type != "uint8":
        what = f"{name}: stored as {prediction.stored_type}, expected uint8"
        yield Finding(case_id, "warning", "data-type", what, "Store label maps as uint8.")
