"""The stages that both papers' tables share: a cohort, its split, the runs; each is continued where it stopped."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metseg.labels import LabelConvention
from metseg.predict.device import DeviceChoice
from metseg.predict.engine import Engine
from training.cohort.settings import CohortSettings
from training.cohort.writing import write_cohort
from training.data.split import Split
from training.recipe import Recipe
from training.runs.files import SPLIT_FILE
from training.systems import BRATS_TRAINING, TrainingSystem
from training.tables.experiment import CohortPlan
from training.train.run import RunRequest, train_run

logger = logging.getLogger(__name__)

TRAINING_SHARE = 0.75
"""Of the hours; the rest is for the cohort, inference and scoring."""


@dataclass(frozen=True, slots=True)
class TablesRequest:
    """How the tables are made.

    Attributes:
        output: folder of everything: cohort/, prepared/, runs/, bundle/, scores/.
        data: folders of real cases in place of the synthetic cohort.
        hours: for everything; None trains every recipe to its end.
        max_steps: of each run; for trials.
        device: where.
        jobs: processes that make the cohort.
        threads: CPU threads of torch; None for all.
        convention: what label 4 of the references of `data` means; needed where they leave it open.
    """

    output: Path
    data: tuple[Path, ...] = ()
    hours: float | None = None
    max_steps: int | None = None
    device: DeviceChoice = "auto"
    jobs: int = 1
    threads: int | None = None
    convention: LabelConvention | None = None

    @property
    def cohort(self) -> Path:
        """Folder of the synthetic cohort."""
        return self.output / "cohort"

    @property
    def scores(self) -> Path:
        """Folder of the cases' scores."""
        return self.output / "scores"

    @property
    def split(self) -> Path:
        """File of the split that all runs share."""
        return self.output / SPLIT_FILE

    def run_folder(self, model: str) -> Path:
        """Folder of a model's run."""
        return self.output / "runs" / model


@dataclass(frozen=True, slots=True)
class TrainedModels:
    """What training took.

    Attributes:
        steps: optimiser steps of each model.
        training_s: seconds of each model's training.
    """

    steps: Mapping[str, int]
    training_s: Mapping[str, float]

    def __str__(self) -> str:
        return "; ".join(
            f"{model} {count} steps in {self.training_s[model] / 60:.0f} min" for model, count in self.steps.items()
        )


def complete_cohort(
    settings: CohortSettings,
    *,
    seed: int,
    folder: Path,
    cases: int,
    jobs: int = 1,
    system: TrainingSystem = BRATS_TRAINING,
) -> None:
    """Makes the cases from the first that is not there; a reference is written last: a case that has it is complete."""
    made = 0
    while made < cases:
        case_id = system.name_case(made)
        if not (folder / case_id / f"{case_id}-seg.nii.gz").is_file():
            break
        made += 1
    remaining = write_cohort(
        settings, cases=cases - made, seed=seed, output=folder, jobs=jobs, first=made, simulate=system.simulate
    )
    for written in remaining:
        logger.info("%s: %s, %d lesions", folder.name, written.case_id, len(written.lesions))


def split_in_order(names: Sequence[str], plan: CohortPlan) -> Split:
    """The first cases to train on, the next to choose by, the rest to test on."""
    ends = (plan.train, plan.train + plan.validation)
    return Split(tuple(names[: ends[0]]), tuple(names[ends[0] : ends[1]]), tuple(names[ends[1] :]))


def train_models(
    recipes: Mapping[str, Recipe], request: TablesRequest, *, paced_by: Mapping[str, str] | None = None
) -> TrainedModels:
    """Trains the models one after the other, each for its share of the hours.

    Args:
        recipes: model -> how it is trained.
        request: where, and the hours.
        paced_by: model -> the one, trained before it, of which it makes as many steps; the others go by the clock.
            Models that are compared must not differ by what else the machine had to do meanwhile. Without hours
            every recipe goes to its end all the same.
    """
    pace = paced_by if paced_by and request.hours else {}
    steps: dict[str, int] = {}
    training_s: dict[str, float] = {}
    for model, recipe in recipes.items():
        step_limit = steps[pace[model]] if model in pace else None
        run = RunRequest(
            data=request.data or (request.cohort,),
            output=request.run_folder(model),
            cache=request.output / "prepared",
            split=request.split,
            max_hours=request.hours * TRAINING_SHARE / len(recipes) if request.hours and not step_limit else None,
            max_steps=step_limit or request.max_steps,
            device=request.device,
            threads=request.threads,
            convention=request.convention,
        )
        progress = train_run(recipe, run)
        steps[model], training_s[model] = progress.step, progress.elapsed_s
        logger.info("model %s: %d steps in %.0f s", model, progress.step, progress.elapsed_s)
    return TrainedModels(steps, training_s)


def make_scores_key(engine: Engine, facts: Sequence[Any]) -> str:
    """Hash of what a case's scores depend on: the networks' tensors, the plan, the arithmetic, and `facts`.

    Not the members' files, which hold a git revision too. Facts are JSON values.
    """
    plan = engine.plan
    settings = plan.model_dump(mode="json", exclude={"members"})
    windows: list[object] = [plan.choose_window(member.plan).model_dump(mode="json") for member in engine.members]
    windows += [member.plan.spacing_mm for member in engine.members if member.plan.spacing_mm is not None]
    content = json.dumps([*facts, settings, windows, engine.device.precision], sort_keys=True)
    digest = hashlib.sha256(content.encode())
    for member in engine.members:
        for name, tensor in member.parameters.items():
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
