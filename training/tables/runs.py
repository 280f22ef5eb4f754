"""The runs of an experiment: every model once with each seed, in which order, how long, and what they took."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from metseg.errors import UsageError
from metseg.systems import modalities_to_find
from training.data.cache import prepare_entry
from training.data.cases import find_cases
from training.data.split import read_split
from training.freeze.member import CheckpointName
from training.recipe import Recipe
from training.runs.end import Ended, find_end
from training.runs.files import SPLIT_FILE
from training.runs.kept import find_kept_run
from training.runs.recipes import identify_recipe
from training.tables.experiment import TablesExperiment
from training.tables.request import TablesRequest
from training.tables.trained import TrainedRun, read_curve
from training.train.run import RunRequest, train_run

logger = logging.getLogger(__name__)

TRAINING_SHARE: Final = 0.75
"""Of the hours; the rest is for the cohort, inference and scoring."""


@dataclass(frozen=True, slots=True)
class Pace:
    """A model's length is another's, so that a table's rows differ by nothing else.

    Attributes:
        leader: that model.
        by: as many steps, or as many hours where a step of one network is not a step of the other.
    """

    leader: str
    by: Literal["steps", "hours"] = "steps"


@dataclass(frozen=True, slots=True)
class TableRun:
    """One run to make.

    Attributes:
        model: what is trained.
        recipe: how; its seed is the run's.
        steps: that the experiment states for it; None where it states none.
        pace: the run, by its name, that sets the length of this one; None where this one sets its own.
    """

    model: str
    recipe: Recipe
    steps: int | None = None
    pace: Pace | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return name_run(self.model, self.recipe.seed)


def name_run(model: str, seed: int) -> str:
    """The folder's name of a model's run."""
    return f"{model}_{seed}"


def lay_runs(
    recipes: Mapping[str, Recipe], experiment: TablesExperiment, pace: Mapping[str, Pace]
) -> tuple[TableRun, ...]:
    """Lists an experiment's runs in the order in which they are trained: all models with the first seed come first.

    Args:
        recipes: model -> how it is trained.
        experiment: its seeds and steps.
        pace: model -> the model that sets its length. A model's later seeds make the steps of its first.
    """
    first = experiment.seeds[0]
    runs = []
    for seed in experiment.seeds:
        for model, recipe in recipes.items():
            own = pace.get(model)
            if seed != first and (own is None or own.by == "hours"):
                own = Pace(model)
            runs.append(
                TableRun(
                    model,
                    recipe.model_copy(update={"seed": seed}),
                    steps=experiment.steps if _counts_steps(model, pace) else None,
                    pace=Pace(name_run(own.leader, first), own.by) if own else None,
                )
            )
    return tuple(runs)


def _counts_steps(model: str, pace: Mapping[str, Pace]) -> bool:
    """Whether the experiment's steps are this model's: its leader's leader is not followed by the hours."""
    own = pace.get(model)
    return own is None or (own.by == "steps" and _counts_steps(own.leader, pace))


def train_runs(
    runs: Sequence[TableRun], request: TablesRequest, checkpoint: CheckpointName = "last"
) -> tuple[TrainedRun, ...]:
    """Trains the runs one after the other, or those that are asked for; a finished one is left as it is.

    Args:
        runs: of `lay_runs`.
        request: folders, budget, device.
        checkpoint: the weights that the tables are made of; a kept run must have them.

    Raises:
        UsageError: a model that is asked for is none of these, or the run that sets its length has not ended.
    """
    share = request.hours * TRAINING_SHARE / len(runs) if request.hours else None
    trained = []
    for run in _choose(runs, request.only):
        folder = request.run_folder(run.name)
        max_hours, max_steps = _limit(run, request, share)
        ended = _accept_kept(run, request, checkpoint, max_steps)
        if ended is None:
            progress = train_run(run.recipe, _request_run(request, folder, max_hours, max_steps))
            ended = Ended(progress.step, progress.elapsed_s)
        curve = read_curve(folder, ended.step)
        trained.append(TrainedRun(run.model, run.recipe.seed, ended.step, ended.elapsed_s, curve))
        score = f"validation {curve[-1]:.3f}" if curve else "too few validations for a curve"
        logger.info("run %s: %d steps in %.2f h, %s", run.name, ended.step, ended.elapsed_s / 3600, score)
    return tuple(trained)


def _choose(runs: Sequence[TableRun], only: Sequence[str]) -> list[TableRun]:
    """The runs of these models, or of these names (`baseline_1`)."""
    known = {name for run in runs for name in (run.model, run.name)}
    unknown = [name for name in only if name not in known]
    if unknown:
        models = ", ".join(dict.fromkeys(run.model for run in runs))
        raise UsageError(f"--only {','.join(only)}: unknown {', '.join(unknown)}", hint=f"The models are {models}.")
    return [run for run in runs if not only or {run.model, run.name} & set(only)]


def _limit(run: TableRun, request: TablesRequest, share: float | None) -> tuple[float | None, int | None]:
    """Hours and steps after which a run ends."""
    if request.max_steps:
        return None, request.max_steps
    if run.pace is None:
        return share, run.steps
    if run.steps and not share:
        return None, run.steps
    leader = find_ended(request.run_folder(run.pace.leader))
    if leader is None:
        raise UsageError(
            f"run {run.name} is as long as {run.pace.leader}, which has not ended",
            hint=f"Train it first: --only {run.pace.leader}.",
        )
    return (leader.elapsed_s / 3600, None) if run.pace.by == "hours" else (None, leader.step)


def find_ended(folder: Path) -> Ended | None:
    """Where a run ended, one that was trained here or a kept one; None where it has not."""
    return find_kept_run(folder) or find_end(folder)


def _request_run(request: TablesRequest, folder: Path, max_hours: float | None, max_steps: int | None) -> RunRequest:
    return RunRequest(
        data=request.cases_in,
        output=folder,
        cache=request.cache,
        split=request.split,
        max_hours=max_hours,
        max_steps=max_steps,
        device=request.device,
        threads=request.threads,
        convention=request.convention,
    )


def _accept_kept(run: TableRun, request: TablesRequest, checkpoint: CheckpointName, steps: int | None) -> Ended | None:
    """Where a run ended of which a repository kept the weights (`training.runs.kept`); None where it is to be trained.

    Its freezing needs one prepared case, which is made here.

    Raises:
        UsageError: it made fewer steps, has another recipe or split, or other weights were kept.
    """
    folder = request.run_folder(run.name)
    ended = find_kept_run(folder)
    if ended is None:
        return None
    if steps and ended.step < steps:
        raise UsageError(
            f"run {folder}: was kept after {ended.step} of {steps} steps and can't go on", hint="Remove it."
        )
    identify_recipe(run.recipe, folder)
    if not (folder / f"{checkpoint}.safetensors").is_file():
        raise UsageError(
            f"run {folder}: has no {checkpoint}.safetensors, which the tables are made of",
            hint=f"scripts/keep-run --checkpoint {checkpoint} keeps it.",
        )
    known = modalities_to_find(run.recipe.member.modalities)
    cases = find_cases(request.cases_in, modalities=known, regions=run.recipe.regions, convention=request.convention)
    split = read_split(folder / SPLIT_FILE, cases)
    if split != read_split(request.split, cases):
        raise UsageError(
            f"run {folder}: was trained on another split than {request.split}", hint="Remove it, or use its cohort."
        )
    prepare_entry(cases[[*split.validation, *split.train][0]], run.recipe, request.cache)
    return ended
