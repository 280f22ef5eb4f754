"""Cases and label maps, from NIfTI files."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.files.case import Case, CaseFiles, Scan
from metseg.files.header import ImageError
from metseg.files.image import Image, read_image
from metseg.files.rules import examine_case, say_rivals
from metseg.findings import SHOWN_NAMES, Finding, errors_among, listed, printable, warning
from metseg.labels import MAX_LABEL, LabelConvention, LabelMap, follow_convention
from metseg.space.grid import Grid
from metseg.systems import HIGHEST_LABEL, OWN_GRID, SOURCE_MODALITY, Modality

logger = logging.getLogger(__name__)

WHOLE_TOLERANCE: Final = 1e-3
"""Label maps of other programs miss whole numbers by this much, from resampling or a slope (0.9999999)."""

FLOAT_ROUNDING: Final = float(np.finfo(np.float32).eps)
"""A value as read differs by at most this share of it from the value that was written."""


@dataclass(frozen=True, slots=True)
class LabelImage:
    """A label map as read.

    Attributes:
        labels: shape `grid.shape`, in the file's axis order.
        grid: where they lie.
        header: the NIfTI header's bytes as they are in the file; `write_label_map` takes them.
        stored_type: number type in the file, such as int16.
        findings: warnings about its values, of no case yet.
    """

    labels: LabelMap
    grid: Grid
    header: bytes
    stored_type: str
    findings: tuple[Finding, ...] = ()


def read_case(
    files: CaseFiles,
    *,
    modalities: Sequence[Modality],
    source: Modality = SOURCE_MODALITY,
    is_stripped: bool = True,
    brain_share: float | None = None,
) -> Case:
    """Reads a case's images and makes sure that they can be used (docs/input.md).

    Args:
        files: where they lie.
        modalities: those to read; all of them must be there. Where they leave out the source image, the first of them
            takes its place.
        source: the source image: the modality whose grid the others must have (those of OWN_GRID keep theirs) and whose
            header a written label map copies.
        is_stripped: see `metseg.files.rules.examine_case`.
        brain_share: see there.

    Returns:
        Images in float32, finite, on one grid, axes in the file's order; stripped ones over a background of 0.

    Raises:
        InputError: names every error of the case, as `metseg check` does.
    """
    refuse_unusable(files)
    findings = list(files.findings)
    images: dict[Modality, Image] = {}
    for examined in examine_case(
        files, required=modalities, source=source, is_stripped=is_stripped, brain_share=brain_share
    ):
        findings += examined.findings
        if examined.image is not None:
            images[examined.modality] = examined.image
    _refuse_errors(files, findings)
    first = images[source if source in images else modalities[0]]
    return Case(
        case_id=files.case_id,
        grid=first.grid,
        images={modality: images[modality].voxels for modality in modalities if modality not in OWN_GRID},
        source_header=first.header,
        warnings=tuple(findings),
        scans={
            modality: Scan(images[modality].voxels, images[modality].grid, images[modality].header)
            for modality in modalities
            if modality in OWN_GRID
        },
    )


def refuse_unusable(files: CaseFiles, modalities: Sequence[Modality] = ()) -> None:
    """Raises what the names of a case's files say against it, before anybody asks what is missing.

    Raises:
        InputError: its folder can't be listed, or holds images of other names alone; or one of the modalities has
            several files.
    """
    rivals = [say_rivals(files, modality) for modality in modalities if modality in files.rivals]
    _refuse_errors(files, (*files.findings, *rivals))


def _refuse_errors(files: CaseFiles, findings: Iterable[Finding]) -> None:
    errors = errors_among(findings)
    if errors:
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        what = "; ".join(error.what for error in errors)
        raise InputError(f"case {printable(files.case_id)}: {what}", hint=" ".join(hints))


def read_label_map(
    path: Path, *, highest_label: int = HIGHEST_LABEL, convention: LabelConvention | None = None
) -> LabelImage:
    """Reads a label map of any number type: whole numbers from 0 to the highest label.

    What is odd about it goes to the log.

    Args:
        path: NIfTI, compressed or not; floats within WHOLE_TOLERANCE of a whole number count as that number.
        highest_label: at most 255.
        convention: what 4 means where the file's set does not say (`metseg.files.label_sets`); None reads it as RC.

    Raises:
        InputError: unreadable (see `metseg.files.image.read_image`), values that are no label, which it lists, or
            labels that contradict the convention.
    """
    found = examine_label_map(path, highest_label=highest_label, convention=convention)
    for finding in found.findings:
        logger.warning("%s", finding.what)
    return found


def examine_label_map(
    path: Path, *, highest_label: int = HIGHEST_LABEL, convention: LabelConvention | None = None
) -> LabelImage:
    """As `read_label_map`, for callers that show the findings themselves."""
    try:
        image = read_image(path)
    except ImageError as error:
        raise ImageError(error.code, f"label map {path}: {error}", hint=error.hint) from None
    found = whole_labels(image.voxels, highest_label)
    if found.wrong.size:
        raise ImageError(
            "labels",
            f"label map {path}: holds {list_values(found.wrong)}, expected whole numbers from 0 to {highest_label}",
            hint="Give a label map, not an image or probabilities.",
        )
    try:
        labels = follow_convention(found.labels, convention)
    except ValueError as error:
        raise ImageError("labels", f"label map {path}: {error}", hint="Leave out --labels, or the file.") from None
    findings: tuple[Finding, ...] = ()
    if found.rounded.size:
        what = f"label map {path}: {list_values(found.rounded)} rounded to whole numbers"
        findings = (warning("labels", what, "Write label maps as integers."),)
    return LabelImage(labels, image.grid, image.header, image.stored_type, findings)


@dataclass(frozen=True, slots=True)
class WholeLabels:
    """An image's values as labels.

    Attributes:
        labels: of the image's shape; they mean something only where no value is wrong.
        rounded: the values that were near a whole number and became it; each once, ascending.
        wrong: the values that are no whole number from 0 to the highest label; likewise. So are values near 0 that
            differ from each other where no label is: they may be labels under a wrong slope, or probabilities.
    """

    labels: LabelMap
    rounded: NDArray[np.floating[Any]]
    wrong: NDArray[np.floating[Any]]


def whole_labels(voxels: NDArray[Any], highest_label: int) -> WholeLabels:
    """Takes an image's values for labels.

    Args:
        voxels: any shape and number type; may hold NaN and infinities.
        highest_label: at most 255.
    """
    with np.errstate(invalid="ignore"):  # what is no label becomes some number and then differs from itself
        labels = voxels.astype(np.uint8)
    is_odd = labels != voxels
    if highest_label < MAX_LABEL:
        is_odd |= labels > highest_label
    if not is_odd.any():
        return WholeLabels(labels, np.zeros(0), np.zeros(0))
    odd = voxels[is_odd].astype(np.float64)
    nearest = np.clip(np.rint(odd), 0, highest_label)
    is_near = np.abs(odd - nearest) <= WHOLE_TOLERANCE + FLOAT_ROUNDING * np.maximum(nearest, 1)
    labels[is_odd] = np.where(is_near, nearest, 0).astype(np.uint8)
    if not labels.any() and voxels.min() != voxels.max():
        is_near &= False  # tiny values alone: labels under a wrong slope, or probabilities
    return WholeLabels(labels, np.unique(odd[is_near]), np.unique(odd[~is_near]))


def list_values(values: NDArray[np.floating[Any]], shown: int = SHOWN_NAMES) -> str:
    """The first of many values as a message shows them: 0.9999999 is not 1."""
    return listed([_spell(value) for value in values.astype(np.float32)], shown)


def _spell(value: np.float32) -> str:
    short = f"{value:g}"
    return short if np.float32(short) == value else str(value)
