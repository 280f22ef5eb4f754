"""What the tests of training need: labelled phantoms in memory and on disk, and a recipe that takes milliseconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from metseg.labels import BRATS_REGIONS
from metseg.predict.device import Device
from training.data.cache import keep_entry
from training.data.prepared import TrainingCase, build_training_case
from training.recipe import Recipe
from training.recipe_sections import DataRecipe

SHAPE = (32, 40, 24)
LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
MODALITIES = ("t1n", "t1c", "t2w", "t2f")
CPU = Device("cpu", "float32", "CPU, one thread", 1)

SMALL: dict[str, Any] = {
    "name": "small",
    "crops": {"size": (16, 16, 16), "per_case": 2, "lesion_probability": 0.5},
    "network": {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
    "loss": {"dice_ce_weight": 2, "blob_weight": 1, "vae_weight": 0},
    "optimizer": {"learning_rate": 0.01},
    "validation": {"every_epochs": 2, "window": {"size": (32, 40, 24), "overlap": 0}},
    "epochs": 4,
    "batch_cases": 2,
    "seed": 5,
}


def small_recipe(**changes: Any) -> Recipe:
    """The small recipe with sections changed key by key."""
    content = dict(SMALL)
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, Mapping) else value
    return Recipe.model_validate(content)


def labelled_phantom(
    seed: int, shape: tuple[int, int, int] = SHAPE, lesions: int = 3
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.uint8]]:
    """A stripped ellipsoid with a few tumours: a core of 1, a rim of 3, oedema of 2 around it."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    brain = sum(axis**2 for axis in axes) < 0.9
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    labels = np.zeros(shape, dtype=np.uint8)
    for _ in range(lesions):
        centre = [rng.integers(side // 4, 3 * side // 4) for side in shape]
        distance = np.sqrt(sum((index[axis] - centre[axis]) ** 2 for axis in range(3)))
        radius = rng.uniform(1.0, 3.5)
        labels[(distance < radius + 1.5) & (labels == 0)] = 2
        labels[distance < radius] = 3
        labels[distance < radius - 1.5] = 1
    labels *= brain
    images = {}
    for number, modality in enumerate(MODALITIES):
        volume = 200 + 50 * number + 20 * rng.standard_normal(shape)
        for label, gain in {"t1c": {1: -80, 3: 300}, "t2f": {1: 100, 2: 200, 3: 100}}.get(modality, {}).items():
            volume[labels == label] += gain
        images[modality] = (volume * brain).astype(np.float32)
    return images, labels


def write_labelled_case(folder: Path, case_id: str, seed: int, *, lesions: int = 3, without: str = "") -> Path:
    """Writes a phantom in the challenge's layout with its reference; returns its folder."""
    images, labels = labelled_phantom(seed, lesions=lesions)
    case = folder / case_id
    case.mkdir(parents=True)
    for name, volume in {**{key: item.astype(np.int16) for key, item in images.items()}, "seg": labels}.items():
        if name != without:
            nib.save(nib.Nifti1Image(volume, LPS), case / f"{case_id}-{name}.nii.gz")
    return case


def write_labelled_cohort(folder: Path, cases: int, *, first_seed: int = 0) -> Path:
    """Cases P-00000-000, P-00001-000, ... in a folder."""
    for number in range(cases):
        write_labelled_case(folder, f"P-{number:05d}-000", first_seed + number)
    return folder


def training_case(seed: int, *, lesions: int = 3, recipe: DataRecipe | None = None) -> TrainingCase:
    """A prepared phantom in memory."""
    images, labels = labelled_phantom(seed, lesions=lesions)
    brain = images["t1n"] != 0
    box = tuple(
        (int(np.flatnonzero(brain.any(axis=other))[0]), int(np.flatnonzero(brain.any(axis=other))[-1]) + 1)
        for other in ((1, 2), (0, 2), (0, 1))
    )
    scaled = {name: np.clip(volume / 800, 0, 1).astype(np.float32) for name, volume in images.items()}
    largest = recipe.max_lesion_voxels if recipe else None
    return build_training_case(f"case-{seed}", scaled, labels, box, regions=BRATS_REGIONS, max_lesion_voxels=largest)


def write_entries(folder: Path, cases: int, *, lesions: int = 3) -> dict[str, Path]:
    """Cache entries of phantoms by case ID."""
    entries = {}
    for seed in range(cases):
        case = training_case(seed, lesions=lesions)
        entries[case.case_id] = keep_entry(case.case_id, f"key-{seed}", folder, lambda case=case: case)
    return entries
