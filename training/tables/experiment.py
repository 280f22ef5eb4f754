"""An experiment: all that the tables depend on, readable in one YAML file."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from metseg.plan.document import Section, read_document
from metseg.plan.plan import PostprocessPlan, TtaPlan, WindowPlan
from training.cohort.settings import CohortSettings, SizeName, load_settings
from training.recipe import Recipe, load_recipe
from training.tables.published import METRICS, TITLES

EXPERIMENTS_FOLDER = Path(__file__).parent
ExperimentName = Literal["tiny", "small", "full"]

HINT = "training/tables/small.yaml shows every key."

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


class Requirement(Section):
    """What a trained model must reach on the test cases before any verdict counts.

    Attributes:
        model: whose figure.
        metric: which; `training.tables.requirement` reads it off the scores.
        at_least: the figure.
    """

    model: str
    metric: str
    at_least: float


class TablesExperiment(Section):
    """What the experiments of both papers state.

    Attributes:
        description: what it can show and what it can't.
        cohort: synthetic cases.
        seeds: every model is trained once with each; a case's scores are their mean. They change weights and crops.
        steps: of each run whose length is not another's hours; None for its recipe's epochs.
        reaches: what must be reached before a verdict counts; None for nothing.
        notes: what was found about a direction that does not come out: `difference, metric` as the page names them ->
            a paragraph, which stands under the table.
        window: of inference.
        threshold: on probabilities.
    """

    description: str
    cohort: CohortPlan
    seeds: tuple[int, ...] = Field((1,), min_length=1)
    steps: int | None = Field(None, gt=0)
    reaches: Requirement | None = None
    notes: dict[str, str] = Field(default_factory=dict)
    window: WindowPlan = WindowPlan()
    threshold: float = Field(0.5, gt=0, lt=1)


class RecipeNames(Section):
    """Which recipe trains which model."""

    baseline: str
    blob: str
    sub: str
    small: str
    centred: str


class Variant(Section):
    """Further inference settings for the network of `+ subtraction`, in a table of their own.

    Attributes:
        title: of the row.
        like: the method that it differs from: `sub`, with one plain pass, or `tta`.
        window: in place of the experiment's; None for that.
        tta: in place of the method's; None for that.
    """

    title: str
    like: Literal["sub", "tta"]
    window: WindowPlan | None = None
    tta: TtaPlan | None = None


class Experiment(TablesExperiment):
    """The models of Erdur et al. on one cohort.

    Attributes:
        recipes: of the five models; the experiment's seeds replace theirs.
        tta: of the method `+ TTA`; the others see one plain pass.
        postprocess: the size rules, at the cohort's scale.
        small_voxels: the small-lesion model alone is scored on the cases with a reference lesion (WT) under so many.
        variants: name -> further inference settings.
    """

    recipes: RecipeNames
    tta: TtaPlan = TtaPlan()
    postprocess: PostprocessPlan = PostprocessPlan()
    small_voxels: int = Field(SMALL_VOXELS, gt=0)
    variants: dict[str, Variant] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        if self.reaches and (self.reaches.model not in TITLES or self.reaches.metric not in METRICS):
            raise ValueError(f"reaches: expected a metric of {METRICS} and a method of {tuple(TITLES)}")
        taken = sorted(set(self.variants) & set(TITLES))
        if taken:
            raise ValueError(f"variants: {taken[0]} is a method's name")
        return self

    def load_recipe(self, model: str) -> Recipe:
        """The recipe of one of the five models."""
        return load_recipe(getattr(self.recipes, model))


MODELS = tuple(RecipeNames.model_fields)
"""In the order in which they are trained."""


def load_experiment(name: ExperimentName) -> Experiment:
    """Reads `tiny.yaml`, `small.yaml` or `full.yaml`."""
    return read_document(EXPERIMENTS_FOLDER / f"{name}.yaml", Experiment, what="experiment", hint=HINT)
