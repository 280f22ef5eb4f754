"""What looks like a metastasis and is none: vessels, meninges, sinuses, choroid plexus, hyperintensities of age."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.cohort.anatomy import Anatomy
from training.cohort.contrasts import TissueLevels
from training.cohort.fields import Volume, smooth_field, uniform
from training.cohort.settings import DistractorSettings, Modality


@dataclass(frozen=True, slots=True)
class _Walk:
    """A family of vessels: random walkers that leave a trace."""

    count: int
    steps: int
    radius: tuple[float, float]
    wiggle: float
    inward: float


def _start_points(weight: Volume, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws voxels in proportion to a weight; shape (count, 3)."""
    flat = np.flatnonzero(weight > 0)
    if flat.size == 0 or count == 0:
        return np.zeros((0, 3))
    cumulative = np.cumsum(weight.reshape(-1)[flat], dtype=np.float64)
    chosen = flat[np.searchsorted(cumulative, rng.random(count) * cumulative[-1])]
    return np.stack(np.unravel_index(chosen, weight.shape), axis=1).astype(float)


def _trace(canvas: Volume, starts: np.ndarray, walk: _Walk, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Lets vessels grow from their starts and adds their coverage to the canvas, in place."""
    count = len(starts)
    if count == 0:
        return
    shape = np.array(canvas.shape)
    position = starts + rng.uniform(-0.5, 0.5, starts.shape)
    direction = rng.standard_normal((count, 3))
    centre = shape / 2
    radius = rng.uniform(*walk.radius, count) * max(anatomy.scale, 0.6)
    life = rng.integers(walk.steps // 4, walk.steps + 1, count)
    level = rng.uniform(0.5, 1.0, count)
    for step in range(walk.steps):
        alive = step < life
        if not alive.any():
            break
        towards = centre - position
        towards /= np.linalg.norm(towards, axis=1, keepdims=True) + 1e-6
        direction += walk.wiggle * rng.standard_normal((count, 3)) + walk.inward * towards
        direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6
        position = position + 0.7 * direction
        # Several random dots inside the lumen per step fill a tube of the wanted thickness.
        for _ in range(max(1, round(4 * walk.radius[1] ** 2))):
            dot = position + rng.standard_normal((count, 3)) * (0.5 * radius)[:, None]
            voxel = np.rint(dot).astype(int)
            inside = alive & (voxel >= 0).all(axis=1) & (voxel < shape).all(axis=1)
            x, y, z = voxel[inside].T
            np.maximum.at(canvas, (x, y, z), level[inside].astype(np.float32))


def _sinus(anatomy: Anatomy, rng: np.random.Generator) -> Volume:
    """Superior sagittal, straight and transverse sinuses: tubes on the mid-sagittal plane and the tentorium's edge."""
    near = anatomy.depth < max(5 * anatomy.scale, 2)
    wide = uniform(rng, (1.5, 3.5))
    sagittal = (np.abs(anatomy.midline) < wide) & near & ((anatomy.height > 20) | (anatomy.front < -60))  # noqa: PLR2004
    sagittal &= anatomy.height > -15  # noqa: PLR2004
    level = -18 + 4 * float(rng.standard_normal())
    transverse = (np.abs(anatomy.height - level) < wide) & near & (anatomy.front < -45)  # noqa: PLR2004
    straight = (
        (np.abs(anatomy.midline) < 0.7 * wide)
        & (np.abs(anatomy.height - (0.75 * (anatomy.front + 45) + 8)) < wide)
        & (anatomy.front < -38)  # noqa: PLR2004
        & (anatomy.front > -85)  # noqa: PLR2004
    )
    return (sagittal | transverse | straight).astype(np.float32) * anatomy.mask


def enhancing_structures(anatomy: Anatomy, settings: DistractorSettings, rng: np.random.Generator) -> Volume:
    """Coverage (0..about 1) of everything healthy that takes up contrast agent or carries it."""
    scale = anatomy.scale
    number = scale**2
    canvas = np.zeros(anatomy.mask.shape, dtype=np.float32)
    surface = np.exp(-anatomy.depth / (6 * scale)) * anatomy.mask
    families = (
        # sulcal veins and arteries, veins through white matter, arteries at the base
        (anatomy.csf * surface, settings.cortical_vessels, _Walk(0, 45, (0.3, 1.0), 0.45, 0.0)),
        (anatomy.wm, settings.medullary_vessels, _Walk(0, 30, (0.2, 0.4), 0.15, 0.0)),
        (
            anatomy.mask
            * (0.1 + anatomy.csf)
            * np.exp(-((anatomy.midline / 22) ** 2))
            * np.exp(-(((anatomy.front - 2) / 18) ** 2) - ((anatomy.height + 16) / 9) ** 2),
            settings.basal_vessels,
            _Walk(0, 90, (0.8, 1.6), 0.25, -0.03),
        ),
    )
    for weight, (low, high), walk in families:
        count = round(rng.integers(low, high + 1) * number)
        _trace(canvas, _start_points(weight.astype(np.float32), count, rng), walk, anatomy, rng)
    canvas *= 1 - 0.7 * anatomy.wm * (canvas < 1)
    if rng.random() < settings.sinus_probability:
        np.maximum(canvas, _sinus(anatomy, rng) * uniform(rng, (0.7, 1.0)), out=canvas)
    if rng.random() < settings.falx_probability:
        patches = smooth_field(rng, canvas.shape, 15 * scale) > uniform(rng, (-0.5, 1.0))
        falx = (np.abs(anatomy.midline) < 0.6) & (anatomy.height > 15) & patches  # noqa: PLR2004
        np.maximum(canvas, falx * anatomy.csf * uniform(rng, (0.2, 0.7)), out=canvas)
    # Dura: the outermost voxel, in patches.
    inner = ndimage.uniform_filter(anatomy.mask.astype(np.float32), 3) > 0.9  # noqa: PLR2004
    share = uniform(rng, settings.dura_share)
    patches = np.clip(smooth_field(rng, canvas.shape, 12 * scale) - _normal_quantile(1 - share) + 0.3, 0, 1)
    np.maximum(canvas, (anatomy.mask & ~inner) * patches * uniform(rng, (0.3, 1.0)), out=canvas)
    if rng.random() < settings.choroid_probability:
        # Fronds, not a filled ventricle: fine structure, most of it in the atria.
        clumps = smooth_field(rng, canvas.shape, 3 * scale) + np.exp(-(((anatomy.front + 30) / 14) ** 2))
        plexus = anatomy.ventricles * np.clip(2 * (clumps - uniform(rng, (1.7, 2.5))), 0, 1)
        np.maximum(canvas, plexus * uniform(rng, (0.25, 0.75)), out=canvas)
    return ndimage.gaussian_filter(canvas, 0.45, truncate=2.5) * 1.25 * anatomy.mask


def _normal_quantile(share: float) -> float:
    """The standard normal quantile, by Abramowitz and Stegun 26.2.22 (error below 0.003)."""
    tail = min(share, 1 - share)
    t = np.sqrt(-2 * np.log(max(tail, 1e-6)))
    value = t - (2.30753 + 0.27061 * t) / (1 + 0.99229 * t + 0.04481 * t * t)
    return float(value if share > 0.5 else -value)  # noqa: PLR2004


def hyperintensities(anatomy: Anatomy, settings: DistractorSettings, rng: np.random.Generator) -> Volume:
    """White-matter hyperintensities of age: periventricular rims and caps, punctate foci; 0..1."""
    scale, shape = anatomy.scale, anatomy.mask.shape
    grade = uniform(rng, settings.hyperintensity_grade) ** 2
    near = ndimage.gaussian_filter(anatomy.ventricles, 2.5 * scale, truncate=3)
    patches = smooth_field(rng, shape, 10 * scale)
    rim = np.clip(near * (0.8 + 0.5 * patches) * (0.5 + 2.5 * grade), 0, 1)
    foci = np.clip(1.5 * (smooth_field(rng, shape, 5 * scale) - (3.2 - 1.6 * grade)), 0, 1)
    return np.maximum(rim * (0.3 + grade), foci) * anatomy.wm


def add_distractors(
    images: dict[Modality, Volume],
    levels: dict[Modality, TissueLevels],
    anatomy: Anatomy,
    settings: DistractorSettings,
    rng: np.random.Generator,
) -> dict[Modality, Volume]:
    """Paints the distractors into the healthy images."""
    lumen = enhancing_structures(anatomy, settings, rng)
    spots = hyperintensities(anatomy, settings, rng)
    t1c, t1n, t2w, t2f = (levels[m] for m in ("t1c", "t1n", "t2w", "t2f"))
    brightness = max(uniform(rng, settings.vessel_level), 1.1 * t1c.wm)
    uneven = np.clip(1 + 0.25 * smooth_field(rng, lumen.shape, 25 * anatomy.scale), 0.4, 1.6)
    painted = dict(images)
    cover = np.minimum(lumen, 1)
    painted["t1c"] = images["t1c"] + (brightness * uneven - images["t1c"]).clip(min=0) * cover
    # Flowing blood: dark or slightly bright on T1, dark on T2.
    painted["t1n"] = images["t1n"] + (t1n.gm * uniform(rng, (0.5, 1.15)) - images["t1n"]) * cover * 0.6
    painted["t2w"] = images["t2w"] * (1 - uniform(rng, (0.2, 0.8)) * cover)
    painted["t2f"] = images["t2f"] * (1 - uniform(rng, (-0.1, 0.4)) * cover)
    gain = uniform(rng, (0.3, 1.0))
    painted["t2f"] = painted["t2f"] + gain * t2f.wm * 0.8 * spots
    painted["t2w"] = painted["t2w"] + gain * 0.35 * (t2w.csf - t2w.wm) * spots
    painted["t1n"] = painted["t1n"] - gain * 0.3 * (t1n.wm - t1n.csf) * spots
    painted["t1c"] = painted["t1c"] - gain * 0.3 * (t1c.wm - t1c.csf) * spots
    return painted
