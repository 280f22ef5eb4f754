"""What a run of an experiment took, and how it went."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.runs.metrics import read_metrics

CURVE_POINTS: Final = 10
"""Validation scores that the page shows of a run, at equal shares of its steps."""


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """One run.

    Attributes:
        model: what was trained.
        seed: with which seed.
        step: optimiser steps.
        elapsed_s: seconds of training.
        curve: see `read_curve`.
    """

    model: str
    seed: int
    step: int
    elapsed_s: float
    curve: tuple[float, ...]


def read_curve(folder: Path, steps: int) -> tuple[float, ...]:
    """A run's validation scores at `CURVE_POINTS` equal shares of its steps, each the nearest one's.

    Empty where it has fewer validations than that.
    """
    scores = {line["step"]: float(line["score"]) for line in read_metrics(folder) if line["kind"] == "validation"}
    if len(scores) < CURVE_POINTS:
        return ()
    points = [steps * number / CURVE_POINTS for number in range(1, CURVE_POINTS + 1)]
    return tuple(scores[min(scores, key=lambda step: abs(step - point))] for point in points)
