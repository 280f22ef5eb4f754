"""What the radiosurgery system's tests need: tiny heads with a planning CT, and recipes that take seconds."""

from pathlib import Path
from typing import Any

import numpy as np

from metseg.domain import Scan
from metseg.radiosurgery_plan import RegistrationPlan
from training.cohort.radiosurgery_case import RadiosurgeryCase, generate_radiosurgery_case
from training.cohort.settings import CohortSettings, load_settings
from training.cohort.writing import write_radiosurgery_case
from training.recipe import Recipe

TINY_REGISTRATION: dict[str, Any] = {
    "grids_mm": (4.0, 2.0),
    "start_degrees": 8,
    "sample_share": 1.0,
    "smallest_head_ml": 50,
    "check_shift_mm": 4,
    "check_grid_mm": 1.5,
}
"""For heads at 0.4 of their length."""


def tiny_settings(**ct: Any) -> CohortSettings:
    """Heads at 0.4 of their length, a few large metastases, a coarse CT; `ct` changes its settings."""
    settings = load_settings(size="tiny", system="radiosurgery")
    changes = {"spacing_mm": (1.2, 1.2, 2.0), "rotation_degrees": (3.0, 8.0), "shift_mm": (2.0, 5.0)} | ct
    lesions = settings.lesions.model_copy(update={"diameter_median_mm": 20.0, "diameter_range_mm": (6.0, 40.0)})
    return settings.model_copy(update={"ct": settings.ct.model_copy(update=changes), "lesions": lesions})


def tiny_case(index: int, **ct: Any) -> RadiosurgeryCase:
    """One tiny head."""
    return generate_radiosurgery_case(tiny_settings(**ct), 11, index)


def write_tiny_cohort(folder: Path, cases: int, first: int = 0) -> Path:
    """Some tiny heads in a folder."""
    for index in range(first, first + cases):
        write_radiosurgery_case(tiny_case(index), folder)
    return folder


def scan_of(case: RadiosurgeryCase) -> Scan:
    """The CT as reading gives it."""
    return Scan(case.ct.voxels.astype(np.float32), case.ct.grid, b"")


def tiny_registration(**changes: Any) -> RegistrationPlan:
    """Registration of tiny heads."""
    return RegistrationPlan(**{**TINY_REGISTRATION, **changes})


def tiny_recipe(architecture: str, **changes: Any) -> Recipe:
    """A network of a few features on a coarse grid."""
    common: dict[str, Any] = {
        "name": architecture,
        "data": {
            "channels": ("ct", "t1c"),
            "spacing_mm": (1.2, 1.2, 2.0),
            "frame": (96, 96),
            "intensity": {"kind": "radiosurgery"},
            "registration": TINY_REGISTRATION,
        },
        "split": {"train": 0.6, "validation": 0.4},
        "augmentation": {"affine_probability": 0, "noise_probability": 0},
        "validation": {"every_epochs": 100, "window": {"size": (96, 96, 8), "overlap": 0, "extent": "trimmed"}},
        "epochs": 4,
        "seed": 3,
    }
    own: dict[str, dict[str, Any]] = {
        "unet3d": {
            "crops": {"size": (48, 48, 8), "per_case": 1, "domain": "brain", "lesion_probability": 0.7},
            "network": {"architecture": "unet3d", "filters": (4, 8)},
            "loss": {"kind": "volume_aware"},
            "optimizer": {"kind": "rmsprop", "learning_rate": 0.01},
            "batch_cases": 1,
        },
        "deepmedic": {
            "crops": {"size": (21, 21, 21), "context": 42, "per_case": 1, "domain": "brain", "lesion_probability": 0.5},
            "network": {
                "architecture": "deepmedic",
                "pathway_features": (2, 2, 2, 2, 2, 2, 3, 3),
                "joint_features": (9, 9),
            },
            "loss": {"kind": "cross_entropy"},
            "optimizer": {"kind": "rmsprop", "nesterov": 0.6, "l1": 1e-6, "l2": 1e-4, "halved_at_epochs": (2, 3)},
            "batch_cases": 2,
        },
    }
    content = common | own[architecture]
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    return Recipe.model_validate(content)
