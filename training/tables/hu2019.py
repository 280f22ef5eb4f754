"""The radiosurgery system's experiment: two test cohorts, nine networks, the published figures of every case."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation import score_case
from metseg.decide.threshold import member_labels
from metseg.files.atomic import write_atomically
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.plan.bundle import open_bundle
from metseg.plan.document import Section, read_document
from metseg.plan.plan import WindowPlan
from metseg.predict.device import choose_device
from metseg.predict.engine import Engine, load_engine
from metseg.predict.fallback import predict
from metseg.predict.inputs import lay_inputs
from metseg.prepare.prepare import prepare
from metseg.run.pipeline import read
from metseg.space.resampling import labels_to_source
from metseg.systems import modalities_to_find
from training.cohort.settings import CohortSettings, load_settings
from training.data.split import Split, write_split
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.recipe import Recipe
from training.references import read_reference_map
from training.systems import RADIOSURGERY_TRAINING
from training.tables.experiment import EXPERIMENTS_FOLDER, HINT, CohortPlan
from training.tables.hu2019_published import LOSSES, Loss, System
from training.tables.stages import (
    TablesRequest,
    TrainedModels,
    complete_cohort,
    make_scores_key,
    split_in_order,
    train_models,
)

logger = logging.getLogger(__name__)

SYSTEM: Final = RADIOSURGERY_TRAINING

SECOND_SEED_OFFSET: Final = 1000
"""Between the seeds of the two test cohorts."""

MODELS: Final = (*(f"unet_{loss}" for loss in LOSSES), "deepmedic", "unet_batch_mr", "deepmedic_mr")
"""In the order in which they are trained."""

PACED_BY: Final = {
    **{model: MODELS[0] for model in MODELS[1:] if model.startswith("unet")},
    "deepmedic_mr": "deepmedic",
}
"""Model -> the one of the same network that sets the number of steps, so that a table's rows had the same training."""

MEMBERS_OF: Final[dict[System, tuple[str, ...]]] = {
    "unet": ("unet_dice",),
    "deepmedic": ("deepmedic",),
    "both": ("unet_dice", "deepmedic"),
    "both_aware": ("unet_batch", "deepmedic"),
    "both_aware_mr": ("unet_batch_mr", "deepmedic_mr"),
}
"""Whose probabilities are averaged."""

SCORES_FORMAT: Final = "hu2019-1"
"""Changed when the meaning of a stored score changes."""

Figures = Mapping[str, float]
"""Column of the protocol `hu2019` -> value."""


class Hu2019Experiment(Section):
    """The experiment, all that its tables depend on.

    Attributes:
        description: what it can show and what it can't.
        cohort: heads to train on and the first test cohort.
        second_settings: the second test cohort's settings; it has as many cases.
        data: of every recipe, but the channels.
        unet: sections of the U-Net's recipe, but the loss.
        deepmedic: sections of DeepMedic's.
        window: of validation and inference.
        threshold: on probabilities.
    """

    description: str
    cohort: CohortPlan
    second_settings: dict[str, Any]
    data: dict[str, Any]
    unet: dict[str, Any]
    deepmedic: dict[str, Any]
    window: WindowPlan
    threshold: float = 0.5

    def make_recipe(self, model: str) -> Recipe:
        """The recipe of one of `MODELS`."""
        mr_alone = model.endswith("_mr")
        own = self.deepmedic if model.startswith("deepmedic") else self.unet
        data = {**self.data, "channels": ["t1c"] if mr_alone else ["ct", "t1c"]}
        if mr_alone:
            data.pop("registration", None)
        content: dict[str, Any] = {
            "name": model,
            "data": data,
            "augmentation": {"affine_probability": 0, "noise_probability": 0},
            "validation": {"every_epochs": 1000000, "window": self.window.model_dump()},
            "seed": 1,  # the same crops for every loss
            **own,
        }
        if "loss" not in own:
            content["loss"] = loss_section(model.removeprefix("unet_").removesuffix("_mr"))
        return Recipe.model_validate(content)


def loss_section(loss: str) -> dict[str, Any]:
    """The recipe's section of a U-Net's loss."""
    if loss == "dice":
        return {"kind": "dice"}
    return {"kind": "volume_aware", "constant_voxels": None if loss == "batch" else float(loss)}


def load_hu2019(size: str) -> Hu2019Experiment:
    """Reads `hu2019_<size>.yaml`."""
    return read_document(EXPERIMENTS_FOLDER / f"hu2019_{size}.yaml", Hu2019Experiment, what="experiment", hint=HINT)


@dataclass(frozen=True, slots=True)
class Hu2019Case:
    """One test case.

    Attributes:
        case_id: whose.
        cohort: 1 or 2.
        losses: loss of the U-Net -> figures.
        systems: networks together -> figures.
        tumour_voxels: voxels of each metastasis of the reference on the network's grid.
    """

    case_id: str
    cohort: int
    losses: Mapping[Loss, Figures]
    systems: Mapping[System, Figures]
    tumour_voxels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hu2019Result:
    """What the tables are made of.

    Attributes:
        cases: of both test cohorts.
        trained: what training took.
        split: of the first cohort.
        device: where.
    """

    cases: tuple[Hu2019Case, ...]
    trained: TrainedModels
    split: Split
    device: str


