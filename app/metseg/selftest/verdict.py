"""Runs the self-test: the phantom goes the whole way of a case, from files to a label map."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import OutputError, WeightsError
from metseg.files.discovery import discover_cases
from metseg.labels import BACKGROUND, LabelMap
from metseg.plan.bundle import Bundle
from metseg.plan.plan import Plan, TtaPlan
from metseg.predict.device import Device
from metseg.predict.engine import load_engine
from metseg.predict.members import Probabilities
from metseg.run.pipeline import segment
from metseg.selftest.expected import HINT, MARGIN, Expected, make_expected
from metseg.selftest.painting import CASE_ID
from metseg.selftest.phantoms import find_phantom
from metseg.space.resampling import labels_to_source
from metseg.systems import modalities_to_find

MIN_DICE: Final = 0.99
"""Of the largest region to the stored map, in any arithmetic on any device."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one pass over the phantom gave.

    Attributes:
        labels: the label map.
        undecided: voxels where some member's probability, or their mean where that decides, lies within MARGIN of the
            plan's threshold.
        lesions: 26-connected components of the largest region.
        elapsed_s: for the case, loading the weights included.
    """

    labels: LabelMap
    undecided: NDArray[np.bool_]
    lesions: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A result beside the expected one.

    Attributes:
        device: description and precision.
        lesions: found.
        expected_lesions: should be.
        dice: of the largest region to the stored map; 1 where both are empty.
        is_exact: whether every voxel has the stored label, but for the few that rounding decides (`Expected`).
        must_be_exact: whether it has to: float32 on a CPU.
        elapsed_s: see Result.
    """

    device: str
    lesions: int
    expected_lesions: int
    dice: float
    is_exact: bool
    must_be_exact: bool
    elapsed_s: float

    @property
    def passed(self) -> bool:
        """Whether this device computes what it should."""
        right = self.lesions == self.expected_lesions and self.dice >= MIN_DICE
        return right and (self.is_exact or not self.must_be_exact)


def shorten_plan(plan: Plan) -> Plan:
    """The bundle's plan, made quick: one pass per member, no larger windows than the phantom's head."""
    window = plan.window.model_copy(update={"extent": "whole" if plan.window.extent == "whole" else "trimmed"})
    changes = {"name": CASE_ID, "description": "", "window": window, "tta": TtaPlan(variant="none")}
    return plan.model_copy(update=changes)


def segment_phantom(bundle: Bundle, device: Device) -> Result:
    """Writes the phantom to a temporary folder and segments it there with every member of the bundle.

    Raises:
        OutputError: there is no folder for temporary files.
        WeightsError: the bundle can't be loaded.
    """
    start = time.perf_counter()
    plan = shorten_plan(bundle.plan)
    engine = load_engine(replace(bundle, plan=plan), device)
    with _temporary_folder() as scratch:
        find_phantom(plan.modalities).write(Path(scratch))
        (files,) = discover_cases(Path(scratch), modalities=modalities_to_find(plan.modalities))
        segmented = segment(files, engine)
    predictions, resampling = segmented.decision.predictions, segmented.resampling
    near = find_undecided([member.probabilities for member in predictions.members], plan).astype(np.uint8)
    pasted = predictions.layout.paste(near, resampling.network.shape)
    undecided = labels_to_source(pasted, resampling, plan.regions) > 0
    return Result(segmented.labels, undecided, segmented.lesions, time.perf_counter() - start)


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="metseg-")
    except OSError as error:
        raise OutputError(
            f"no folder for temporary files, which the phantom needs: {error.strerror or error}",
            hint="Name a folder that this user may write to in the environment variable TMPDIR.",
        ) from error


def find_undecided(members: Sequence[Probabilities], plan: Plan) -> NDArray[np.bool_]:
    """Where rounding may decide (`Result`).

    Args:
        members: probabilities of each member, shape (regions, x, y, z).
        plan: says what is compared with which threshold.

    Returns:
        Shape (x, y, z).
    """
    deciding = [*members]
    if plan.fusion.method == "mean":
        deciding.append(np.asarray(np.mean(members, axis=0, dtype=np.float32)))
    near = np.zeros(deciding[0].shape[1:], dtype=np.bool_)
    for probabilities in deciding:
        near |= (np.abs(probabilities - np.float32(plan.threshold)) < MARGIN).any(axis=0)
    return near


def expect_again(result: Result, bundle: Bundle) -> Expected:
    """What to store of a bundle's result: every later run has to give the same."""
    return make_expected(
        result.labels,
        result.undecided,
        lesions=result.lesions,
        phantom_sha256=find_phantom(bundle.plan.modalities).sha256,
        plan_sha256=shorten_plan(bundle.plan).sha256,
    )


def run_self_test(bundle: Bundle, expected: Expected, devices: Sequence[Device]) -> tuple[Verdict, ...]:
    """Segments the phantom on each device and compares.

    Raises:
        WeightsError: the stored result belongs to another phantom or plan, so that comparing would mean nothing.
    """
    for what, found, stored in (
        ("phantom", find_phantom(bundle.plan.modalities).sha256, expected.phantom_sha256),
        ("plan", shorten_plan(bundle.plan).sha256, expected.plan_sha256),
    ):
        if found != stored:
            raise WeightsError(
                f"self-test of {bundle.folder}: it was made for another {what} ({stored[:12]}, here {found[:12]})",
                hint=HINT,
            )
    return tuple(_judge(segment_phantom(bundle, device), expected, device) for device in devices)


def _judge(result: Result, expected: Expected, device: Device) -> Verdict:
    return Verdict(
        device=f"{device.description}, {device.precision}",
        lesions=result.lesions,
        expected_lesions=expected.lesions,
        dice=_dice(result.labels, expected.labels),
        is_exact=expected.hash_decided(result.labels) == expected.decided_sha256,
        must_be_exact=not device.is_cuda and device.precision == "float32",
        elapsed_s=result.elapsed_s,
    )


def _dice(one: LabelMap, other: LabelMap) -> float:
    first, second = one != BACKGROUND, other != BACKGROUND
    total = int(first.sum()) + int(second.sum())
    return 2 * int(np.logical_and(first, second).sum()) / total if total else 1.0
