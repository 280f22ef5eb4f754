"""The tables of Erdur et al.: cohort, runs, a bundle per seed, scores; each is continued where it stopped."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from metseg.errors import InputError
from metseg.files.atomic import write_atomically
from metseg.files.case import CaseFiles
from metseg.plan.bundle import open_bundle
from metseg.predict.device import choose_device
from metseg.predict.engine import load_engine
from training.data.cases import case_key, find_cases
from training.data.split import Split, read_split, split_patients, write_split
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.tables.experiment import MODELS, Experiment
from training.tables.request import TablesRequest
from training.tables.runs import Pace, lay_runs, name_run, train_runs
from training.tables.scoring import CaseScores, ModelSteps, pool_seeds, score_steps
from training.tables.stages import complete_cohort, make_scores_key, split_in_order
from training.tables.trained import TrainedRun

logger = logging.getLogger(__name__)

PACE: Final = {model: Pace(MODELS[0]) for model in MODELS[1:]}
"""All models make as many steps as the baseline."""

SCORES_FORMAT = "tables-2"
"""Changed when the meaning of a stored score changes."""


@dataclass(frozen=True, slots=True)
class TrainedSteps:
    """The cohort and the runs.

    Attributes:
        cases: by ID.
        split: which case is used for what.
        runs: what training took.
    """

    cases: dict[str, CaseFiles]
    split: Split
    runs: tuple[TrainedRun, ...]


@dataclass(frozen=True, slots=True)
class ScoredSteps:
    """What the tables are made of.

    Attributes:
        by_seed: for each seed the test cases' scores, in the same order.
        device: where.
    """

    by_seed: tuple[tuple[CaseScores, ...], ...]
    device: str

    @property
    def cases(self) -> tuple[CaseScores, ...]:
        """Each the mean over the seeds."""
        return pool_seeds(self.by_seed)


def train_model_steps(experiment: Experiment, request: TablesRequest) -> TrainedSteps:
    """Makes what is missing of the cohort and the runs.

    Raises:
        InputError: real data leave fewer than two test cases.
        UsageError: two folders of `request.data` hold a case of the same ID; see also `train_runs`.
    """
    cases, split = _prepare_cohort(experiment, request)
    recipes = {model: experiment.load_recipe(model) for model in MODELS}
    return TrainedSteps(cases, split, train_runs(lay_runs(recipes, experiment, PACE), request))


def score_model_steps(experiment: Experiment, trained: TrainedSteps, request: TablesRequest) -> ScoredSteps:
    """Freezes each seed's models into a bundle and scores it on the test cases, where that was not done before."""
    scored = []
    for seed in experiment.seeds:
        models = _freeze(experiment, seed, request)
        test = (trained.cases[case_id] for case_id in trained.split.test)
        scored.append(tuple(recall_scores(files, models, request.scores) for files in test))
    return ScoredSteps(tuple(scored), models.engine.device.description)


def _prepare_cohort(experiment: Experiment, request: TablesRequest) -> tuple[dict[str, CaseFiles], Split]:
    """The cases, and the split that all runs share."""
    request.output.mkdir(parents=True, exist_ok=True)
    if request.data:
        cases = find_cases(request.data, convention=request.convention)
        if request.split.exists():
            split = read_split(request.split, cases)
        else:
            split = split_patients(cases, experiment.load_recipe("baseline").split)
    else:
        plan = experiment.cohort
        complete_cohort(
            plan.cohort_settings(), seed=plan.seed, folder=request.cohort, cases=plan.cases, jobs=request.jobs
        )
        cases = find_cases([request.cohort])
        split = split_in_order(sorted(cases), plan)
    if len(split.test) < 2:  # noqa: PLR2004 - one case has no spread
        raise InputError(f"the tables need test cases, the split leaves {len(split.test)}", hint="Give more data.")
    write_split(request.split, split)
    return cases, split


def _freeze(experiment: Experiment, seed: int, request: TablesRequest) -> ModelSteps:
    plan = {
        "window": experiment.window.model_dump(mode="json"),
        "threshold": experiment.threshold,
        "postprocess": experiment.postprocess.model_dump(mode="json"),
    }
    runs = [request.run_folder(name_run(model, seed)) for model in MODELS]
    options = FreezeOptions(name="tables", plan=plan, checkpoint="last", cache=request.cache)
    freeze_bundle(runs, request.bundle(seed), options)
    engine = load_engine(open_bundle(request.bundle(seed)), choose_device(request.device))
    members = {model: experiment.load_recipe(model).name for model in MODELS}
    return ModelSteps(engine, members, experiment.tta, experiment.small_voxels, variants=experiment.variants)


def recall_scores(files: CaseFiles, models: ModelSteps, folder: Path) -> CaseScores:
    """A case's scores, from disk where the same models made them of the same files before."""
    variants = {name: variant.model_dump(mode="json") for name, variant in models.variants.items()}
    facts = [SCORES_FORMAT, models.tta.model_dump(), models.small_voxels, models.as_frozen, variants]
    path = folder / make_scores_key(models.engine, facts) / f"{case_key(files)}.json"
    return _recall(path, lambda: score_steps(files, models))


def _recall(path: Path, make: Callable[[], CaseScores]) -> CaseScores:
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        scores = {
            name: {region: tuple(figures) for region, figures in regions.items()}
            for name, regions in found["scores"].items()
        }
        return CaseScores(found["case_id"], found["has_small_lesion"], scores)
    scored = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(scored)).encode())
    logger.info("scored %s", scored.case_id)
    return scored
