"""The background of a skull-stripped image becomes 0, whatever it was: percentiles and the brain's box rely on it."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.findings import Finding, warning
from metseg.space.components import find_components
from metseg.space.grid import FloatVolume

Mask = NDArray[np.bool_]
Values = NDArray[np.float32]

LEAST_SHARE: Final = 0.25
"""Of the voxels: what fewer share is no background. A brain leaves two fifths of its own bounding box empty."""

STRAY_SHARE: Final = 0.01
"""Of the brain: so few voxels below the others say nothing of the scale (ringing of a resampled edge, an overflow)."""

NEGLIGIBLE: Final = 1e-3
"""Of the largest value: noise about 0 that nobody sees in a scaled image."""

CLEAR: Final = 0.02
"""Of the brain's range: what differs from the background by more is no ringing of an interpolated edge, but near it."""

CORE_SIDE: Final = 9
CORE_SHARE: Final = 0.85
"""A voxel is of the brain's core where so much of the cube around it is brain: some three voxels from the edge, which
is as far as interpolation mixes the two."""


@dataclass(frozen=True, slots=True)
class Background:
    """What surrounds the brain.

    Attributes:
        value: may be NaN.
        mask: shape (x, y, z): where it is, with any further value that stands for background.
        names: of all its values, for messages.
    """

    value: float
    mask: Mask
    names: tuple[str, ...]


def settle_background(voxels: FloatVolume) -> tuple[FloatVolume, tuple[Finding, ...]]:
    """Makes the background 0 and the brain not negative, and says what was done.

    The background is the value, or NaN, that more than half of the image's border has, and a good part of its voxels.

    1. A background above 0 and not above the brain's minimum is subtracted everywhere.
    2. If the brain has negative values, its minimum is subtracted from it, and the background becomes 0.
    3. Any other background becomes 0, and the brain stays.

    An image over 0 without negative values stays as it is. So does one without a common value, with a warning.

    Args:
        voxels: shape (x, y, z), of a skull-stripped image; may hold NaN and infinities.

    Returns:
        The voxels (the same array where nothing changed), and findings of no case yet.
    """
    if _is_over_zero(voxels):
        return voxels, ()
    background = find_background(voxels)
    if background is None:
        what = f"no background: no value fills the image's border and {LEAST_SHARE:.0%} of its voxels; left as it is"
        return voxels, (warning("no-background", f"{what}, the result is unreliable", _HINT),)
    mask, value = background.mask, background.value
    brain = ~mask & np.isfinite(voxels)
    if not brain.any():
        return voxels, ()
    core = _core(voxels, brain, value)
    mixed = _mixed(voxels, brain & ~core, voxels[core], value)
    is_negative = _more_than_strays(voxels[core] < 0)
    if value == 0 and not is_negative and len(background.names) == 1:
        return voxels, ()
    what = f"the background is {' and '.join(background.names)} in {mask.mean():.1%} of the voxels"
    if mixed.any():
        what = f"{what}, and mixed into the brain's edge by resampling"
    if value > 0 and not _more_than_strays(voxels[core] < value):
        settled = np.where(mask, np.float32(0), voxels - np.float32(value))
        what = f"{what}: {value:g} was subtracted from every voxel"
    else:
        low = float(voxels[core if mixed.any() else brain].min())
        offset = low if is_negative else 0.0
        darker = brain & (voxels < offset) if mixed.any() else mixed
        settled = np.where(mask | mixed | darker, np.float32(0), voxels - np.float32(offset))
        what = f"{what}: set to 0"
        if is_negative:
            what = f"{what}, and the brain, which goes down to {low:g}, raised by {-low:g}"
    return np.asfortranarray(settled), (warning("background", what, _HINT),)


_HINT: Final = "Give the brain with its own intensities over a background of 0."


def find_background(voxels: FloatVolume) -> Background | None:
    """Finds what surrounds the brain.

    Behind the border's value a second one may lie: NaN, or the lowest and not above 0, as after padding.

    Returns:
        None where the border has no common value, or where too few voxels have it. Where every voxel has it, the mask
        is full.
    """
    border = _border(voxels)
    outer, tolerance = _majority(border), 0.0
    if outer is None:
        tolerance = NEGLIGIBLE * float(np.abs(voxels[np.isfinite(voxels)]).max(initial=0))
        if not np.mean(np.abs(border) <= tolerance) > 1 / 2:
            return None
        outer = 0.0
    mask, value, names = _equal(voxels, outer, tolerance), outer, [_name(outer)]
    inner = _inner(voxels[~mask])
    if inner is not None:
        mask |= _equal(voxels, inner)
        value = outer if np.isnan(inner) else inner
        names.append(_name(inner))
    lost = np.isnan(voxels) & ~mask
    islands = _islands(lost, ~(lost | mask)) if lost.any() else lost
    if islands.any():
        mask |= islands
        names.append(_name(np.nan))
    return Background(value, mask, tuple(names)) if mask.mean() >= LEAST_SHARE else None


