"""Which threshold and which size rules suit a bundle: every combination scored on validation cases.

The network runs once a case; thresholds, fusion and rules are tried on its probabilities. Use cases that training did
not see, and report on others: the best of many combinations flatters itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from evaluation import score_case
from metseg.decide.decision import fuse_members
from metseg.decide.size_rules import apply_size_rules
from metseg.decide.threshold import member_labels
from metseg.files.case import CaseFiles
from metseg.labels import BRATS_REGIONS, LabelMap
from metseg.plan.plan import Plan, PostprocessPlan
from metseg.predict.engine import Engine
from metseg.predict.fallback import predict
from metseg.predict.inputs import lay_inputs
from metseg.prepare.prepare import prepare
from metseg.run.pipeline import read
from metseg.space.resampling import labels_to_source
from training.references import read_reference_map

THRESHOLDS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
RULES: Final[Mapping[str, PostprocessPlan]] = {
    "none": PostprocessPlan(min_wt_mm3=0, min_netc_mm3=0, min_snfh_mm3=0, min_et_mm3=0),
    "small": PostprocessPlan(min_wt_mm3=6, min_netc_mm3=5, min_snfh_mm3=10, min_et_mm3=4),
    "paper": PostprocessPlan(),
    "large": PostprocessPlan(min_wt_mm3=50, min_netc_mm3=20, min_snfh_mm3=50, min_et_mm3=25),
    "larger": PostprocessPlan(min_wt_mm3=100, min_netc_mm3=20, min_snfh_mm3=100, min_et_mm3=50),
}
"""Size rules by name; `paper` is Erdur et al., section 2.8."""

_COLUMNS_2026: Final = ("lesionwise_dsc_mean", "small_instance_f1")


@dataclass(frozen=True, slots=True)
class Setting:
    """One combination: the threshold on probabilities, and a name in RULES."""

    threshold: float
    rules: str


@dataclass(frozen=True, slots=True)
class CaseFigures:
    """What one setting gives on one case; NaN where the case has nothing to count.

    Attributes:
        dice_2023: lesion-wise Dice of 2023, mean over the regions.
        dice_2026: the same of 2026.
        f1_small_2026: F1 of the small instances of 2026, mean over the regions that have some.
        lesions: tumour-core lesions of the reference.
        found: those that are matched (2023 matching).
        false_positives: tumour-core components that match none.
    """

    dice_2023: float
    dice_2026: float
    f1_small_2026: float
    lesions: int
    found: int
    false_positives: int


def list_settings(thresholds: Sequence[float] = THRESHOLDS, rules: Sequence[str] = tuple(RULES)) -> tuple[Setting, ...]:
    """Every combination, thresholds ascending."""
    return tuple(Setting(threshold, name) for threshold, name in product(thresholds, rules))


def try_case(files: CaseFiles, engine: Engine, settings: Sequence[Setting]) -> dict[Setting, CaseFigures]:
    """Runs the engine on one case and scores each setting against its reference.

    Raises:
        InputError: the case can't be read, or has no reference.
    """
    reference = read_reference_map(files)
    return {
        setting: score_setting(reference.labels, labels, reference.grid.spacing_mm)
        for setting, labels in _label_maps(files, engine, settings)
    }


def _label_maps(files: CaseFiles, engine: Engine, settings: Sequence[Setting]) -> Iterator[tuple[Setting, LabelMap]]:
    plan = engine.plan
    prepared = prepare(read(files, plan), plan)
    predictions = predict(lay_inputs(prepared, engine), engine)
    resampling, layout = prepared.resampling, predictions.layout
    for threshold in sorted({setting.threshold for setting in settings}):
        votes = [member_labels(item.probabilities, threshold, plan.regions) for item in predictions.members]
        fused = fuse_members(predictions.members, votes, plan.model_copy(update={"threshold": threshold}))
        for setting in settings:
            if setting.threshold == threshold:
                rules = _choose_rules(setting, plan)
                clean = apply_size_rules(fused, rules, plan.regions, voxel_volume_mm3=plan.voxel_volume_mm3)
                yield setting, labels_to_source(layout.paste(clean, resampling.network.shape), resampling, plan.regions)


def _choose_rules(setting: Setting, plan: Plan) -> PostprocessPlan:
    """The setting's size rules; what the plan does with further parts of a lesion stays as it is."""
    own = plan.postprocess
    further = {"min_further_core_mm3": own.min_further_core_mm3, "min_further_et_share": own.min_further_et_share}
    return RULES[setting.rules].model_copy(update=further)


def score_setting(reference: LabelMap, labels: LabelMap, spacing_mm: tuple[float, float, float]) -> CaseFigures:
    """Scores one label map with both protocols."""
    of_2023 = {region.region: region for region in score_case(reference, labels, spacing_mm, "brats2023").regions}
    of_2026 = {region.region: region for region in score_case(reference, labels, spacing_mm, "brats2026").regions}
    core = of_2023["TC"]
    lesions = [item for item in core.lesions if item.kind == "lesion"]
    columns = {name: [of_2026[region].columns()[name] for region in BRATS_REGIONS.names] for name in _COLUMNS_2026}
    return CaseFigures(
        dice_2023=_mean([of_2023[region].columns()["LesionWise_Score_Dice"] for region in BRATS_REGIONS.names]),
        dice_2026=_mean(columns["lesionwise_dsc_mean"]),
        f1_small_2026=_mean(columns["small_instance_f1"]),
        lesions=len(lesions),
        found=sum(bool(item.matched_components) for item in lesions),
        false_positives=sum(item.kind == "false_positive" for item in core.lesions),
    )


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def summarise(cases: Sequence[CaseFigures]) -> dict[str, float]:
    """One setting over all cases: means under the names of CaseFigures, and `sensitivity`, the share found."""
    lesions = sum(case.lesions for case in cases)
    return {
        "dice_2023": _mean([case.dice_2023 for case in cases]),
        "dice_2026": _mean([case.dice_2026 for case in cases]),
        "f1_small_2026": _mean([case.f1_small_2026 for case in cases]),
        "sensitivity": sum(case.found for case in cases) / lesions if lesions else float("nan"),
        "false_positives": float(np.mean([case.false_positives for case in cases])),
    }


def best_settings(summaries: Mapping[Setting, Mapping[str, float]], max_false_positives: float) -> dict[str, Setting]:
    """The settings to make plans of.

    Args:
        summaries: by setting, see `summarise`.
        max_false_positives: a case, for the sensitive plan.

    Returns:
        `brats2023`: highest lesion-wise Dice of 2023; `brats2026`: highest mean of the lesion-wise Dice and the
        small-instance F1 of 2026; `sensitive`: highest sensitivity within `max_false_positives`, absent where no
        setting keeps to them. Ties go to the fewer false positives.
    """

    def of_2026(item: Mapping[str, float]) -> float:
        return _mean([item["dice_2026"], item["f1_small_2026"]])

    def highest(score: Mapping[Setting, float]) -> Setting:
        return max(score, key=lambda setting: (score[setting], -summaries[setting]["false_positives"]))

    best = {
        "brats2023": highest({setting: item["dice_2023"] for setting, item in summaries.items()}),
        "brats2026": highest({setting: of_2026(item) for setting, item in summaries.items()}),
    }
    within = {
        setting: item["sensitivity"]
        for setting, item in summaries.items()
        if item["false_positives"] <= max_false_positives
    }
    return best | ({"sensitive": highest(within)} if within else {})
