"""A label map as DICOM objects on a series: Segmentation and RT Structure Set, checked by reading them back."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from metseg.dicom.placing import place_by_volume, place_same_voxels, turn_onto
from metseg.dicom.seg import (
    Frames,
    arrange_frames,
    count_voxels,
    decode_segmentation,
    encode_segmentation,
    to_frames,
)
from metseg.dicom.series import Series
from metseg.dicom.structure_set import NOTHING_FOUND, Structure, decode_structure_set, encode_structure_set
from metseg.dicom.targets import find_targets
from metseg.errors import InputError, OutputError
from metseg.files.atomic import write_atomically
from metseg.files.header import parse_header, states_orientation
from metseg.files.label_sets import require_clear_maps
from metseg.files.read import read_label_map
from metseg.labels import LabelConvention, LabelMap, tells_et_from_rc
from metseg.space.components import find_components
from metseg.space.grid import Affine, Grid
from metseg.space.rigid import lesions_outside, move_labels
from metseg.systems import SYSTEMS, System

logger = logging.getLogger(__name__)

ObjectKind = Literal["seg", "rtstruct"]
"""Segmentation, RT Structure Set."""

_MULTI_FRAME = "few planning systems read contours on a multi-frame image; export it as images of one frame for them"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a label map goes.

    Attributes:
        series: the DICOM series that the source image was converted from, or another one of the patient.
        registration: shape (4, 4), rigid: a point of the label map's world in RAS millimetres to the same point in the
            series'; None where both have one grid.
        may_hold_labels: whether a label map on the series' own grid needs no registration, as those of
            `infer --grid ct`.
    """

    series: Series
    registration: Affine | None = None
    may_hold_labels: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A label map and the series that it goes to.

    Attributes:
        labels: shape (x, y, z).
        grid: of the labels, in the world of the series.
        series: as read.
        system: what the labels mean.
        frames: the labels on the series where both have one grid, else None.
    """

    labels: LabelMap
    grid: Grid
    series: Series
    system: System
    frames: Frames | None


def export_dicom(
    label_map: Path,
    destination: Destination,
    outputs: Mapping[ObjectKind, Path],
    system: System,
    *,
    convention: LabelConvention | None = None,
) -> dict[Path, str]:
    """Writes a label map as DICOM objects on a series; all of them, or none where one can't be made.

    Args:
        label_map: without a registration on the grid of the series; axes may be permuted and flipped, as converters do.
        destination: the series, and the way there.
        outputs: the file to write for each kind of object.
        system: what the labels mean.
        convention: what label 4 means; needed where the map leaves it open.

    Returns:
        What was written to each file, in words.

    Raises:
        InputError: the label map can't be used, it does not lie on the series' grid or no lesion lies on the series, a
            label is none of the system's, or label 4 could mean two things (`metseg.files.label_sets`).
        OutputError: a file can't be written, or does not read back as it was.
    """
    source = _read_source(label_map, destination, system, convention)
    made = {}
    for kind, path in outputs.items():
        make = _make_segmentation if kind == "seg" else _make_structure_set
        made[path] = make(source, path)
    for path, (content, _) in made.items():
        write_atomically(path, content)
    return {path: words for path, (_, words) in made.items()}


def _read_source(
    label_map: Path, destination: Destination, system: System, convention: LabelConvention | None
) -> Source:
    image = read_label_map(label_map, convention=convention)
    if tells_et_from_rc(system.regions):
        require_clear_maps([(label_map, image.labels)], f"label map {label_map}", convention)
    _check_labels(label_map, image.labels, system)
    series, matrix = destination.series, destination.registration
    for remark in series.remarks:
        logger.warning("DICOM series %s: %s", series.path, remark)
    is_there = not turn_onto(image.labels, image.grid, series.grid)[1]
    if matrix is None or (destination.may_hold_labels and is_there):
        frames = arrange_frames(image.labels, image.grid, series)
        return Source(image.labels, image.grid, series, system, frames)
    if not states_orientation(parse_header(image.header)):
        raise InputError(
            f"label map {label_map}: its header does not say where it lies, so no registration leads on from there",
            hint="Give a label map with a qform or sform: that of the image which was registered.",
        )
    grid = Grid(image.grid.shape, matrix @ image.grid.affine)
    turned, difference = turn_onto(image.labels, grid, series.grid)
    return Source(image.labels, grid, series, system, None if difference else to_frames(turned))


def _check_labels(label_map: Path, labels: LabelMap, system: System) -> None:
    found = {int(label) for label in np.unique(labels)} - {0}
    strange = sorted(found - system.label_kinds.keys())
    if strange:
        raise InputError(
            f"label map {label_map}: holds {strange}, but {system.name} label maps know {sorted(system.label_kinds)}",
            hint="Leave --system out for label maps of a BraTS bundle.",
        )
    for other in SYSTEMS.values():
        if found == other.label_kinds.keys() and found < system.label_kinds.keys():
            logger.warning(
                "%s holds label %s alone, which is exported as %s; of a %s bundle's add --system %s",
                label_map,
                ", ".join(map(str, sorted(found))),
                ", ".join(system.label_kinds[label].dicom_name for label in sorted(found)),
                other.name,
                other.name,
            )


def _make_segmentation(source: Source, path: Path) -> tuple[bytes, str]:
    """A Segmentation's bytes and what it holds."""
    frames = _move_to_series(source) if source.frames is None else source.frames
    content = encode_segmentation(frames, source.series, source.system)
    if not np.array_equal(decode_segmentation(content, source.series), frames):
        raise OutputError(f"{path}: the segmentation does not read back as it was written; nothing was written")
    return content, "; ".join(f"{name}: {count} voxels" for name, count in count_voxels(frames, source.system).items())


