"""Validation as the challenge scores: sliding window, decoding, lesion-wise scores; no postprocessing."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from metseg.decide.fusion import member_labels
from metseg.labels import REGIONS, LabelMap, region_masks
from metseg.plan.networks import DeepMedicPlan
from metseg.predict.device import Device, send
from metseg.predict.ensemble import Ensemble, sliding_logits
from metseg.predict.passes import CaseNoise
from metseg.predict.tiles import tiled_logits
from metseg.predict.windows import lay_windows
from training.data.cache import open_entry
from training.data.whole import lay_out_channels
from training.recipe import Recipe

HEADLINE = {"brats2023": "LesionWise_Score_Dice", "brats2026": "lesionwise_dsc_mean"}
"""The column of each protocol that chooses the best checkpoint."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Means over cases and regions.

    Attributes:
        score: lesion-wise Dice of the recipe's protocol; Dice of all voxels for the radiosurgery system.
        dice: legacy Dice of the regions WT, TC, ET; cases without the region in both maps count as 1. For the
            radiosurgery system what `figure_names` says.
        cases: how many.
    """

    score: float
    dice: tuple[float, float, float]
    cases: int


@dataclass(frozen=True, slots=True)
class ValidationTotals:
    """Sums over cases, which ranks can add up.

    Attributes:
        score: sum of the lesion-wise Dice over cases and regions that have one.
        scored: how many these are.
        dice: sums of the legacy Dice of WT, TC, ET.
        cases: how many.
    """

    score: float = 0.0
    scored: float = 0.0
    dice: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cases: float = 0.0

    def __add__(self, other: "ValidationTotals") -> "ValidationTotals":
        return self.unpacked(self.packed() + other.packed())

    def packed(self) -> Tensor:
        """Shape (6,), float64."""
        return torch.tensor([self.score, self.scored, *self.dice, self.cases], dtype=torch.float64)

    @staticmethod
    def unpacked(vector: Tensor) -> "ValidationTotals":
        """The inverse of `packed`."""
        score, scored, wt, tc, et, cases = vector.tolist()
        return ValidationTotals(score, scored, (wt, tc, et), cases)

    def means(self) -> ValidationResult:
        """The means; all 0 without cases."""
        wt, tc, et = (value / max(self.cases, 1) for value in self.dice)
        return ValidationResult(self.score / max(self.scored, 1), (wt, tc, et), int(self.cases))


def score_entry(network: nn.Module, entry: Path, recipe: Recipe, device: Device) -> ValidationTotals:
    """Segments one prepared case as inference does (one plain pass, no postprocessing), and scores it.

    Args:
        network: in eval mode, giving logits.
        entry: of the cache.
        recipe: of the run.
        device: where the network lies.
    """
    from evaluation import score_case  # noqa: PLC0415 - heavy, and a run without validation needs none of it

    plan = recipe.plan_of_validation()
    # Float32 input: autocast chooses the arithmetic of each layer, as in training.
    ensemble = Ensemble(plan=plan, members=(), device=replace(device, precision="float32"))
    case = open_entry(entry)
    channels, reference, box = lay_out_channels(case, recipe)
    layout = lay_windows(case.volume_shape, box, plan.window, plan.side_multiples)
    with torch.autocast(device.name.split(":")[0], dtype=device.dtype, enabled=device.precision != "float32"):
        if isinstance(recipe.network, DeepMedicPlan):
            logits = tiled_logits(network, list(channels), layout, ensemble.device)
        else:
            padded = send(np.stack([layout.cut(channel) for channel in channels]), torch.device(device.name))
            logits = sliding_logits(network, padded, layout, ensemble, CaseNoise(ensemble.plan.tta, seed=0))
    region = member_labels(logits.sigmoid().cpu().numpy(), recipe.validation.threshold)
    labels = layout.paste(region, case.volume_shape)
    if recipe.is_radiosurgery:
        return _score_metastases(reference, labels, plan.sides_mm)
    result = score_case(reference, labels, plan.sides_mm, recipe.validation.protocol)
    column = HEADLINE[recipe.validation.protocol]
    scores = [region.columns()[column] for region in result.regions if region.region in REGIONS]
    numbers = [score for score in scores if not math.isnan(score)]
    wt, tc, et = _dice_of_regions(reference, labels)
    return ValidationTotals(sum(numbers), len(numbers), (wt, tc, et), 1)


def figure_names(recipe: Recipe) -> tuple[str, str, str]:
    """What `ValidationResult.dice` holds."""
    if recipe.is_radiosurgery:
        return "precision", "recall", "lesion_recall"
    return "dice_wt", "dice_tc", "dice_et"


def _score_metastases(
    reference: LabelMap, labels: LabelMap, spacing_mm: tuple[float, float, float]
) -> ValidationTotals:
    """The published scores (Hu et al. 2019); one that has no number, as precision without prediction, counts as 0."""
    from evaluation import score_case  # noqa: PLC0415 - heavy

    (region,) = score_case(reference, labels, spacing_mm, "hu2019").regions
    found = {name: 0.0 if math.isnan(value) else value for name, value in region.columns().items()}
    return ValidationTotals(found["dsc"], 1, (found["precision"], found["recall"], found["lesion_recall"]), 1)


def _dice_of_regions(reference: LabelMap, labels: LabelMap) -> list[float]:
    pairs = zip(region_masks(reference), region_masks(labels), strict=True)
    totals = [(int((one & other).sum()), int(one.sum()) + int(other.sum())) for one, other in pairs]
    return [2 * common / total if total else 1.0 for common, total in totals]