def _is_over_zero(voxels: FloatVolume) -> bool:
    """Whether the background is 0 and, but for strays, nothing lies below it: most images, told in a moment."""
    filled = np.count_nonzero(voxels)
    if filled > (1 - LEAST_SHARE) * voxels.size or np.isnan(low := voxels.min()):
        return False
    return bool(low >= 0 or np.count_nonzero(voxels < 0) <= STRAY_SHARE * filled)


def _border(voxels: FloatVolume) -> Values:
    """All voxels of the six faces."""
    faces = [np.take(voxels, (0, -1), axis=axis).ravel() for axis in range(voxels.ndim)]
    return np.concatenate(faces)


def _majority(values: Values) -> float | None:
    """The value, or NaN, that more than half of the values are."""
    numbers = values[~np.isnan(values)]
    if 2 * numbers.size < values.size:
        return float("nan")
    middle = float(np.partition(numbers, numbers.size // 2)[numbers.size // 2])
    return middle if 2 * np.count_nonzero(_equal(numbers, middle)) > values.size else None


def _equal(voxels: NDArray[np.float32], value: float, tolerance: float = 0.0) -> Mask:
    """Where a value stands, within float32's rounding."""
    if not np.isfinite(value):
        return np.isnan(voxels) if np.isnan(value) else voxels == np.float32(value)
    near: Mask = np.abs(voxels - np.float32(value)) <= max(1e-5 * abs(value), tolerance)
    return near


def _inner(rest: Values) -> float | None:
    """The background behind the border's value: NaN, or the lowest value where that is not above 0."""
    numbers = rest[np.isfinite(rest)]
    if not numbers.size:
        return None
    low = float(numbers.min())
    for value in (float("nan"), low):
        share = np.count_nonzero(_equal(rest, value)) / rest.size
        if not value > 0 and LEAST_SHARE <= share < 1:
            return value
    return None


def _islands(lost: Mask, brain: Mask) -> Mask:
    """The components that touch no voxel of the brain."""
    components = find_components(lost)
    touched = np.zeros(components.count, dtype=np.bool_)
    touched[components.component_of[_grown(brain).reshape(-1)[components.voxels]] - 1] = True
    islands = np.zeros(lost.shape, dtype=np.bool_)
    islands.reshape(-1)[components.pick_voxels(~touched)] = True
    return islands


def _core(voxels: FloatVolume, brain: Mask, value: float) -> Mask:
    """The brain without its edge, which resampling may have changed; all of it where there is little else."""
    from scipy.ndimage import uniform_filter  # noqa: PLC0415 - slow to import

    clear = brain
    if np.isfinite(value):
        away = np.abs(voxels[brain] - np.float32(value))
        clear = np.zeros_like(brain)
        clear[brain] = away > CLEAR * np.percentile(away, 99)
    core: Mask = (
        brain & ~_grown(~brain) & (uniform_filter(clear.astype(np.float32), CORE_SIDE, mode="nearest") > CORE_SHARE)
    )
    return core if np.count_nonzero(core) >= LEAST_SHARE * np.count_nonzero(brain) else brain


def _grown(mask: Mask) -> Mask:
    """The mask with every voxel that has a corner in common with it; C order."""
    grown = np.array(mask, order="C")
    for axis in range(mask.ndim):
        along, before = np.moveaxis(grown, axis, 0), np.moveaxis(grown.copy(), axis, 0)
        along[1:] |= before[:-1]
        along[:-1] |= before[1:]
    return grown


def _mixed(voxels: FloatVolume, rim: Mask, core: Values, value: float) -> Mask:
    """Where the rim is nearer to a background far from the core's range than to the core: interpolation mixed them."""
    nowhere = np.zeros(rim.shape, dtype=np.bool_)
    if not np.isfinite(value) or value == 0 or not rim.any():
        return nowhere
    low, high = (float(limit) for limit in np.percentile(core, (1, 99)))
    far = high - low
    if value < low - far:
        return rim & (voxels < (value + low) / 2)
    return rim & (voxels > (value + high) / 2) if value > high + far else nowhere


def _more_than_strays(wrong: NDArray[np.bool_]) -> bool:
    return bool(np.count_nonzero(wrong) > STRAY_SHARE * wrong.size)


def _name(value: float) -> str:
    return "NaN" if np.isnan(value) else f"{value:g}"