def _move_to_series(source: Source) -> Frames:
    """The labels on a series of another grid.

    Raises:
        InputError: there are lesions, and none of them lies there.
    """
    way = (source.labels, source.grid, source.series.grid, np.eye(4), source.system.regions)
    outside, lesions = lesions_outside(*way), find_components(source.system.regions.whole_mask(source.labels)).count
    if outside == lesions > 0:
        raise _refuse_series(source, lesions)
    if outside:
        logger.warning("DICOM series %s: %d of %d lesions outside it, left out", source.series.path, outside, lesions)
    return to_frames(move_labels(*way))


def _refuse_series(source: Source, lesions: int) -> InputError:
    return InputError(
        f"DICOM series {source.series.path}: none of the label map's {lesions} lesions lies on it",
        hint="Name the series of this patient, and the registration from the label map to the series, not back.",
    )


def _make_structure_set(source: Source, path: Path) -> tuple[bytes, str]:
    """A structure set's bytes and what it holds."""
    if source.series.frames:
        logger.warning("DICOM series %s: %s", source.series.path, _MULTI_FRAME)
    structures = _place_targets(source) or (NOTHING_FOUND,)
    content = encode_structure_set(structures, source.series)
    expected = tuple(structure.list_voxels() for structure in structures)
    if decode_structure_set(content, source.series) != expected:
        raise OutputError(f"{path}: the structure set does not read back as it was written; nothing was written")
    return content, "; ".join(structure.name for structure in structures)


def _place_targets(source: Source) -> tuple[Structure, ...]:
    """The targets that lie on the series.

    Raises:
        InputError: there are targets, and none of them does.
    """
    targets = find_targets(source.labels, source.grid, source.system)
    structures, outside, cut = [], [], []
    for target in targets:
        way = (target.box, target.mask, source.grid, source.series.grid)
        placed = place_by_volume(*way) if source.frames is None else place_same_voxels(*way)
        if placed is None:
            outside.append(target.name)
            continue
        if not placed.is_whole:
            cut.append(target.name)
        structures.append(
            Structure(target.name, target.description, target.interpreted_type, target.volume_mm3, placed)
        )
    if targets and not structures:
        raise _refuse_series(source, len(targets))
    for names, what in ((outside, "outside the series, left out"), (cut, "cut off at the end of the series")):
        if names:
            logger.warning("DICOM series %s: %s: %s", source.series.path, what, ", ".join(names))
    return tuple(structures)
