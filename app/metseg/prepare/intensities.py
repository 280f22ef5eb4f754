"""Percentile scaling to [0, 1] (Erdur et al. 2023, section 2.2)."""

from collections.abc import Mapping

import numpy as np

from metseg.errors import InputError
from metseg.plan.plan import IntensityPlan
from metseg.space.domain import FloatVolume


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
