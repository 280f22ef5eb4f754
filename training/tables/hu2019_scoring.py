"""One test head through every network and ensemble of Hu et al., and its figures."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evaluation import score_case
from evaluation.hu2019 import Hu2019
from metseg.decide.threshold import member_labels
from metseg.files.atomic import write_atomically
from metseg.files.case import CaseFiles
from metseg.predict.engine import Engine
from metseg.predict.fallback import predict
from metseg.predict.inputs import lay_inputs
from metseg.prepare.prepare import prepare
from metseg.run.pipeline import read
from metseg.space.resampling import labels_to_source
from training.data.cases import case_key
from training.references import read_reference_map
from training.tables.hu2019_experiment import MEMBERS_OF, Hu2019Experiment
from training.tables.hu2019_published import LOSSES, Loss, System
from training.tables.stages import make_scores_key

logger = logging.getLogger(__name__)

SCORES_FORMAT: Final = "hu2019-2"
"""Changed when the meaning of a stored score changes."""

Figures = Mapping[str, float]
"""Column of the protocol `hu2019` -> value."""


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


def pool_seeds(by_seed: Sequence[Sequence[Hu2019Case]]) -> tuple[Hu2019Case, ...]:
    """The mean of each case's figures over the seeds that have one, so that a case counts once.

    Args:
        by_seed: the same cases in the same order for each seed.
    """
    return tuple(
        replace(
            of_case[0],
            losses={loss: _mean_figures([case.losses[loss] for case in of_case]) for loss in of_case[0].losses},
            systems={name: _mean_figures([case.systems[name] for case in of_case]) for name in of_case[0].systems},
        )
        for of_case in zip(*by_seed, strict=True)
    )


def _mean_figures(of_seeds: Sequence[Figures]) -> Figures:
    found = {}
    for column in of_seeds[0]:
        values = [figures[column] for figures in of_seeds if not math.isnan(figures[column])]
        found[column] = math.fsum(values) / len(values) if values else math.nan
    return found


def score_hu2019(files: CaseFiles, cohort: int, engine: Engine, experiment: Hu2019Experiment) -> Hu2019Case:
    """Segments a case with every network and every ensemble, and scores each on the MR's grid."""
    plan, protocol = engine.plan, Hu2019(experiment.large_volume_mm3)
    prepared = prepare(read(files, plan), plan)
    resampling = prepared.resampling
    reference = read_reference_map(files)
    spacing_mm = reference.grid.spacing_mm
    predictions = predict(lay_inputs(prepared, engine), engine)
    by_model = {item.name: item.probabilities for item in predictions.members}

    def figures(probabilities: NDArray[np.float32]) -> Figures:
        box = member_labels(probabilities, experiment.threshold, plan.regions)
        labels = labels_to_source(predictions.layout.paste(box, resampling.network.shape), resampling, plan.regions)
        return score_case(reference.labels, labels, spacing_mm, protocol).regions[0].columns()

    mean_of = {
        system: np.asarray(np.mean([by_model[model] for model in models], axis=0, dtype=np.float32))
        for system, models in MEMBERS_OF.items()
    }
    lesions = score_case(reference.labels, reference.labels, spacing_mm, protocol).regions[0].lesions
    return Hu2019Case(
        case_id=files.case_id,
        cohort=cohort,
        losses={loss: figures(by_model[f"unet_{loss}"]) for loss in LOSSES},
        systems={system: figures(probabilities) for system, probabilities in mean_of.items()},
        tumour_voxels=tuple(round(lesion.volume_mm3 / plan.voxel_volume_mm3) for lesion in lesions),
    )


def recall_hu2019(
    files: CaseFiles, cohort: int, engine: Engine, experiment: Hu2019Experiment, folder: Path
) -> Hu2019Case:
    """A case's scores, from disk where the same networks made them before."""
    key = make_scores_key(engine, [SCORES_FORMAT, experiment.threshold, experiment.large_volume_mm3])
    path = folder / key / f"{cohort}-{case_key(files)}.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        return Hu2019Case(**{**found, "tumour_voxels": tuple(found["tumour_voxels"])})
    scored = score_hu2019(files, cohort, engine, experiment)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: getattr(scored, name) for name in Hu2019Case.__dataclass_fields__}
    write_atomically(path, json.dumps(content).encode())
    logger.info("scored %s of cohort %d", scored.case_id, cohort)
    return scored
