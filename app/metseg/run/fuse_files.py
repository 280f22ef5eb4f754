"""Fusion of label maps that other programs wrote: the work behind `metseg fuse`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from metseg.decide.fusion import fuse_labels
from metseg.errors import InputError, OutputError, UsageError
from metseg.files.label_sets import require_clear_files, require_clear_maps
from metseg.files.names import SUFFIXES
from metseg.files.read import LabelImage, read_label_map
from metseg.files.write import write_label_map
from metseg.findings import listed
from metseg.labels import BACKGROUND, MAX_LABEL, LabelConvention
from metseg.plan.plan import FusionPlan
from metseg.space.grid import grid_difference

logger = logging.getLogger(__name__)

MIN_MEMBERS: Final = 2


@dataclass(frozen=True, slots=True)
class FusedFile:
    """One fused label map, on disk.

    Attributes:
        case_id: the output's name without its suffix.
        inputs: the label maps it was fused from, one per member, in the order given.
        output: the file that was written.
        label_voxels: voxels of each label of the fused map, ascending, without background.
    """

    case_id: str
    inputs: tuple[Path, ...]
    output: Path
    label_voxels: Mapping[int, int]


def fuse_files(
    inputs: Sequence[Path], output: Path, plan: FusionPlan, *, convention: LabelConvention | None = None
) -> tuple[FusedFile, ...]:
    """Fuses label maps from files: one case from files, or every case of several folders, ID by ID.

    Args:
        inputs: two or more NIfTI files of one case; or two or more folders that hold `<ID>.nii.gz` (or `.nii`) for the
            same IDs, whatever else lies in them. One entry per member; the order doesn't matter but for the header,
            which is the first's.
        output: the file to write, `.nii.gz` or `.nii`; or the folder for `<ID>.nii.gz`, made when missing. Existing
            files are replaced; none of the inputs may be.
        plan: any method but `mean`; `maximum` is that of the region masks.
        convention: what label 4 means in the inputs; needed where a file, or all of a folder's, leave it open.

    Returns:
        What was written, sorted by ID.

    Raises:
        UsageError: fewer than two inputs, files mixed with folders, an output that is an input, or a method that needs
            probabilities.
        InputError: a folder lacks a case that another one has, a file is unreadable or holds values other than whole
            numbers from 0 to 255, or two files of one case lie on different grids. Cases before it are written. Or
            label 4 of an input could mean two things (`metseg.files.label_sets`): nothing is written.
        OutputError: the output can't be written.
    """
    if len(inputs) < MIN_MEMBERS:
        raise UsageError(f"fusion needs at least {MIN_MEMBERS} label maps or folders, found {len(inputs)}")
    missing = [path for path in inputs if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]} does not exist", hint="Name label maps, or folders of them.")
    folders = [path for path in inputs if path.is_dir()]
    if folders and len(folders) < len(inputs):
        file = next(path for path in inputs if not path.is_dir())
        raise UsageError(f"files and folders can't be mixed: {folders[0]} is a folder, {file} is a file")
    _refuse_overwriting(inputs, output)
    if not folders:
        case_id, images = _case_id(output), _read_case(inputs, convention)
        for path, image in zip(inputs, images, strict=True):
            require_clear_maps([(path, image.labels)], f"label map {path}", convention)
        return (_fuse_case(case_id, tuple(inputs), images, output, plan),)
    cases = _match_cases(folders)
    for folder, files in zip(folders, zip(*cases.values(), strict=True), strict=True):
        require_clear_files(files, f"label maps in {folder}", convention)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"output {output}: can't be made: {error.strerror}", hint="Name a folder that this user may write to."
        ) from error
    return tuple(
        _fuse_case(case_id, files, _read_case(files, convention), output / f"{case_id}.nii.gz", plan)
        for case_id, files in cases.items()
    )


def _refuse_overwriting(inputs: Sequence[Path], output: Path) -> None:
    if any(output.resolve() == path.resolve() for path in inputs):
        raise UsageError(f"output {output} is also an input", hint="Write the fused label maps somewhere else.")


def _case_id(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    raise UsageError(
        f"output {path} does not end in {' or '.join(SUFFIXES)}",
        hint="The inputs are files, so the output is a file too, such as fused.nii.gz.",
    )


def _match_cases(folders: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Each case's files, one per folder, sorted by ID."""
    files_of = [_label_maps(folder) for folder in folders]
    first = files_of[0]
    for folder, files in zip(folders, files_of, strict=True):
        if files.keys() != first.keys():
            only = [
                f"{listed(sorted(some.keys() - other.keys()))} only in {where}"
                for some, other, where in ((first, files, folders[0]), (files, first, folder))
                if some.keys() - other.keys()
            ]
            raise InputError(
                f"{folders[0]} and {folder} hold different cases: {'; '.join(only)}",
                hint="Every member must have a label map of every case; leave out the others' too.",
            )
    return {case_id: tuple(files[case_id] for files in files_of) for case_id in sorted(first)}


def _label_maps(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"folder {folder} can't be listed: {error.strerror}") from error
    for path in paths:
        # A name with a leading dot is another program's or macOS's own business.
        if path.name.startswith(".") or not path.name.endswith(SUFFIXES):
            continue
        case_id = _case_id(path)
        if case_id in files:
            raise InputError(f"two label maps of case {case_id} in {folder}: {files[case_id].name} and {path.name}")
        files[case_id] = path
    if not files:
        raise InputError(f"no label map in {folder}: looked for <ID>{' or <ID>'.join(SUFFIXES)}")
    return files


def _read_case(inputs: Sequence[Path], convention: LabelConvention | None) -> list[LabelImage]:
    """The members' label maps of one case, on one grid."""
    images: list[LabelImage] = []
    for path in inputs:
        image = read_label_map(path, highest_label=MAX_LABEL, convention=convention)
        difference = grid_difference(image.grid, images[0].grid) if images else ""
        if difference:
            raise InputError(
                f"{path} and {inputs[0]} lie on different grids: {path.name} has {difference} as in {inputs[0].name}",
                hint="Bring all members' label maps to one grid (nearest neighbour) before fusing them.",
            )
        images.append(image)
    return images


def _fuse_case(
    case_id: str, inputs: tuple[Path, ...], images: Sequence[LabelImage], output: Path, plan: FusionPlan
) -> FusedFile:
    try:
        fused = fuse_labels([image.labels for image in images], plan)
    except InputError as error:
        raise InputError(f"{', '.join(str(path) for path in inputs)}: {error}", hint=error.hint) from None
    write_label_map(output, fused, images[0].header)
    found = {int(label): int(voxels) for label, voxels in enumerate(np.bincount(fused.ravel(order="K"))) if voxels}
    found.pop(BACKGROUND, None)
    logger.info("%s: fused from %d label maps, voxels by label %s", case_id, len(inputs), found)
    return FusedFile(case_id, inputs, output, found)
