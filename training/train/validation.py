"""Validation as the challenge scores: sliding window, decoding, lesion-wise scores; no size rules."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metseg.decide.decision import decide
from metseg.labels import LabelMap, Regions
from metseg.predict.device import Device
from metseg.predict.engine import Engine, Execution
from metseg.predict.gpu import send
from metseg.predict.members import MemberPrediction, Predictions
from metseg.predict.passes import CaseNoise
from metseg.predict.sliding import sliding_logits
from metseg.predict.tiles import tiled_logits
from metseg.predict.windows import lay_windows
from metseg.space.components import Box
from training.data.cache import open_entry
from training.data.whole import lay_out_channels
from training.recipe import Recipe

if TYPE_CHECKING:
    from evaluation.results import CaseScores

HEADLINE = {"brats2023": "LesionWise_Score_Dice", "brats2026": "lesionwise_dsc_mean", "hu2019": "dsc"}
"""The column of each protocol that chooses the best checkpoint."""

WINDOWS_AT_ONCE = 2
"""As of crops in training: on a CPU a small one that comes alone takes several times as long (`training.train.run`)."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Means over cases and regions.

    Attributes:
        score: that chooses the best checkpoint, in `HEADLINE`'s column.
        figures: what `figure_names` names. A region that neither map shows has Dice 1.
        cases: how many.
    """

    score: float
    figures: tuple[float, ...]
    cases: int


@dataclass(frozen=True, slots=True)
class ValidationTotals:
    """Sums over cases, which ranks can add up.

    Attributes:
        score: sum over cases and regions that have one.
        scored: how many these are.
        figures: sums of each figure.
        cases: how many.
    """

    score: float = 0.0
    scored: float = 0.0
    figures: tuple[float, ...] = ()
    cases: float = 0.0

    def __add__(self, other: "ValidationTotals") -> "ValidationTotals":
        return self.unpacked(self.packed() + other.packed())

    def packed(self) -> Tensor:
        """Shape (3 + figures,), float64."""
        return torch.tensor([self.score, self.scored, self.cases, *self.figures], dtype=torch.float64)

    @staticmethod
    def unpacked(vector: Tensor) -> "ValidationTotals":
        """The inverse of `packed`."""
        score, scored, cases, *figures = vector.tolist()
        return ValidationTotals(score, scored, tuple(figures), cases)

    def means(self) -> ValidationResult:
        """The means; all 0 without cases."""
        figures = tuple(value / max(self.cases, 1) for value in self.figures)
        return ValidationResult(self.score / max(self.scored, 1), figures, int(self.cases))


def figure_names(recipe: Recipe) -> tuple[str, ...]:
    """What `ValidationResult.figures` holds."""
    return recipe.system.scores.figures or tuple(f"dice_{name.lower()}" for name in recipe.regions.names)


def score_entry(network: nn.Module, entry: Path, recipe: Recipe, device: Device) -> ValidationTotals:
    """Segments one prepared case as inference does (one plain pass, no size rules), and scores it.

    Args:
        network: in eval mode, giving logits.
        entry: of the cache.
        recipe: of the run.
        device: where the network lies.
    """
    from evaluation import score_case  # noqa: PLC0415 - heavy, and a run without validation needs none of it

    case = open_entry(entry)
    channels, reference, brain = lay_out_channels(case, recipe)
    labels = segment_channels(network, channels, brain, recipe, device)
    protocol = recipe.system.scores.protocol or recipe.validation.protocol
    scores = score_case(reference, labels, recipe.make_validation_plan().sides_mm, protocol)
    return add_up(scores, reference, labels, recipe)


def segment_channels(
    network: nn.Module, channels: NDArray[np.float32], brain: Box, recipe: Recipe, device: Device
) -> LabelMap:
    """Segments a prepared volume with one network, as `metseg.run.pipeline` does with an ensemble.

    Args:
        network: in eval mode, giving logits.
        channels: its input on the whole volume, shape (channels, x, y, z).
        brain: the box that windows cover.
        recipe: of the run.
        device: where the network lies.
    """
    plan = recipe.make_validation_plan()
    # Float32 input: autocast chooses the arithmetic of each layer, as in training.
    layout = lay_windows(channels.shape[1:], brain, plan.window, plan.side_multiples)
    execution = Execution(WINDOWS_AT_ONCE * math.prod(layout.window))
    engine = Engine(plan, members=(), device=replace(device, precision="float32"), execution=execution)
    with torch.autocast(device.name.split(":")[0], dtype=device.dtype, enabled=device.precision != "float32"):
        if recipe.network.runs_in_tiles:
            logits = tiled_logits(network, list(channels), layout, engine.device)
        else:
            padded = send(np.stack([layout.cut(channel) for channel in channels]), torch.device(device.name))
            logits = sliding_logits(
                network, padded, layout, engine, CaseNoise(plan.tta, seed=0), regions=len(plan.regions)
            )
    said = MemberPrediction(recipe.name, logits.sigmoid().cpu().numpy())
    return layout.paste(decide(Predictions((said,), layout), plan).labels, channels.shape[1:])


def add_up(scores: "CaseScores", reference: LabelMap, labels: LabelMap, recipe: Recipe) -> ValidationTotals:
    """Takes from a case's scores what the run's system asks for.

    Args:
        scores: of the protocol that the system or the recipe names.
        reference: shape (x, y, z).
        labels: same shape.
        recipe: of the run.
    """
    wanted = recipe.system.scores
    rows = [region.columns() for region in scores.regions if region.region in recipe.regions.names]
    column = HEADLINE[wanted.protocol or recipe.validation.protocol]
    values = _numbers((row[column] for row in rows), wanted.without_number)
    if wanted.figures:
        figures = [sum(_numbers((row[name] for row in rows), 0.0)) for name in wanted.figures]
    else:
        figures = _dice_by_region(reference, labels, recipe.regions)
    return ValidationTotals(sum(values), len(values), tuple(figures), 1)


def _numbers(values: Iterable[float], without_number: float | None) -> list[float]:
    """The values, with something else or nothing in place of those that are not numbers."""
    filled = (without_number if math.isnan(value) else value for value in values)
    return [value for value in filled if value is not None]


def _dice_by_region(reference: LabelMap, labels: LabelMap, regions: Regions) -> list[float]:
    pairs = zip(regions.split(reference), regions.split(labels), strict=True)
    totals = [(int((one & other).sum()), int(one.sum()) + int(other.sum())) for one, other in pairs]
    return [2 * common / total if total else 1.0 for common, total in totals]
