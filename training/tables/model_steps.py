"""The whole way of the tables: cohort, five runs, a bundle of them, scores; each part is continued where it stopped."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

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
from training.tables.scoring import CaseScores, ModelSteps, score_steps
from training.tables.stages import (
    TablesRequest,
    TrainedModels,
    complete_cohort,
    make_scores_key,
    split_in_order,
    train_models,
)

logger = logging.getLogger(__name__)

SCORES_FORMAT = "tables-1"
"""Changed when the meaning of a stored score changes."""


@dataclass(frozen=True, slots=True)
class ModelStepsResult:
    """What the tables are made of.

    Attributes:
        cases: the test cases' scores.
        trained: what training took.
        split: which case was used for what.
        device: where.
    """

    cases: tuple[CaseScores, ...]
    trained: TrainedModels
    split: Split
    device: str


def run_model_steps(experiment: Experiment, request: TablesRequest) -> ModelStepsResult:
    """Makes what is missing of the tables.

    Raises:
        InputError: real data leave fewer than two test cases.
        UsageError: two folders of `request.data` hold a case of the same ID.
    """
    cases, split = _prepare_cohort(experiment, request)
    trained = train_models(
        {model: experiment.load_recipe(model) for model in MODELS},
        request,
        paced_by=dict.fromkeys(MODELS[1:], MODELS[0]),
    )
    models = _freeze(experiment, request)
    scored = [recall_scores(cases[case_id], models, request.scores) for case_id in split.test]
    return ModelStepsResult(
        cases=tuple(scored),
        trained=trained,
        split=split,
        device=models.engine.device.description,
    )


def _prepare_cohort(experiment: Experiment, request: TablesRequest) -> tuple[dict[str, CaseFiles], Split]:
    """The cases, and the split that all five runs share."""
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


def _freeze(experiment: Experiment, request: TablesRequest) -> ModelSteps:
    plan = {
        "window": experiment.window.model_dump(mode="json"),
        "threshold": experiment.threshold,
        "postprocess": experiment.postprocess.model_dump(mode="json"),
    }
    bundle = request.output / "bundle"
    runs = [request.run_folder(model) for model in MODELS]
    freeze_bundle(runs, bundle, FreezeOptions(name="tables", plan=plan, checkpoint="last"))
    engine = load_engine(open_bundle(bundle), choose_device(request.device))
    members = {model: experiment.load_recipe(model).name for model in MODELS}
    return ModelSteps(engine, members, experiment.tta, experiment.small_voxels)


def recall_scores(files: CaseFiles, models: ModelSteps, folder: Path) -> CaseScores:
    """A case's scores, from disk where the same models made them of the same files before."""
    facts = [SCORES_FORMAT, models.tta.model_dump(), models.small_voxels, models.as_frozen]
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
