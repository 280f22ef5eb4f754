"""Percentile scaling to [0, 1] (Erdur et al. 2023, section 2.2)."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.plan.plan import IntensityPlan
from metseg.space.grid import FloatVolume

Mask = NDArray[np.bool_]


def find_brain(images: Iterable[FloatVolume]) -> Mask:
    """Where some image of a skull-stripped case is not background.

    Args:
        images: shape (x, y, z) each, one or more, over a background of 0.
    """
    first, *others = images
    brain: Mask = first != 0
    for image in others:
        np.logical_or(brain, image != 0, out=brain)
    return brain


def scale_intensities(volume: FloatVolume, plan: IntensityPlan, brain: Mask | None = None) -> FloatVolume:
    """Maps the plan's percentiles to [0, 1] and clips.

    Args:
        volume: shape (x, y, z), any unit, finite.
        plan: the percentiles, and over which voxels they are taken.
        brain: same shape, for a plan that takes them over the brain; None where the image alone tells.

    Returns:
        Same shape, float32 in [0, 1]; where the plan takes them over the brain, 0 outside of it.

    Raises:
        InputError: both percentiles are equal, as in an image that is almost empty.
    """
    if plan.depends_on_margin:
        return _scaled(volume, volume, plan)
    inside = find_brain([volume]) if brain is None else brain
    return np.where(inside, _scaled(volume, volume[inside], plan), np.float32(0))


def _scaled(volume: FloatVolume, seen: NDArray[np.float32], plan: IntensityPlan) -> FloatVolume:
    """The volume between percentiles of what is seen of it."""
    lower, upper = percentiles(seen, (plan.lower_percentile, plan.upper_percentile))
    if not upper > lower:
        raise InputError(
            f"no contrast: percentiles {plan.lower_percentile} and {plan.upper_percentile} are both {lower:g}",
            hint="The image is empty or almost empty: export it again.",
        )
    scaled = (volume - np.float32(lower)) * np.float32(1 / (upper - lower))
    return np.clip(scaled, 0, 1, out=scaled)


def percentiles(volume: NDArray[np.float32], percents: tuple[float, ...]) -> tuple[float, ...]:
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
