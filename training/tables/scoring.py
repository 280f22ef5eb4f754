"""One test case through every method of the ladder, and its scores; all arithmetic is the app's and evaluation's."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from evaluation import score_case
from metseg.decide.fusion import fuse_labels, fuse_probabilities, member_labels
from metseg.decide.size_rules import postprocess
from metseg.files.case import CaseFiles
from metseg.files.nifti import read_label_map
from metseg.labels import BRATS_REGIONS, LabelMap
from metseg.plan.plan import FusionPlan, TtaPlan
from metseg.predict.ensemble import Ensemble, Member, MemberPrediction, predict_case
from metseg.predict.inputs import Prefetch
from metseg.predict.windows import Layout
from metseg.prepare.prepare import PreparedCase
from metseg.run.pipeline import fuse_members, load_case
from metseg.space.components import find_components
from metseg.space.resampling import labels_to_source
from training.data.prepared import reference_path
from training.tables.published import METRICS, Method

Scores = Mapping[str, tuple[float, ...]]
"""Region -> figures in the order of METRICS."""

_COLUMNS = ("lesion_wise_dice", "legacy_dice", "lesion_wise_hd95_mm", "legacy_hd95_mm", "fp", "fn")
"""Attributes of `Brats2023Region`, in the order of METRICS."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The trained models and how they are run.

    Attributes:
        ensemble: all models; its plan gives window, threshold and postprocessing.
        models: model -> its member's name in the ensemble.
        tta: of the method `+ TTA`.
        small_voxels: see Experiment; 0 where no table asks for small lesions.
        as_frozen: whether the ensemble with its own plan is a method too: every member with `tta`, then its fusion.
    """

    ensemble: Ensemble
    models: Mapping[str, str]
    tta: TtaPlan
    small_voxels: int = 0
    as_frozen: bool = False


@dataclass(frozen=True, slots=True)
class CaseScores:
    """One case's scores.

    Attributes:
        case_id: whose.
        has_small_lesion: whether its reference has a WT component under the ladder's `small_voxels`.
        scores: `<method>` and `<method>+post` -> scores.
    """

    case_id: str
    has_small_lesion: bool
    scores: Mapping[str, Scores]


def entry_name(method: Method, *, postprocessed: bool) -> str:
    """The key of a method's scores in `CaseScores`."""
    return f"{method}+post" if postprocessed else method


def score_ladder(files: CaseFiles, ladder: Ladder) -> CaseScores:
    """Segments a case with every method and scores each label map, with and without postprocessing."""
    plan = ladder.ensemble.plan
    loaded = load_case(files, _ensemble_of(ladder, ladder.tta, set(ladder.models.values())))
    trip = loaded.prepared.trip
    reference, grid = read_label_map(reference_path(files))
    scores: dict[str, Scores] = {}
    for method, labels in segment_by_method(loaded.prepared, ladder, loaded.layout, loaded.prefetch).items():
        clean = postprocess(labels, plan.postprocess, voxel_volume_mm3=plan.voxel_volume_mm3)
        for name, final in ((method, labels), (f"{method}+post", clean)):
            pasted = labels_to_source(loaded.layout.paste(final, trip.network.shape), trip)
            result = score_case(reference, pasted, grid.spacing_mm, "brats2023")
            scores[name] = {
                region.region: tuple(float(getattr(region, column)) for column in _COLUMNS)
                for region in result.regions
                if region.region in BRATS_REGIONS.names
            }
    sizes = find_components(BRATS_REGIONS.whole_mask(reference)).sizes
    return CaseScores(files.case_id, bool((sizes < ladder.small_voxels).any()), scores)


def segment_by_method(case: PreparedCase, ladder: Ladder, layout: Layout, prefetch: Prefetch) -> dict[Method, LabelMap]:
    """The label map of each method that the ladder's models allow, on the layout's region, without postprocessing.

    The ensembles are those of the paper: baseline, + blob loss, + subtraction, and + TTA as a member of its own.
    `prefetch` has the noise of the passes of `ladder.tta`; it is given back.
    """
    plan = ladder.ensemble.plan
    plain = predict_case(case, _ensemble_of(ladder, TtaPlan(variant="none"), set(ladder.models.values())), layout)
    names = set(ladder.models.values()) if ladder.as_frozen else {ladder.models["sub"]}
    with_tta = _ensemble_of(ladder, ladder.tta, names)
    augmented = {item.name: item for item in predict_case(case, with_tta, layout, prefetch)}
    prefetch.forget()
    by_name = {prediction.name: prediction for prediction in plain}
    predictions: dict[str, MemberPrediction] = {model: by_name[name] for model, name in ladder.models.items()}
    predictions["tta"] = augmented[ladder.models["sub"]]
    threshold = plan.threshold
    labels: dict[Method, LabelMap] = {
        model: member_labels(prediction.probabilities, threshold)  # type: ignore[misc]  # models are methods
        for model, prediction in predictions.items()
    }
    four: tuple[Method, ...] = ("baseline", "blob", "sub", "tta")
    probabilities = [predictions[model].probabilities for model in four]
    labels["mean"] = fuse_probabilities(probabilities, FusionPlan(method="mean"), threshold)
    labels["simple"] = fuse_labels([labels[model] for model in four], FusionPlan(method="simple"))
    if "small" in labels:
        labels["simple_small"] = fuse_labels([labels["simple"], labels["small"]], FusionPlan(method="maximum"))
    if ladder.as_frozen:
        members = list(augmented.values())
        votes = [member_labels(item.probabilities, threshold) for item in members]
        labels["frozen"] = fuse_members(members, votes, plan)
    return labels


def _ensemble_of(ladder: Ladder, tta: TtaPlan, names: set[str]) -> Ensemble:
    members: tuple[Member, ...] = tuple(item for item in ladder.ensemble.members if item.plan.name in names)
    return replace(ladder.ensemble, plan=ladder.ensemble.plan.model_copy(update={"tta": tta}), members=members)


def average_regions(scores: Scores) -> tuple[float, ...]:
    """The paper's figures of one case: each metric's mean over WT, TC, ET."""
    rows = [scores[region] for region in BRATS_REGIONS.names]
    return tuple(float(np.mean([row[index] for row in rows])) for index in range(len(METRICS)))
