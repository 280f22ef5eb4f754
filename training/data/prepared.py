"""One case as training reads it, and how it is made from files: with the functions that inference uses."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from metseg.files.case import CaseFiles
from metseg.files.read import read_case
from metseg.labels import LabelMap, Regions
from metseg.prepare.prepare import prepare_case
from metseg.space.components import find_components
from metseg.systems import OWN_GRID, Modality, system_of_regions
from training.recipe_sections import DataRecipe
from training.references import read_reference

logger = logging.getLogger(__name__)

SEED_VOXELS = 64
"""Voxels remembered for each lesion, to centre crops on."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and end along x, y, z."""


@dataclass(frozen=True, slots=True)
class TrainingCase:
    """A prepared case, cut to its brain's box; outside of it every channel is 0.

    Attributes:
        case_id: see CaseFiles.
        modalities: the images, in the order of `images`; without the subtraction, which augmentation computes anew.
        images: shape (modalities, x, y, z), float16 in [0, 1], RAS axes.
        components: shape (regions, x, y, z), int16: 0 or the number of the 26-connected component, found on the full
            volume.
        lesion_voxels: shape (n, 5) int32: region, component, and x, y, z inside the box of voxels of it: at most
            SEED_VOXELS, evenly taken.
        box: the brain's box in the full volume.
        volume_shape: of the full volume on the network's grid.
        brain: the brain's box in the full volume; None where that is `box`. Images that are not stripped are kept
            whole: the head goes on around the brain, and a network's context reads it.
        volumes: shape (components + 1,): voxels of each component of the first region, by number; 0 of the background.
        brain_share: of the full volume's voxels; None where the images don't tell.
    """

    case_id: str
    modalities: tuple[Modality, ...]
    images: NDArray[np.float16]
    components: NDArray[np.int16]
    lesion_voxels: NDArray[np.int32]
    box: Box
    volume_shape: tuple[int, int, int]
    brain: Box | None = None
    volumes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    brain_share: float | None = None


def prepare_training_case(files: CaseFiles, recipe: DataRecipe, regions: Regions) -> TrainingCase:
    """Reads and prepares a case with its reference.

    Args:
        files: the case.
        recipe: how it is prepared.
        regions: what the network predicts.

    Raises:
        InputError: the case can't be read, has no `-seg`, or its reference lies on another grid.
    """
    system = system_of_regions(regions.names)
    readable = [name for name in system.modalities if name not in OWN_GRID or recipe.registration is not None]
    wanted = [name for name in readable if name in files.images]
    case = read_case(files, modalities=wanted, is_stripped=system.is_stripped)
    for finding in case.warnings:
        logger.warning("case %s: %s", files.case_id, finding.what)
    prepared = prepare_case(
        case,
        recipe.intensity,
        spacing_mm=recipe.spacing_mm,
        frame=recipe.frame,
        registration=recipe.registration,
    )
    labels = read_reference(files, prepared.resampling, regions)
    images: Mapping[Modality, NDArray[np.float32]] = {name: prepared.channels[name] for name in wanted}
    x, y, z = ((side.start, side.stop) for side in prepared.brain)
    largest = recipe.max_lesion_voxels
    if system.is_stripped:
        stripped = build_training_case(
            files.case_id, images, labels, (x, y, z), regions=regions, max_lesion_voxels=largest
        )
        return replace(stripped, brain_share=prepared.brain_share)
    box = _whole_box(labels)
    whole = build_training_case(files.case_id, images, labels, box, regions=regions, max_lesion_voxels=largest)
    return replace(whole, brain=_widened((x, y, z), labels))


def build_training_case(
    case_id: str,
    images: Mapping[Modality, NDArray[np.float32]],
    labels: LabelMap,
    box: Box,
    *,
    regions: Regions,
    max_lesion_voxels: int | None = None,
) -> TrainingCase:
    """Puts a training case together from volumes on the network's grid.

    Args:
        case_id: see CaseFiles.
        images: shape (x, y, z) each, scaled to [0, 1].
        labels: same shape.
        box: the brain's; widened to hold every labelled voxel.
        regions: what the network predicts; one without voxels in the case has no components.
        max_lesion_voxels: see `DataRecipe`.
    """
    if max_lesion_voxels is not None:
        labels = drop_large_lesions(labels, regions, max_lesion_voxels)
    box = _widened(box, labels)
    cut = tuple(slice(first, end) for first, end in box)
    components = np.stack([find_components(mask[cut]).to_volume() for mask in regions.split(labels)])
    return TrainingCase(
        case_id=case_id,
        modalities=tuple(images),
        images=np.stack([volume[cut] for volume in images.values()]).astype(np.float16),
        components=components.astype(np.int16),
        lesion_voxels=seed_voxels(components),
        box=box,
        volume_shape=labels.shape,
        volumes=np.concatenate([[0], np.bincount(components[0].reshape(-1))[1:]]),
    )


def drop_large_lesions(labels: LabelMap, regions: Regions, max_voxels: int) -> LabelMap:
    """Removes lesions of more than `max_voxels` from the label (Erdur et al. 2023, section 2.5: tau = 1000)."""
    found = find_components(regions.whole_mask(labels))
    kept = labels.copy()
    kept.reshape(-1)[found.pick_voxels(found.sizes > max_voxels)] = 0
    return kept


def _whole_box(labels: LabelMap) -> Box:
    x, y, z = labels.shape
    return (0, x), (0, y), (0, z)


def _widened(box: Box, labels: LabelMap) -> Box:
    labelled = np.nonzero(labels)
    if labelled[0].size == 0:
        return box
    sides = [
        (min(first, int(axis.min())), max(end, int(axis.max()) + 1))
        for (first, end), axis in zip(box, labelled, strict=True)
    ]
    return sides[0], sides[1], sides[2]


def seed_voxels(components: NDArray[np.int32]) -> NDArray[np.int32]:
    """Voxels of each component to centre crops on: at most SEED_VOXELS, evenly taken.

    Args:
        components: shape (regions, x, y, z): 0 or the component's number.

    Returns:
        Shape (n, 5): region, component, x, y, z.
    """
    rows = [np.zeros((0, 5), dtype=np.int32)]
    for region in range(len(components)):
        flat = components[region].ravel()
        inside = np.flatnonzero(flat)
        for number in range(1, int(flat.max(initial=0)) + 1):
            voxels = inside[flat[inside] == number]
            chosen = voxels[np.linspace(0, voxels.size - 1, min(SEED_VOXELS, voxels.size)).round().astype(int)]
            x, y, z = np.unravel_index(chosen, components.shape[1:])
            rows.append(np.stack([np.full_like(x, region), np.full_like(x, number), x, y, z], axis=1).astype(np.int32))
    return np.concatenate(rows)
