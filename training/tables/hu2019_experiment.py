"""The experiment of Hu et al.: nine networks, two of them without the CT, and how each is trained."""

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import Field, model_validator

from evaluation.hu2019 import LARGE_VOLUME_MM3
from metseg.plan.document import read_document
from training.cohort.settings import CohortSettings, load_settings
from training.recipe import Recipe
from training.systems import RADIOSURGERY_TRAINING
from training.tables.experiment import EXPERIMENTS_FOLDER, TablesExperiment
from training.tables.hu2019_published import LOSSES, VOXEL_COLUMNS, Loss, System
from training.tables.runs import Pace

SYSTEM: Final = RADIOSURGERY_TRAINING

MODELS: Final = (*(f"unet_{loss}" for loss in LOSSES), "deepmedic", "unet_batch_mr", "deepmedic_mr")
"""In the order in which they are trained."""

PACE: Final = {
    **{model: Pace(MODELS[0]) for model in MODELS[1:] if model.startswith("unet")},
    "deepmedic": Pace(MODELS[0], "hours"),
    "deepmedic_mr": Pace("deepmedic"),
}
"""A table's rows of one network had the same steps; DeepMedic has the hours of the U-Net."""

MEMBERS_OF: Final[dict[System, tuple[str, ...]]] = {
    "unet": ("unet_dice",),
    "deepmedic": ("deepmedic",),
    "both": ("unet_dice", "deepmedic"),
    "both_aware": ("unet_batch", "deepmedic"),
    "both_aware_mr": ("unet_batch_mr", "deepmedic_mr"),
}
"""Whose probabilities are averaged."""

HINT: Final = "training/tables/hu2019_small.yaml shows every key."


class Hu2019Experiment(TablesExperiment):
    """The experiment, all that its tables depend on.

    Attributes:
        second_settings: the second test cohort's settings; it has as many cases.
        data: of every recipe, but the channels.
        unet: sections of the U-Net's recipe, but the loss.
        deepmedic: sections of DeepMedic's.
        validation_cases: that each of a run's validations scores.
        large_volume_mm3: metastases of at least this volume are large; the paper's 1500 at the heads' scale.
    """

    second_settings: dict[str, Any]
    data: dict[str, Any]
    unet: dict[str, Any]
    deepmedic: dict[str, Any]
    validation_cases: int = Field(4, ge=1)
    large_volume_mm3: float = Field(LARGE_VOLUME_MM3, gt=0)

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        known = tuple(f"unet_{loss}" for loss in LOSSES)
        if self.reaches and (self.reaches.model not in known or self.reaches.metric not in VOXEL_COLUMNS):
            raise ValueError(f"reaches: expected a metric of {VOXEL_COLUMNS} and a model of {known}")
        return self

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel of the networks' grid."""
        x, y, z = self.data["spacing_mm"]
        return float(x * y * z)

    def make_recipe(self, model: str, constants: Mapping[Loss, int]) -> Recipe:
        """The recipe of one of `MODELS`.

        Args:
            model: its name.
            constants: lambda of the losses that the paper names by their constant.
        """
        mr_alone = model.endswith("_mr")
        own = self.deepmedic if model.startswith("deepmedic") else self.unet
        data = {**self.data, **own.get("data", {}), "channels": ["t1c"] if mr_alone else ["ct", "t1c"]}
        if mr_alone:
            data.pop("registration", None)
        content: dict[str, Any] = {
            "name": model,
            "augmentation": {"affine_probability": 0, "noise_probability": 0},
            "validation": {"times": 10, "max_cases": self.validation_cases, "window": self.window.model_dump()},
            **own,
            "data": data,
        }
        if "loss" not in own:
            content["loss"] = loss_section(model.removeprefix("unet_").removesuffix("_mr"), constants)
        return Recipe.model_validate(content)

    def make_settings(self, own: Mapping[str, Any]) -> CohortSettings:
        """The settings of one of the two test cohorts, of which the first is trained on, too."""
        defaults = load_settings(size=self.cohort.size, defaults=SYSTEM.cohort_defaults)
        content = defaults.model_dump()
        for section, values in own.items():
            content[section] = {**content[section], **values}
        if self.cohort.lesion_scale is not None:
            content["grid"]["lesion_scale"] = self.cohort.lesion_scale
        return CohortSettings.model_validate(content)


def loss_section(loss: str, constants: Mapping[Loss, int]) -> dict[str, Any]:
    """The recipe's section of a U-Net's loss."""
    if loss == "dice":
        return {"kind": "dice"}
    constant = None if loss == "batch" else float(constants[loss])  # type: ignore[index]  # one of LOSSES
    return {"kind": "volume_aware", "constant_voxels": constant}


def load_hu2019(size: str) -> Hu2019Experiment:
    """Reads `hu2019_<size>.yaml`."""
    return read_document(EXPERIMENTS_FOLDER / f"hu2019_{size}.yaml", Hu2019Experiment, what="experiment", hint=HINT)
