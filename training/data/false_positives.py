"""What an earlier model invented in the training cases: places for crops that teach it better (hard negatives)."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metseg.errors import UsageError
from metseg.files.case import CaseFiles
from metseg.files.label_sets import require_clear_files
from metseg.files.read import read_label_map
from metseg.labels import tells_et_from_rc
from metseg.space.components import find_components
from metseg.space.grid import grid_difference
from metseg.space.resampling import find_resampling
from training.data.cache import open_entry
from training.data.prepared import Box, seed_voxels
from training.recipe import Recipe
from training.references import bring_to_network, read_reference_map

logger = logging.getLogger(__name__)


def find_false_positives(
    cases: Sequence[CaseFiles], folders: Sequence[Path], entries: Mapping[str, Path], recipe: Recipe
) -> dict[str, NDArray[np.int32]]:
    """Finds them in label maps as `metseg infer` writes them.

    A false positive is a 26-connected component of the recipe's `crops.lesion_region` that touches no label of the
    reference, large lesions included where the recipe leaves those out.

    Args:
        cases: the training cases; one without label map in any folder has none.
        folders: of `<ID>.nii.gz`; the first that has a case's counts.
        entries: folder of each case's cache entry, by ID.
        recipe: of the run.

    Returns:
        By case ID, where there are any: shape (n, 4) int32, component and x, y, z inside the prepared box, as in
        `TrainingCase.lesion_voxels`.

    Raises:
        InputError: a label map can't be read, or label 4 of a folder's could mean two things
            (`metseg.files.label_sets`).
        UsageError: no training case has a label map, or one lies on another grid than the case's reference.
    """
    found = {}
    maps = 0
    if tells_et_from_rc(recipe.regions):
        _require_clear_labels(cases, folders)
    for files in cases:
        path = next((path for folder in folders if (path := folder / f"{files.case_id}.nii.gz").is_file()), None)
        if path is None:
            continue
        maps += 1
        voxels = _in_case(files, path, open_entry(entries[files.case_id]).box, recipe)
        if len(voxels):
            found[files.case_id] = voxels
    if not maps:
        raise UsageError(
            f"--predictions {', '.join(map(str, folders))}: expected label maps <ID>.nii.gz of the training cases, "
            "found none",
            hint="Make them with `metseg infer --data-path DATA --output-path FOLDER`.",
        )
    logger.info("false positives in %d of %d training cases with a label map", len(found), maps)
    return found


def _require_clear_labels(cases: Sequence[CaseFiles], folders: Sequence[Path]) -> None:
    convention = next((files.convention for files in cases), None)
    for folder in folders:
        paths = (folder / f"{files.case_id}.nii.gz" for files in cases)
        require_clear_files((path for path in paths if path.is_file()), f"--predictions {folder}", convention)


def _in_case(files: CaseFiles, path: Path, box: Box, recipe: Recipe) -> NDArray[np.int32]:
    predicted = read_label_map(path, convention=files.convention)
    reference = read_reference_map(files)
    difference = grid_difference(predicted.grid, reference.grid)
    if difference:
        raise UsageError(
            f"case {files.case_id}: {path} is not on the reference's grid: {difference}",
            hint="Label maps must be of the training cases themselves.",
        )
    region = recipe.regions.listed[recipe.lesion_channel]
    resampling = find_resampling(predicted.grid, recipe.data.spacing_mm, recipe.data.frame)
    shown = recipe.regions.mask(bring_to_network(predicted.labels, resampling, recipe.regions), region)
    components = find_components(shown).to_volume()
    true = np.unique(components[bring_to_network(reference.labels, resampling, recipe.regions) > 0])
    components[np.isin(components, true)] = 0
    cut = components[tuple(slice(first, end) for first, end in box)]
    return seed_voxels(cut[np.newaxis])[:, 1:]
