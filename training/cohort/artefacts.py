"""Fourth stage: what the scanner and the preprocessing do to the images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.cohort.fields import Volume, apply_along, linear_matrix, smooth_field, uniform
from training.cohort.settings import MODALITIES, ArtefactSettings, Modality

# Interpolation between thick slices leaves little noise of its own between neighbouring voxels.
_FINE_NOISE_OF_THICK_SLICES = np.float32(0.35)


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How one modality was acquired.

    Attributes:
        noise_std: of the final image, units of the scaled image.
        noise_smoothness: std of the noise's blur, voxels.
        blur: std of the image's blur, voxels.
        thick_axis: axis of thick slices, None without.
        thickness: of those slices, voxels.
        bias_std: of the log bias field.
        shift: misregistration, voxels.
        ghost_level: 0 without motion.
    """

    noise_std: float
    noise_smoothness: float
    blur: float
    thick_axis: int | None
    thickness: float
    bias_std: float
    shift: tuple[float, float, float]
    ghost_level: float


def draw_acquisitions(
    settings: ArtefactSettings, scale: float, rng: np.random.Generator
) -> dict[Modality, Acquisition]:
    """Draws how each modality is acquired: before the lesions, whose contrast depends on the noise."""
    drawn: dict[Modality, Acquisition] = {}
    for modality in MODALITIES:
        thick = rng.random() < settings.thick_probability[modality]
        # Axial slices are the rule, sagittal and coronal ones occur in every modality.
        axis = int(rng.choice([2, 1, 0], p=[0.6, 0.25, 0.15]))
        x, y, z = settings.misregistration_mm_std * scale * rng.standard_normal(3)
        low, high = np.log(settings.noise_std)
        drawn[modality] = Acquisition(
            noise_std=float(np.exp(rng.uniform(low, high))),
            noise_smoothness=uniform(rng, settings.noise_smoothness_mm),
            blur=uniform(rng, settings.blur_mm) * max(scale, 0.6),
            thick_axis=axis if thick else None,
            thickness=uniform(rng, settings.thickness_mm) * max(scale, 0.5),
            bias_std=uniform(rng, settings.bias_std),
            shift=(float(x), float(y), float(z)),
            ghost_level=uniform(rng, settings.ghost_level) if rng.random() < settings.ghost_probability else 0.0,
        )
    return drawn


def _small_kernel(std: float) -> NDArray[np.float64]:
    reach = np.arange(-2, 3)
    kernel = np.exp(-0.5 * (reach / std) ** 2)
    return np.asarray(kernel / kernel.sum())


def _blur(volume: Volume, std: float, shift: tuple[float, float, float] = (0, 0, 0)) -> Volume:
    """A five-tap Gaussian per axis, off-centre by `shift` voxels (clipped to one voxel)."""
    for axis in range(3):
        offset = float(np.clip(shift[axis], -1, 1))
        kernel = np.exp(-0.5 * ((np.arange(-2, 3) - offset) / std) ** 2)
        volume = ndimage.correlate1d(volume, kernel / kernel.sum(), axis=axis, mode="nearest")
    return volume


def _thick_slices(volume: Volume, acquisition: Acquisition, axis: int, rng: np.random.Generator) -> Volume:
    """Averages along one axis into thick slices with noise of their own, and interpolates back."""
    n = volume.shape[axis]
    slices = max(2, round(n / acquisition.thickness))
    edges = np.linspace(0, n, slices + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, n + 1)) - np.maximum(edges[:-1, None], np.arange(n))
    average = np.clip(overlap, 0, 1)
    average = (average / average.sum(axis=1, keepdims=True)).astype(np.float32)
    thick = apply_along(volume, average, axis)
    thick += _noise(thick.shape, acquisition, rng, skip_axis=axis)
    return apply_along(thick, linear_matrix(n, slices), axis)


def acquire(
    image: Volume,
    mask: NDArray[np.bool_],
    acquisition: Acquisition,
    *,
    bias_spacing: float,
    rng: np.random.Generator,
) -> Volume:
    """Turns an ideal image into an acquired one: bias, blur, thick slices, noise, ghosts; 0 outside the mask.

    Args:
        image: about 0..1.
        mask: where the image is kept.
        acquisition: how it is acquired.
        bias_spacing: extent of the bias field's waves, voxels.
        rng: source of randomness.
    """
    shape = image.shape
    bias = np.exp(acquisition.bias_std * smooth_field(rng, shape, bias_spacing))
    image = _blur(image * bias, acquisition.blur, acquisition.shift)
    if acquisition.ghost_level > 0:
        axis, period = int(rng.integers(0, 2)), int(rng.integers(8, 40))
        image = image + acquisition.ghost_level * (np.roll(image, period, axis) - np.roll(image, -period, axis))
    noise = _noise(shape, acquisition, rng)
    if acquisition.thick_axis is not None:
        image = _thick_slices(image, acquisition, acquisition.thick_axis, rng)
        noise *= _FINE_NOISE_OF_THICK_SLICES
    image = np.maximum(image + noise, 0.004)
    return np.asarray(image * mask, dtype=np.float32)


def stretch_tail(
    image: Volume, depth: Volume, settings: ArtefactSettings, modality: Modality, rng: np.random.Generator
) -> Volume:
    """Gives some images a long intensity tail: patches at the surface far brighter than the brain.

    Fat, coils and slow flow do that to real images; percentile scaling then leaves the brain dark.

    Args:
        image: as acquired, 0 outside the brain.
        depth: distance to the surface, voxels.
        settings: how often, how large, how bright.
        modality: of the image.
        rng: source of randomness, of this stage alone.
    """
    drawn, share, gain = rng.random(), uniform(rng, settings.tail_share), uniform(rng, settings.tail_gain)
    spacing, field_seed = rng.uniform(8, 30), int(rng.integers(2**32))
    if drawn >= settings.tail_probability.get(modality, 0):
        return image
    field = smooth_field(np.random.default_rng(field_seed), image.shape, spacing) - depth / 6
    inside = image > 0
    level = np.quantile(field[inside], 1 - share)
    brightest = np.quantile(image[inside], 0.99)
    lit = np.clip(2 * (field - level) + 0.5, 0, 1) * inside
    return np.asarray(image + lit * np.maximum(gain * brightest - image, 0), dtype=np.float32)


def _noise(
    shape: tuple[int, ...], acquisition: Acquisition, rng: np.random.Generator, *, skip_axis: int | None = None
) -> Volume:
    """Gaussian noise with the short correlation that resampling leaves, of the wanted final std."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    kernel = _small_kernel(acquisition.noise_smoothness)
    axes = [axis for axis in range(3) if axis != skip_axis]
    for axis in axes:
        noise = ndimage.correlate1d(noise, kernel, axis=axis, mode="wrap")
    return noise * np.float32(acquisition.noise_std / np.sum(kernel**2) ** (len(axes) / 2))


def quantise(image: Volume, maximum: float, *, as_float: bool) -> NDArray[Any]:
    """Arbitrary units: `maximum` for intensity 1, as int16, or as float32 with a 64th of a unit."""
    scaled = image * np.float32(maximum)
    return np.rint(scaled * 64) / np.float32(64) if as_float else np.rint(np.minimum(scaled, 32767)).astype(np.int16)
