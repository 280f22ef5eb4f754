"""Validation as the challenge scores: sliding window, decoding, lesion-wise scores; no postprocessing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from metseg.device import Device
from metseg.ensemble import Ensemble, sliding_logits
from metseg.fusion import member_labels
from metseg.labels import LabelMap, decode_regions, region_masks
from metseg.plan import MemberPlan, Plan, TtaPlan
from metseg.windows import lay_windows
from training.data.augment import stack_channels
from training.data.cache import open_entry
from training.recipe import Recipe

HEADLINE = {"brats2023": "LesionWise_Score_Dice", "brats2026": "lesionwise_dsc_mean"}
"""The column of each protocol that chooses the best checkpoint."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Means over cases and regions.

    Attributes:
        score: lesion-wise Dice of the recipe's protocol.
        dice: legacy Dice of the regions WT, TC, ET; cases without the region in both maps count as 1.
        cases: how many.
    """

    score: float
    dice: tuple[float, float, float]
    cases: int


def validate(network: nn.Module, entries: Sequence[Path], recipe: Recipe, device: Device) -> ValidationResult:
    """Segments prepared cases and scores them.

    Args:
        network: in eval mode, giving logits.
        entries: cache entries of the cases; at least one.
        recipe: of the run.
        device: where the network lies.
    """
    from evaluation import score_case  # noqa: PLC0415 - heavy, and a run without validation needs none of it

    plan = Plan(
        name="validation",
        window=recipe.validation.window,
        tta=TtaPlan(variant="none"),
        members=(MemberPlan(name=recipe.name, weights="none.safetensors", sha256="0" * 64),),
    )
    # Float32 input: autocast chooses the arithmetic of each layer, as in training.
    ensemble = Ensemble(plan=plan, members=(), device=replace(device, precision="float32"))
    scores, dices = [], []
    for entry in entries:
        case = open_entry(entry)
        image = stack_channels(
            torch.from_numpy(case.images.astype(np.float32)),
            case.modalities,
            recipe.data.channels,
            recipe.data.missing_t2w,
        ).numpy()
        shape = image.shape[1:]
        layout = lay_windows(shape, (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])), plan.window)
        padded = np.stack([layout.cut(channel) for channel in image])
        with torch.autocast(device.name.split(":")[0], dtype=device.dtype, enabled=device.precision != "float32"):
            logits = sliding_logits(network, padded, layout, ensemble, seed=0)
        labels = layout.paste(member_labels(logits.sigmoid().cpu().numpy(), recipe.validation.threshold), shape)
        reference = decode_regions(case.components > 0)
        result = score_case(reference, labels, (recipe.data.spacing_mm,) * 3, recipe.validation.protocol)
        column = HEADLINE[recipe.validation.protocol]
        values = [region.columns()[column] for region in result.regions if region.region in {"WT", "TC", "ET"}]
        scores += [value for value in values if not math.isnan(value)]
        dices.append(_dice_of_regions(reference, labels))
    wt, tc, et = np.mean(dices, axis=0)
    return ValidationResult(float(np.mean(scores)) if scores else 0.0, (float(wt), float(tc), float(et)), len(dices))


def _dice_of_regions(reference: LabelMap, labels: LabelMap) -> list[float]:
    pairs = zip(region_masks(reference), region_masks(labels), strict=True)
    totals = [(int((one & other).sum()), int(one.sum()) + int(other.sum())) for one, other in pairs]
    return [2 * common / total if total else 1.0 for common, total in totals]
