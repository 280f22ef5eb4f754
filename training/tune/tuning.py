"""Which threshold and which size rules suit a bundle: every combination scored on validation cases.

The network runs once a case; thresholds, fusion and rules are tried on its probabilities. Use cases that training did
not see, and report on others: the best of many combinations flatters itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from metseg.decide.decision import fuse_members
from metseg.decide.size_rules import apply_size_rules
from metseg.decide.threshold import member_labels
from metseg.files.case import CaseFiles
from metseg.labels import LabelMap
from metseg.plan.plan import Plan, PostprocessPlan
from metseg.predict.engine import Engine
from metseg.predict.fallback import predict
from metseg.predict.inputs import lay_inputs
from metseg.prepare.prepare import prepare
from metseg.run.pipeline import read
from metseg.space.resampling import labels_to_source
from training.references import read_reference_map
from training.tune.judging import LESIONS, Figures, Judge, mean


@dataclass(frozen=True, slots=True)
class Setting:
    """One combination: the threshold on probabilities, and a name among the judge's size rules."""

    threshold: float
    rules: str


def list_settings(judge: Judge) -> tuple[Setting, ...]:
    """Every combination, thresholds ascending."""
    return tuple(Setting(threshold, name) for threshold, name in product(judge.thresholds, judge.rules))


def try_case(files: CaseFiles, engine: Engine, judge: Judge) -> dict[Setting, Figures]:
    """Runs the engine on one case and scores each of the judge's settings against its reference.

    Raises:
        InputError: the case can't be read, or has no reference.
    """
    reference = read_reference_map(files)
    return {
        setting: judge.score(reference.labels, labels, reference.grid.spacing_mm)
        for setting, labels in label_maps(files, engine, judge)
    }


def label_maps(files: CaseFiles, engine: Engine, judge: Judge) -> Iterator[tuple[Setting, LabelMap]]:
    """What each setting makes of a case, on the case's own grid; thresholds ascending."""
    plan = engine.plan
    prepared = prepare(read(files, plan), plan)
    predictions = predict(lay_inputs(prepared, engine), engine)
    resampling, layout = prepared.resampling, predictions.layout
    for threshold in judge.thresholds:
        votes = [member_labels(item.probabilities, threshold, plan.regions) for item in predictions.members]
        fused = fuse_members(predictions.members, votes, plan.model_copy(update={"threshold": threshold}))
        for name, rules in judge.rules.items():
            own = _with_further(rules, plan)
            clean = apply_size_rules(fused, own, plan.regions, voxel_volume_mm3=plan.voxel_volume_mm3)
            placed = layout.paste(clean, resampling.network.shape)
            yield Setting(threshold, name), labels_to_source(placed, resampling, plan.regions)


def _with_further(rules: PostprocessPlan, plan: Plan) -> PostprocessPlan:
    """Size rules to try; what the plan does with further parts of a lesion and with cavities stays as it is."""
    kept = ("min_further_core_mm3", "min_further_et_share", "min_disjoint_mm3")
    return rules.model_copy(update={name: getattr(plan.postprocess, name) for name in kept})


def summarise(cases: Sequence[Figures]) -> dict[str, float]:
    """One setting over all cases: the figures' means, and `sensitivity`, the share of the lesions that is found."""
    lesions = sum(case["lesions"] for case in cases)
    means = {name: mean([case[name] for case in cases]) for name in cases[0] if name not in LESIONS}
    return {
        **means,
        "sensitivity": sum(case["found"] for case in cases) / lesions if lesions else float("nan"),
        "false_positives": float(np.mean([case["false_positives"] for case in cases])),
    }


def best_settings(
    summaries: Mapping[Setting, Mapping[str, float]], judge: Judge, max_false_positives: float
) -> dict[str, Setting]:
    """The settings to make plans of.

    Args:
        summaries: by setting, see `summarise`.
        judge: says which figures are to be high.
        max_false_positives: a case, for the sensitive plan.

    Returns:
        The judge's choices, and `sensitive`: highest sensitivity within `max_false_positives`, absent where no setting
        keeps to them. Ties go to the fewer false positives.
    """

    def highest(score: Mapping[Setting, float]) -> Setting:
        return max(score, key=lambda setting: (score[setting], -summaries[setting]["false_positives"]))

    best = {
        choice: highest({setting: mean([item[name] for name in names]) for setting, item in summaries.items()})
        for choice, names in judge.best.items()
    }
    within = {
        setting: item["sensitivity"]
        for setting, item in summaries.items()
        if item["false_positives"] <= max_false_positives
    }
    return best | ({"sensitive": highest(within)} if within else {})
