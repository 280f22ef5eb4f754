"""What the radiosurgery system's tests need: tiny heads with a planning CT, and recipes that take seconds."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save

from metseg.files.case import Scan
from metseg.network import build_network
from metseg.plan.bundle import describe_member
from metseg.plan.plan import MemberPlan, Plan
from metseg.plan.radiosurgery import RegistrationPlan
from training.cohort.radiosurgery_case import RadiosurgeryCase, generate_radiosurgery_case
from training.cohort.settings import CohortSettings, load_settings
from training.cohort.writing import write_case
from training.recipe import Recipe
from training.systems import RADIOSURGERY_TRAINING

SRS_PLAN: dict[str, Any] = {
    "window": {"size": [96, 96, 8], "overlap": 0.5, "extent": "trimmed"},
    "tta": {"variant": "none"},
    "fusion": {"method": "mean"},
    "postprocess": {"min_wt_mm3": 3, "min_netc_mm3": 0, "min_snfh_mm3": 0, "min_et_mm3": 0},
}
"""What a bundle's plan adds to its recipes."""

TINY_REGISTRATION: dict[str, Any] = {
    "grids_mm": (4.0, 2.0),
    "start_degrees": 8,
    "sample_share": 1.0,
    "smallest_head_ml": 50,
    "check_shift_mm": 4,
    "check_grid_mm": 1.5,
    "smallest_gain": 2.0,
}
"""For heads at 0.4 of their length."""


def tiny_settings(**ct: Any) -> CohortSettings:
    """Heads at 0.4 of their length, a few large metastases, a coarse CT; `ct` changes its settings."""
    settings = load_settings(size="tiny", defaults=RADIOSURGERY_TRAINING.cohort_defaults)
    changes = {"spacing_mm": (1.2, 1.2, 2.0), "rotation_degrees": (3.0, 8.0), "shift_mm": (2.0, 5.0)} | ct
    lesions = settings.lesions.model_copy(update={"diameter_median_mm": 20.0, "diameter_range_mm": (6.0, 40.0)})
    return settings.model_copy(update={"ct": settings.ct.model_copy(update=changes), "lesions": lesions})


def tiny_case(index: int, **ct: Any) -> RadiosurgeryCase:
    """One tiny head."""
    return generate_radiosurgery_case(tiny_settings(**ct), 11, index)


def write_tiny_cohort(folder: Path, cases: int, first: int = 0) -> Path:
    """Some tiny heads in a folder."""
    for index in range(first, first + cases):
        write_case(tiny_case(index), folder)
    return folder


def scan_of(case: RadiosurgeryCase) -> Scan:
    """The CT as reading gives it."""
    return Scan(case.ct.voxels.astype(np.float32), case.ct.grid, b"")


def tiny_registration(**changes: Any) -> RegistrationPlan:
    """Registration of tiny heads."""
    return RegistrationPlan(**{**TINY_REGISTRATION, **changes})


def write_untrained_bundle(folder: Path, members: Mapping[str, Sequence[str]], **sections: Any) -> Path:
    """A bundle of tiny U-Nets that have learned nothing; `members` are their names and channels."""
    folder.mkdir(parents=True)
    data = tiny_recipe("unet3d").data
    plans = []
    for number, (name, channels) in enumerate(members.items()):
        torch.manual_seed(number)
        recipe = tiny_recipe(
            "unet3d", data={"channels": channels} | ({} if "ct" in channels else {"registration": None})
        )
        network = build_network(recipe.network, in_channels=len(channels), out_channels=1)
        facts = {"channels": channels, "regions": recipe.regions.names, "network": recipe.network}
        member = MemberPlan(name=name, weights=f"{name}.safetensors", sha256="0" * 64, **facts)
        content = save({key: value.float() for key, value in network.state_dict().items()}, describe_member(member))
        (folder / member.weights).write_bytes(content)
        plans.append(member.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()}))
    own = {key: getattr(data, key) for key in ("spacing_mm", "frame", "intensity", "registration")} | sections
    plan = Plan.model_validate({"name": "untrained", **SRS_PLAN, **own, "members": plans})
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    return folder


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
