"""One test case through every method of the paper, and its scores; all arithmetic is the app's and evaluation's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evaluation import score_case
from metseg.decide.decision import fuse_members
from metseg.decide.fusion import fuse_labels, fuse_probabilities
from metseg.decide.size_rules import apply_size_rules
from metseg.decide.threshold import member_labels
from metseg.files.case import CaseFiles
from metseg.labels import BRATS_REGIONS, LabelMap
from metseg.plan.plan import FusionPlan, TtaPlan, WindowPlan
from metseg.predict.engine import Engine, Member
from metseg.predict.fallback import predict
from metseg.predict.inputs import lay_inputs
from metseg.predict.members import MemberPrediction, Predictions
from metseg.predict.windows import Layout
from metseg.prepare.prepare import PreparedCase, prepare
from metseg.run.pipeline import read
from metseg.space.components import find_components
from metseg.space.resampling import labels_to_source
from training.references import read_reference_map
from training.tables.experiment import Variant
from training.tables.published import METRICS, Method

Scores = Mapping[str, tuple[float, ...]]
"""Region -> figures in the order of METRICS."""

_COLUMNS = ("lesion_wise_dice", "legacy_dice", "lesion_wise_hd95_mm", "legacy_hd95_mm", "fp", "fn")
"""Attributes of `Brats2023Region`, in the order of METRICS."""


@dataclass(frozen=True, slots=True)
class ModelSteps:
    """The trained models, each one step further than the one before it, and how they are run.

    Attributes:
        engine: all models; its plan gives window, threshold and size rules.
        members: model -> its member's name in the engine.
        tta: of the method `+ TTA`.
        small_voxels: see Experiment; 0 where no table asks for small lesions.
        as_frozen: whether the engine with its own plan is a method too: every member with `tta`, then its fusion.
        variants: name -> further inference settings, which are methods too.
    """

    engine: Engine
    members: Mapping[str, str]
    tta: TtaPlan
    small_voxels: int = 0
    as_frozen: bool = False
    variants: Mapping[str, Variant] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaseScores:
    """One case's scores.

    Attributes:
        case_id: whose.
        has_small_lesion: whether its reference has a WT component under the models' `small_voxels`.
        scores: `<method>` and `<method>+post` -> scores.
    """

    case_id: str
    has_small_lesion: bool
    scores: Mapping[str, Scores]


def pool_seeds(by_seed: Sequence[Sequence[CaseScores]]) -> tuple[CaseScores, ...]:
    """The mean of each case's scores over the seeds, so that a case counts once.

    Args:
        by_seed: the same cases in the same order for each seed.
    """
    return tuple(_mean_scores(of_case) for of_case in zip(*by_seed, strict=True))


def _mean_scores(of_case: Sequence[CaseScores]) -> CaseScores:
    first = of_case[0]
    scores = {
        name: {
            region: tuple(np.mean([scored.scores[name][region] for scored in of_case], axis=0).tolist())
            for region in regions
        }
        for name, regions in first.scores.items()
    }
    return replace(first, scores=scores)


def entry_name(method: str, *, postprocessed: bool) -> str:
    """The key of a method's scores in `CaseScores`."""
    return f"{method}+post" if postprocessed else method


def score_steps(files: CaseFiles, models: ModelSteps) -> CaseScores:
    """Segments a case with every method and scores each label map, with and without size rules."""
    plan = models.engine.plan
    prepared = prepare(read(files, plan), plan)
    resampling = prepared.resampling
    reference = read_reference_map(files)
    scores: dict[str, Scores] = {}
    layout, by_method = segment_by_method(prepared, models)
    outcomes: dict[str, tuple[Layout, LabelMap]] = {method: (layout, labels) for method, labels in by_method.items()}
    outcomes |= _segment_variants(prepared, models)
    for method, (layout, labels) in outcomes.items():
        clean = apply_size_rules(labels, plan.postprocess, plan.regions, voxel_volume_mm3=plan.voxel_volume_mm3)
        for name, final in ((method, labels), (f"{method}+post", clean)):
            pasted = labels_to_source(layout.paste(final, resampling.network.shape), resampling, plan.regions)
            result = score_case(reference.labels, pasted, reference.grid.spacing_mm, "brats2023")
            scores[name] = {
                region.region: tuple(float(getattr(region, column)) for column in _COLUMNS)
                for region in result.regions
                if region.region in BRATS_REGIONS.names
            }
    sizes = find_components(BRATS_REGIONS.whole_mask(reference.labels)).sizes
    return CaseScores(files.case_id, bool((sizes < models.small_voxels).any()), scores)


