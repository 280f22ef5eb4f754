"""An experiment: all that the tables depend on, readable in one YAML file."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from metseg.plan.document import Section, read_document
from metseg.plan.plan import PostprocessPlan, TtaPlan, WindowPlan
from training.cohort.settings import CohortSettings, SizeName, load_settings
from training.recipe import Recipe, load_recipe

EXPERIMENTS_FOLDER = Path(__file__).parent
ExperimentName = Literal["tiny", "full"]

HINT = "training/tables/full.yaml shows every key."

SMALL_VOXELS = 1000
"""The small-lesion model alone is scored on the cases with a lesion (WT) under so many voxels (Table 6)."""


class CohortPlan(Section):
    """The synthetic cohort; unused when real data are given.

    Attributes:
        size: see `python -m training cohort`.
        lesion_scale: factor on the lesions' size; None for the size's own.
        settings: sections of the cohort's settings that differ.
        seed: of the cohort.
        train: cases to train on.
        validation: cases to choose the best checkpoint by.
        test: cases that the tables are made of.
    """

    size: SizeName = "full"
    lesion_scale: float | None = Field(None, gt=0, le=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(0, ge=0)
    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=2)

    @property
    def cases(self) -> int:
        """Of all three parts."""
        return self.train + self.validation + self.test

    def cohort_settings(self) -> CohortSettings:
        """The cohort's distributions."""
        own = CohortSettings.model_validate(self.settings)
        grid = load_settings(size=self.size).grid
        if self.lesion_scale is not None:
            grid = grid.model_copy(update={"lesion_scale": self.lesion_scale})
        return own.model_copy(update={"grid": grid})


class RecipeNames(Section):
    """Which recipe trains which model."""

    baseline: str
    blob: str
    sub: str
    small: str
    centred: str


class Experiment(Section):
    """The paper's models on one cohort.

    Attributes:
        description: what it can show and what it can't.
        cohort: synthetic cases.
        recipes: of the five models.
        window: of inference.
        tta: of the method `+ TTA`; the others see one plain pass.
        threshold: on probabilities.
        postprocess: the size rules, at the cohort's scale.
        small_voxels: the small-lesion model alone is scored on the cases with a reference lesion (WT) under so many.
    """

    description: str
    cohort: CohortPlan
    recipes: RecipeNames
    window: WindowPlan = WindowPlan()
    tta: TtaPlan = TtaPlan()
    threshold: float = Field(0.5, gt=0, lt=1)
    postprocess: PostprocessPlan = PostprocessPlan()
    small_voxels: int = Field(SMALL_VOXELS, gt=0)

    def load_recipe(self, model: str) -> Recipe:
        """The recipe of one of the five models."""
        return load_recipe(getattr(self.recipes, model))


MODELS = tuple(RecipeNames.model_fields)
"""In the order in which they are trained."""


def load_experiment(name: ExperimentName) -> Experiment:
    """Reads `tiny.yaml` or `full.yaml`."""
    return read_document(EXPERIMENTS_FOLDER / f"{name}.yaml", Experiment, what="experiment", hint=HINT)
