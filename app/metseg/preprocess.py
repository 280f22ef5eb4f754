"""From a case to what the networks read: RAS axes, 1 mm, intensities in [0, 1], the subtraction channel.

Training prepares its volumes with these same functions, so that the two can't drift apart.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from metseg.components import Box, bounding_box
from metseg.domain import Case, FloatVolume
from metseg.errors import InputError
from metseg.geometry import Trip, plan_trip, to_network
from metseg.plan import SUBTRACTION, ChannelName, IntensityPlan

MRI_MODALITIES: Final[tuple[Literal["t1n", "t1c", "t2w", "t2f"], ...]] = ("t1n", "t1c", "t2w", "t2f")
"""The modalities that are scaled by percentiles."""


@dataclass(frozen=True, slots=True)
class PreparedCase:
    """One case on the network's grid.

    Attributes:
        case_id: see CaseFiles.
        trip: the way between the source grid and the network's.
        channels: every channel that the case's images give, shape (x, y, z) each, RAS axes, in [0, 1].
        brain: bounding box of the voxels that are not background in some channel.
    """

    case_id: str
    trip: Trip
    channels: Mapping[ChannelName, FloatVolume]
    brain: Box


def prepare_case(case: Case, intensity: IntensityPlan, *, spacing_mm: float = 1.0) -> PreparedCase:
    """Brings a case to the network's grid and scale (Erdur et al. 2023, section 2.2).

    Raises:
        InputError: an image has no contrast left between its percentiles.
    """
    trip = plan_trip(case.grid, spacing_mm)
    channels: dict[ChannelName, FloatVolume] = {}
    for modality in MRI_MODALITIES:
        if modality not in case.images:
            continue
        image = case.images[modality]
        try:
            channels[modality] = scale_intensities(to_network(image, trip), intensity)
        except InputError as error:
            raise InputError(f"case {case.case_id}: {modality}: {error}", hint=error.hint) from error
    if "t1c" in channels and "t1n" in channels:
        channels[SUBTRACTION] = subtract(channels["t1c"], channels["t1n"])
    return PreparedCase(case_id=case.case_id, trip=trip, channels=channels, brain=brain_box(channels))


def scale_intensities(volume: FloatVolume, plan: IntensityPlan) -> FloatVolume:
    """Maps the plan's percentiles over all voxels, background included, to [0, 1] and clips.

    Args:
        volume: shape (x, y, z), any unit, finite.
        plan: the percentiles.

    Returns:
        Same shape, float32 in [0, 1].

    Raises:
        InputError: both percentiles are equal, as in an image that is almost empty.
    """
    lower, upper = percentiles(volume, (plan.lower_percentile, plan.upper_percentile))
    if not upper > lower:
        raise InputError(
            f"no contrast: percentiles {plan.lower_percentile} and {plan.upper_percentile} are both {lower:g}",
            hint="The image is empty or almost empty: export it again.",
        )
    scaled = (volume - np.float32(lower)) * np.float32(1 / (upper - lower))
    return np.clip(scaled, 0, 1, out=scaled)


def percentiles(volume: FloatVolume, percents: tuple[float, ...]) -> tuple[float, ...]:
    """Percentiles as `numpy.percentile` defines them (linear interpolation), quicker when most voxels are 0.

    Only what is not 0 is partitioned: the background of a skull-stripped image is four fifths of it.
    """
    values = volume[volume != 0]
    negative, positive = values[values < 0], values[values > 0]
    zeros = volume.size - values.size
    ranks = [percent / 100 * (volume.size - 1) for percent in percents]
    needed = sorted({rank for exact in ranks for rank in (int(exact), min(int(exact) + 1, volume.size - 1))})
    at_rank: dict[int, float] = {}
    for part, offset in ((negative, 0), (positive, negative.size + zeros)):
        inside = [rank - offset for rank in needed if offset <= rank < offset + part.size]
        if inside:
            part.partition(inside)
            at_rank |= {rank + offset: float(part[rank]) for rank in inside}
    return tuple(_interpolate(at_rank, exact, volume.size) for exact in ranks)


def _interpolate(at_rank: Mapping[int, float], exact: float, size: int) -> float:
    below = int(exact)
    low, high = at_rank.get(below, 0.0), at_rank.get(min(below + 1, size - 1), 0.0)
    return low + (high - low) * (exact - below)


def subtract(t1c: FloatVolume, t1n: FloatVolume) -> FloatVolume:
    """The subtraction channel: (t1c - t1n) squared, element-wise, not rescaled (Erdur et al. 2023, section 2.4).

    Args:
        t1c: shape (x, y, z), scaled to [0, 1].
        t1n: same shape and scale.
    """
    difference: FloatVolume = t1c - t1n
    difference *= difference
    return difference


def brain_box(channels: Mapping[ChannelName, FloatVolume]) -> Box:
    """Bounding box of the voxels that are above 0 in some channel: the brain, when the skull is stripped.

    Empty slices where there is none.
    """
    first, *others = channels.values()
    seen: NDArray[np.bool_] = first > 0
    for channel in others:
        np.logical_or(seen, channel > 0, out=seen)
    return bounding_box(seen) or (slice(0, 0), slice(0, 0), slice(0, 0))


def voxel_seed(channels: Mapping[ChannelName, FloatVolume], box: Box) -> int:
    """A seed that depends on the voxels inside `box` alone, not on the case's name or on what ran before."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(channels):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(channels[name][box]).data)
    return int.from_bytes(digest.digest(), "little")