def segment_by_method(prepared: PreparedCase, models: ModelSteps) -> tuple[Layout, dict[Method, LabelMap]]:
    """The label map of each method that the models allow, without size rules, and the layout whose box they cover.

    The ensembles are those of the paper: baseline, + blob loss, + subtraction, and + TTA as a member of its own.
    """
    plan = models.engine.plan
    plain = _predict(prepared, models, TtaPlan(variant="none"), set(models.members.values()))
    names = set(models.members.values()) if models.as_frozen else {models.members["sub"]}
    augmented = _predict(prepared, models, models.tta, names)
    with_tta = {item.name: item for item in augmented.members}
    by_name = {prediction.name: prediction for prediction in plain.members}
    predictions: dict[str, MemberPrediction] = {model: by_name[name] for model, name in models.members.items()}
    predictions["tta"] = with_tta[models.members["sub"]]
    threshold, regions = plan.threshold, plan.regions
    labels: dict[Method, LabelMap] = {
        model: member_labels(prediction.probabilities, threshold, regions)  # type: ignore[misc]  # models are methods
        for model, prediction in predictions.items()
    }
    four: tuple[Method, ...] = ("baseline", "blob", "sub", "tta")
    probabilities = [predictions[model].probabilities for model in four]
    labels["mean"] = fuse_probabilities(probabilities, FusionPlan(method="mean"), threshold, regions)
    labels["simple"] = fuse_labels([labels[model] for model in four], FusionPlan(method="simple"), regions)
    if "small" in labels:
        both = [labels["simple"], labels["small"]]
        labels["simple_small"] = fuse_labels(both, FusionPlan(method="maximum"), regions)
    if models.as_frozen:
        votes = [member_labels(item.probabilities, threshold, regions) for item in augmented.members]
        labels["frozen"] = fuse_members(augmented.members, votes, plan)
    return plain.layout, labels


def _segment_variants(prepared: PreparedCase, models: ModelSteps) -> dict[str, tuple[Layout, LabelMap]]:
    """The same for the network of `+ subtraction` with each variant's passes and windows."""
    plan, names = models.engine.plan, {models.members["sub"]}
    usual = {"sub": TtaPlan(variant="none"), "tta": models.tta}
    found = {}
    for name, variant in models.variants.items():
        said = _predict(prepared, models, variant.tta or usual[variant.like], names, variant.window)
        labels = member_labels(said.members[0].probabilities, plan.threshold, plan.regions)
        found[name] = (said.layout, labels)
    return found


def _predict(
    prepared: PreparedCase, models: ModelSteps, tta: TtaPlan, names: set[str], window: WindowPlan | None = None
) -> Predictions:
    """What the members of these names say with these passes, and windows other than the plan's."""
    members: tuple[Member, ...] = tuple(item for item in models.engine.members if item.plan.name in names)
    changes = {"tta": tta} | ({"window": window} if window else {})
    engine = replace(models.engine, plan=models.engine.plan.model_copy(update=changes), members=members)
    return predict(lay_inputs(prepared, engine), engine)


def average_regions(scores: Scores) -> tuple[float, ...]:
    """The paper's figures of one case: each metric's mean over WT, TC, ET."""
    rows = [scores[region] for region in BRATS_REGIONS.names]
    return tuple(float(np.mean([row[index] for row in rows])) for index in range(len(METRICS)))