def run_hu2019(experiment: Hu2019Experiment, request: TablesRequest) -> Hu2019Result:
    """Makes what is missing of the tables: cohorts, runs, bundle, scores; each part is continued where it stopped."""
    plan, second = experiment.cohort, request.output / "cohort-2"
    for settings, seed, folder, cases in (
        (plan.settings, plan.seed, request.cohort, plan.cases),
        (experiment.second_settings, plan.seed + SECOND_SEED_OFFSET, second, plan.test),
    ):
        complete_cohort(
            _make_settings(plan, settings), seed=seed, folder=folder, cases=cases, jobs=request.jobs, system=SYSTEM
        )
    split = split_in_order([SYSTEM.name_case(index) for index in range(plan.cases)], plan)
    write_split(request.split, split)
    trained = train_models({model: experiment.make_recipe(model) for model in MODELS}, request, paced_by=PACED_BY)
    engine = _freeze(experiment, request)
    known = modalities_to_find(SYSTEM.system.modalities)
    tests = [(1, files) for files in discover_cases(request.cohort, modalities=known) if files.case_id in split.test]
    tests += [(2, files) for files in discover_cases(second, modalities=known)]
    scored = tuple(_recall(files, number, engine, experiment, request.scores) for number, files in tests)
    return Hu2019Result(scored, trained, split, engine.device.description)


def _make_settings(plan: CohortPlan, own: Mapping[str, Any]) -> CohortSettings:
    defaults = load_settings(size=plan.size, defaults=SYSTEM.cohort_defaults)
    content = defaults.model_dump()
    for section, values in own.items():
        content[section] = {**content[section], **values}
    if plan.lesion_scale is not None:
        content["grid"]["lesion_scale"] = plan.lesion_scale
    return CohortSettings.model_validate(content)


def _freeze(experiment: Hu2019Experiment, request: TablesRequest) -> Engine:
    plan = {
        "window": experiment.window.model_dump(mode="json"),
        "threshold": experiment.threshold,
        "tta": {"variant": "none"},
        "fusion": {"method": "mean"},
        "postprocess": dict.fromkeys(("min_wt_mm3", "min_netc_mm3", "min_snfh_mm3", "min_et_mm3"), 0),
    }
    bundle = request.output / "bundle"
    runs = [request.run_folder(model) for model in MODELS]
    freeze_bundle(runs, bundle, FreezeOptions(name="hu2019", plan=plan, checkpoint="best"))
    return load_engine(open_bundle(bundle), choose_device(request.device))


def score_hu2019(files: CaseFiles, cohort: int, engine: Engine, experiment: Hu2019Experiment) -> Hu2019Case:
    """Segments a case with every network and every ensemble, and scores each on the MR's grid."""
    plan = engine.plan
    prepared = prepare(read(files, plan), plan)
    resampling = prepared.resampling
    reference = read_reference_map(files)
    spacing_mm = reference.grid.spacing_mm
    predictions = predict(lay_inputs(prepared, engine), engine)
    by_model = {item.name: item.probabilities for item in predictions.members}

    def figures(probabilities: NDArray[np.float32]) -> Figures:
        box = member_labels(probabilities, experiment.threshold, plan.regions)
        labels = labels_to_source(predictions.layout.paste(box, resampling.network.shape), resampling, plan.regions)
        return score_case(reference.labels, labels, spacing_mm, "hu2019").regions[0].columns()

    mean_of = {
        system: np.asarray(np.mean([by_model[model] for model in models], axis=0, dtype=np.float32))
        for system, models in MEMBERS_OF.items()
    }
    lesions = score_case(reference.labels, reference.labels, spacing_mm, "hu2019").regions[0].lesions
    return Hu2019Case(
        case_id=files.case_id,
        cohort=cohort,
        losses={loss: figures(by_model[f"unet_{loss}"]) for loss in LOSSES},
        systems={system: figures(probabilities) for system, probabilities in mean_of.items()},
        tumour_voxels=tuple(round(lesion.volume_mm3 / plan.voxel_volume_mm3) for lesion in lesions),
    )


def _recall(files: CaseFiles, cohort: int, engine: Engine, experiment: Hu2019Experiment, folder: Path) -> Hu2019Case:
    """A case's scores, from disk where the same networks made them before."""
    key = make_scores_key(engine, [SCORES_FORMAT, experiment.threshold])
    path = folder / key / f"{cohort}-{files.case_id}.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        return Hu2019Case(**{**found, "tumour_voxels": tuple(found["tumour_voxels"])})
    scored = score_hu2019(files, cohort, engine, experiment)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: getattr(scored, name) for name in Hu2019Case.__dataclass_fields__}
    write_atomically(path, json.dumps(content).encode())
    logger.info("scored %s of cohort %d", scored.case_id, cohort)
    return scored
