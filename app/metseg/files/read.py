"""Cases and label maps, from NIfTI files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.files.case import Case, CaseFiles, Scan
from metseg.files.header import ImageError
from metseg.files.image import Image, read_image
from metseg.files.rules import examine_case
from metseg.findings import Finding, errors_among, listed, printable
from metseg.labels import LabelMap
from metseg.space.grid import FloatVolume, Grid
from metseg.systems import HIGHEST_LABEL, OWN_GRID, SOURCE_MODALITY, Modality


@dataclass(frozen=True, slots=True)
class LabelImage:
    """A label map as read.

    Attributes:
        labels: shape `grid.shape`, in the file's axis order.
        grid: where they lie.
        header: the NIfTI header's bytes as they are in the file; `write_label_map` takes them.
        stored_type: number type in the file, such as int16.
    """

    labels: LabelMap
    grid: Grid
    header: bytes
    stored_type: str


def read_case(files: CaseFiles, *, modalities: Sequence[Modality], source: Modality = SOURCE_MODALITY) -> Case:
    """Reads a case's images and makes sure that they can be used (docs/input.md).

    Args:
        files: where they lie.
        modalities: those to read; all of them must be there. Where they leave out the source image, the first of them
            takes its place.
        source: the source image: the modality whose grid the others must have (those of OWN_GRID keep theirs) and whose
            header a written label map copies.

    Returns:
        Images in float32, finite, on one grid, axes in the file's order.

    Raises:
        InputError: names every error of the case, as `metseg check` does.
    """
    findings: list[Finding] = []
    images: dict[Modality, Image] = {}
    for examined in examine_case(files, required=modalities, source=source):
        findings += examined.findings
        if examined.image is not None:
            images[examined.modality] = examined.image
    errors = errors_among(findings)
    if errors:
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        what = "; ".join(error.what for error in errors)
        raise InputError(f"case {printable(files.case_id)}: {what}", hint=" ".join(hints))
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


def read_label_map(path: Path, *, highest_label: int = HIGHEST_LABEL) -> LabelImage:
    """Reads a label map of any number type: whole numbers from 0 to the highest label.

    Args:
        path: NIfTI, compressed or not; floats that are whole numbers are accepted.
        highest_label: at most 255.

    Raises:
        InputError: unreadable (see `metseg.files.image.read_image`), or values that are no label, which it lists.
    """
    try:
        image = read_image(path)
    except ImageError as error:
        raise ImageError(error.code, f"label map {path}: {error}", hint=error.hint) from None
    labels, wrong = whole_labels(image.voxels, highest_label)
    if wrong.size:
        raise ImageError(
            "labels",
            f"label map {path}: holds {listed([f'{value:g}' for value in wrong])}, "
            f"expected whole numbers from 0 to {highest_label}",
            hint="Give a label map, not an image or probabilities.",
        )
    return LabelImage(labels, image.grid, image.header, image.stored_type)


def whole_labels(voxels: FloatVolume, highest_label: int) -> tuple[LabelMap, NDArray[np.float32]]:
    """An image's values as labels, and those that are none.

    Args:
        voxels: any shape; may hold NaN and infinities.
        highest_label: at most 255.

    Returns:
        The labels, of the same shape, and the values that are no whole number from 0 to `highest_label`: each once,
        ascending. The labels mean something only where there is no such value.
    """
    with np.errstate(invalid="ignore"):  # what is no label becomes some number and then differs from itself
        labels = voxels.astype(np.uint8)
    is_wrong = labels != voxels
    if highest_label < np.iinfo(np.uint8).max:
        is_wrong |= labels > highest_label
    return labels, np.unique(voxels[is_wrong]) if is_wrong.any() else np.zeros(0, dtype=np.float32)
