"""The tables of Hu et al.: two cohorts, runs, a bundle per seed, scores; each is continued where it stopped."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from metseg.files.case import CaseFiles
from metseg.plan.bundle import open_bundle
from metseg.predict.device import choose_device
from metseg.predict.engine import Engine, load_engine
from metseg.systems import modalities_to_find
from training.data.cases import find_cases
from training.data.split import Split, write_split
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.tables.hu2019_constants import ScaledConstant, count_tumour_voxels, settle_constants
from training.tables.hu2019_experiment import MODELS, PACE, SYSTEM, Hu2019Experiment
from training.tables.hu2019_published import Loss
from training.tables.hu2019_scoring import Hu2019Case, pool_seeds, recall_hu2019
from training.tables.request import TablesRequest
from training.tables.runs import lay_runs, name_run, train_runs
from training.tables.stages import complete_cohort, split_in_order
from training.tables.trained import TrainedRun

SECOND_SEED_OFFSET: Final = 1000
"""Between the seeds of the two test cohorts."""

CONSTANTS_FILE: Final = "constants.json"
"""In the output folder."""


@dataclass(frozen=True, slots=True)
class TrainedHu2019:
    """The cohorts and the runs.

    Attributes:
        tests: number of the cohort and files of every test case.
        split: of the first cohort.
        constants: of the volume-aware loss.
        runs: what training took.
    """

    tests: tuple[tuple[int, CaseFiles], ...]
    split: Split
    constants: Mapping[Loss, ScaledConstant]
    runs: tuple[TrainedRun, ...]


@dataclass(frozen=True, slots=True)
class ScoredHu2019:
    """What the tables are made of.

    Attributes:
        by_seed: for each seed the cases of both test cohorts, in the same order.
        device: where.
    """

    by_seed: tuple[tuple[Hu2019Case, ...], ...]
    device: str

    @property
    def cases(self) -> tuple[Hu2019Case, ...]:
        """Each the mean over the seeds."""
        return pool_seeds(self.by_seed)


def train_hu2019(experiment: Hu2019Experiment, request: TablesRequest) -> TrainedHu2019:
    """Makes what is missing of the cohorts and the runs; the losses' constants follow from the training references.

    Raises:
        UsageError: see `train_runs`.
    """
    plan, second = experiment.cohort, request.output / "cohort-2"
    for own, seed, folder, count in (
        (plan.settings, plan.seed, request.cohort, plan.cases),
        (experiment.second_settings, plan.seed + SECOND_SEED_OFFSET, second, plan.test),
    ):
        settings = experiment.make_settings(own)
        complete_cohort(settings, seed=seed, folder=folder, cases=count, jobs=request.jobs, system=SYSTEM)
    split = split_in_order([SYSTEM.name_case(index) for index in range(plan.cases)], plan)
    write_split(request.split, split)
    known = modalities_to_find(SYSTEM.system.modalities)
    first, later = (
        find_cases([folder], modalities=known, regions=SYSTEM.regions) for folder in (request.cohort, second)
    )
    tumours = count_tumour_voxels([first[case_id] for case_id in split.train], experiment.voxel_mm3)
    constants = settle_constants(tumours, request.output / CONSTANTS_FILE)
    lambdas = {loss: item.ours for loss, item in constants.items()}
    recipes = {model: experiment.make_recipe(model, lambdas) for model in MODELS}
    runs = train_runs(lay_runs(recipes, experiment, PACE), request, "best")
    tests = [(1, first[case_id]) for case_id in split.test] + [(2, files) for files in later.values()]
    return TrainedHu2019(tuple(tests), split, constants, runs)


def score_trained_hu2019(experiment: Hu2019Experiment, trained: TrainedHu2019, request: TablesRequest) -> ScoredHu2019:
    """Freezes each seed's models into a bundle and scores it on both cohorts, where that was not done before."""
    scored = []
    for seed in experiment.seeds:
        engine = _freeze(experiment, seed, request)
        scored.append(
            tuple(recall_hu2019(files, cohort, engine, experiment, request.scores) for cohort, files in trained.tests)
        )
    return ScoredHu2019(tuple(scored), engine.device.description)


def _freeze(experiment: Hu2019Experiment, seed: int, request: TablesRequest) -> Engine:
    """The weights of each run's best validation."""
    plan = {
        "window": experiment.window.model_dump(mode="json"),
        "threshold": experiment.threshold,
        "tta": {"variant": "none"},
        "fusion": {"method": "mean"},
        "postprocess": dict.fromkeys(("min_wt_mm3", "min_netc_mm3", "min_snfh_mm3", "min_et_mm3"), 0),
    }
    runs = [request.run_folder(name_run(model, seed)) for model in MODELS]
    options = FreezeOptions(name="hu2019", plan=plan, checkpoint="best", cache=request.cache)
    freeze_bundle(runs, request.bundle(seed), options)
    return load_engine(open_bundle(request.bundle(seed)), choose_device(request.device))
