"""How a system's label maps are judged while threshold and rules are chosen: what is tried, counted and best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from evaluation import score_case
from evaluation.results import RegionScores
from metseg.labels import BRATS_REGIONS, LabelMap
from metseg.plan.plan import PostprocessPlan
from metseg.systems import SystemName

Spacing = tuple[float, float, float]

Figures = Mapping[str, float]
"""What one setting gives on one case, by name; NaN where the case has nothing to count. Every judge's hold LESIONS."""

LESIONS: Final = ("lesions", "found", "false_positives")
"""Of the reference; those of them that are found; components that match none."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A system's way to choose.

    Attributes:
        thresholds: to try, ascending.
        rules: size rules to try, by name.
        score: figures of a label map: (reference, labels, voxel sides in mm), both of shape (x, y, z).
        best: name of a choice -> the figures whose mean it makes highest.
    """

    thresholds: Sequence[float]
    rules: Mapping[str, PostprocessPlan]
    score: Callable[[LabelMap, LabelMap, Spacing], Figures]
    best: Mapping[str, tuple[str, ...]]


def score_brats(reference: LabelMap, labels: LabelMap, spacing_mm: Spacing) -> Figures:
    """The lesion-wise Dice of 2023 and 2026 and the F1 of small instances, means over the regions; tumour cores."""
    of_2023 = {region.region: region for region in score_case(reference, labels, spacing_mm, "brats2023").regions}
    of_2026 = {region.region: region for region in score_case(reference, labels, spacing_mm, "brats2026").regions}
    core = of_2023["TC"].lesions
    lesions = [item for item in core if item.kind == "lesion"]

    def of_all(regions: Mapping[str, RegionScores], column: str) -> float:
        return mean([regions[name].columns()[column] for name in BRATS_REGIONS.names])

    return {
        "dice_2023": of_all(of_2023, "LesionWise_Score_Dice"),
        "dice_2026": of_all(of_2026, "lesionwise_dsc_mean"),
        "f1_small_2026": of_all(of_2026, "small_instance_f1"),
        "lesions": len(lesions),
        "found": sum(bool(item.matched_components) for item in lesions),
        "false_positives": sum(item.kind == "false_positive" for item in core),
    }


def score_radiosurgery(reference: LabelMap, labels: LabelMap, spacing_mm: Spacing) -> Figures:
    """Dice and precision of all voxels, and metastases of which a voxel is found."""
    columns = score_case(reference, labels, spacing_mm, "hu2019").regions[0].columns()
    lesions = columns["lesions"]
    return {
        "dsc": columns["dsc"],
        "precision": columns["precision"],
        "small_lesion_recall": columns["small_lesion_recall"],
        "lesions": lesions,
        "found": round(lesions * columns["lesion_recall"]) if lesions else 0,
        "false_positives": columns["false_positives"],
    }


def _rules(whole: int, netc: int = 0, snfh: int = 0, et: int = 0) -> PostprocessPlan:
    return PostprocessPlan(min_wt_mm3=whole, min_netc_mm3=netc, min_snfh_mm3=snfh, min_et_mm3=et)


JUDGES: Final[Mapping[SystemName, Judge]] = {
    "brats": Judge(
        thresholds=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        rules={
            "none": _rules(0),
            "small": _rules(6, 5, 10, 4),
            "paper": PostprocessPlan(),  # Erdur et al. 2023, section 2.8
            "large": _rules(50, 20, 50, 25),
            "larger": _rules(100, 20, 100, 50),
        },
        score=score_brats,
        best={"brats2023": ("dice_2023",), "brats2026": ("dice_2026", "f1_small_2026")},
    ),
    "radiosurgery": Judge(
        thresholds=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        # The smallest metastasis of Hu et al. 2019 has 3 mm3.
        rules={"none": _rules(0), "paper": _rules(3), "small": _rules(10), "large": _rules(30), "larger": _rules(60)},
        score=score_radiosurgery,
        best={"hu2019": ("dsc",)},
    ),
}
"""By system."""


def mean(values: Sequence[float]) -> float:
    """Mean of those that are numbers; NaN where none is."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")
