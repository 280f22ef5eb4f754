"""The geometry of one metastasis: an irregular core, its necrosis and the oedema around it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.cohort.contrasts import Background
from training.cohort.fields import Volume, smooth_field, uniform
from training.cohort.settings import LesionSettings

# Soft edge of a lesion in voxels: partial volume of 1 mm voxels.
_EDGE = 1.1
# Voxels between a lesion's furthest part and its box.
_MARGIN = 3
# Fields on boxes never have control points nearer than this, voxels.
_FINEST_FIELD = 2.5
# Cover and tissue shares above this count as the part itself.
_HALF = 0.5
# Radii in voxels from which a lesion has an irregular surface, and from which it may have lobes.
_IRREGULAR_ABOVE = 2.5
_LOBED_ABOVE = 4.0
# Larger lesions fill sulci and may hold islands of necrosis, mm.
_FILLS_SULCI_ABOVE_MM = 12.0
_PATCHY_ABOVE_MM = 15.0
# Shares of ventricle or brain tissue beyond which a core, or a small core, does not spread.
_VENTRICLE_LIMIT = 0.3
_TISSUE_LIMIT = 0.3

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class LesionSite:
    """Where one lesion grows.

    Attributes:
        centre: voxel.
        radius: of the core, voxels.
        lesion_scale: voxels per mm that lengths in the settings are multiplied by.
    """

    centre: tuple[int, int, int]
    radius: float
    lesion_scale: float

    @property
    def diameter_mm(self) -> float:
        """Diameter in the settings' millimetres."""
        return 2 * self.radius / self.lesion_scale


@dataclass(frozen=True, slots=True)
class LesionShape:
    """One lesion's parts on a box of the background.

    Attributes:
        box: where the arrays lie.
        relative: distance from the centre, below 1 inside the core.
        core: cover of the core (ET and NETC), 0..1.
        netc: cover of what does not enhance, 0..1, never more than `core`.
        oedema: cover of the oedema, 0..1.
        inside: voxels labelled as core; one component with the centre.
        swollen: voxels labelled as oedema; every component touches the core.
        solid: whether what does not enhance is tumour for certain, and no necrosis.
    """

    box: Box
    relative: Volume
    core: Volume
    netc: Volume
    oedema: Volume
    inside: NDArray[np.bool_]
    swollen: NDArray[np.bool_]
    solid: bool = False


def box_around(centre: tuple[int, int, int], reach: float, shape: tuple[int, ...]) -> Box:
    """The voxels within `reach` per axis, cut at the volume's edges."""
    x, y, z = (slice(max(0, int(c - reach)), min(n, int(c + reach) + 2)) for c, n in zip(centre, shape, strict=True))
    return x, y, z


def _measure_relative(site: LesionSite, box: Box, settings: LesionSettings, rng: np.random.Generator) -> Volume:
    """Relative distance from the lesion's centre: below 1 inside, an irregular ellipsoid or a few merged ones."""
    radius = site.radius
    size = (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
    axes = np.exp(0.15 * rng.standard_normal(3))
    axes /= np.cbrt(axes.prod())
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    lobes = int(rng.integers(1, 4)) if radius >= _LOBED_ABOVE else 1
    offset = rng.uniform(-0.5, 0.5, 3)
    relative = np.full(size, np.inf, dtype=np.float32)
    grid = [np.arange(s.start, s.stop, dtype=np.float32) - c for s, c in zip(box, site.centre, strict=True)]
    for lobe in range(lobes):
        shift = offset if lobe == 0 else offset + 0.55 * radius * rng.standard_normal(3) / np.sqrt(3)
        share = 1.0 if lobe == 0 else rng.uniform(0.5, 0.85)
        x, y, z = (g - np.float32(s) for g, s in zip(grid, shift, strict=True))
        squared = np.zeros(size, dtype=np.float32)
        for k in range(3):
            row = (q[k] / (axes[k] * radius * share)).astype(np.float32)
            along = row[0] * x[:, None, None] + row[1] * y[:, None] + row[2] * z
            squared += along * along
        np.minimum(relative, np.sqrt(squared), out=relative)
    amplitude = uniform(rng, settings.irregularity)
    if radius > _IRREGULAR_ABOVE:
        relative += np.float32(amplitude) * smooth_field(rng, size, max(0.9 * radius, _FINEST_FIELD))
        relative += np.float32(0.4 * amplitude) * smooth_field(rng, size, max(0.35 * radius, _FINEST_FIELD))
    return relative


def _logistic(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def _cover_necrosis(relative: Volume, site: LesionSite, settings: LesionSettings, rng: np.random.Generator) -> Volume:
    """Cover of the core that does not enhance (0..1): one cavity under a rim, or islands; nothing when small."""
    radius = site.radius
    if rng.random() > _logistic((site.diameter_mm - settings.necrosis_midpoint_mm) / settings.necrosis_slope_mm):
        return np.zeros_like(relative)
    rim = uniform(rng, settings.rim_mm) * site.lesion_scale
    uneven = np.exp(0.45 * smooth_field(rng, relative.shape, max(0.8 * radius, _FINEST_FIELD)))
    if rng.random() < settings.open_rim_probability:
        uneven *= np.clip(1 + smooth_field(rng, relative.shape, max(0.9 * radius, _FINEST_FIELD)), 0, 1)
    inner = (1 - relative) * radius - rim * uneven
    if site.diameter_mm > _PATCHY_ABOVE_MM and rng.random() < settings.patchy_probability:
        islands = smooth_field(rng, relative.shape, max(0.6 * radius, _FINEST_FIELD)) - rng.uniform(-0.6, 0.8)
        inner = np.minimum(inner + 0.5 * rim, islands * 0.4 * radius)
        inner = np.minimum(inner, (1 - relative) * radius - 0.5)
    return np.clip(inner / _EDGE + 0.5, 0, 1).astype(np.float32)


def _draw_oedema_extent(site: LesionSite, settings: LesionSettings, rng: np.random.Generator) -> float:
    """How far oedema reaches beyond the core in white matter, voxels; 0 without oedema."""
    likely = _logistic((site.diameter_mm - settings.oedema_midpoint_mm) / settings.oedema_slope_mm)
    median, log_std = settings.oedema_extent
    extent = median * np.exp(log_std * rng.standard_normal()) * (site.radius + 3 * site.lesion_scale)
    if rng.random() > max(likely, settings.oedema_floor):
        return 0.0
    return float(min(extent, settings.oedema_extent_max_mm * site.lesion_scale))


def cover_oedema(distance: Volume, extent: float, background: Background, box: Box, rng: np.random.Generator) -> Volume:
    """Cover of oedema (0..1), which follows white matter in fingers and stops at cortex and CSF.

    Args:
        distance: from what swells, voxels.
        extent: how far oedema reaches in white matter, voxels; 0 for none.
        background: its tissue maps.
        box: where `distance` lies in it.
        rng: source of randomness.
    """
    if extent == 0:
        return np.zeros_like(distance)
    resistance = ndimage.uniform_filter(1 - background.wm[box], 3)
    distance = distance + np.float32(0.9 * extent) * resistance * resistance
    distance += np.float32(0.24 * extent) * smooth_field(rng, distance.shape, max(0.7 * extent, 3.0))
    cover = ndimage.uniform_filter(np.clip((extent - distance) / (2 + 0.15 * extent) + 0.5, 0, 1), 3)
    tissue = np.clip(1.6 * (background.gm[box] + background.wm[box]) - 0.4, 0, 1)
    tissue *= background.ventricles[box] < _HALF
    return (cover * tissue).astype(np.float32)


def _leave_specks(relative: Volume, site: LesionSite, settings: LesionSettings, rng: np.random.Generator) -> Volume:
    """Cover (0..1) of a tumour that does not enhance, but for specks."""
    coarse = max(0.5 * site.radius, _FINEST_FIELD)
    field = smooth_field(rng, relative.shape, coarse) + 0.5 * smooth_field(rng, relative.shape, _FINEST_FIELD)
    inside = field[relative < 1]
    share = uniform(rng, settings.speck_share)
    level = np.quantile(inside, 1 - share) if inside.size else np.inf
    return np.asarray(np.clip(2 * (level - field) + _HALF, 0, 1), dtype=np.float32)


def keep_attached(mask: NDArray[np.bool_], seed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The components of a mask that touch the seed (26 neighbours)."""
    components, count = ndimage.label(mask | seed, structure=np.ones((3, 3, 3)))
    if count <= 1:
        return mask
    keep = np.zeros(count + 1, dtype=bool)
    keep[np.unique(components[seed])] = True
    keep[0] = False
    return np.asarray(keep[components] & mask)


def draw_shape(
    background: Background, site: LesionSite, settings: LesionSettings, rng: np.random.Generator
) -> LesionShape:
    """Draws one lesion's geometry.

    Args:
        background: tissue maps that oedema follows and cores stop at.
        site: where and how large.
        settings: distributions.
        rng: source of randomness.
    """
    extent = _draw_oedema_extent(site, settings, rng)
    box = box_around(site.centre, 1.5 * site.radius + _MARGIN + 1.45 * extent, background.mask.shape)
    relative = _measure_relative(site, box, settings, rng)
    allowed = background.mask[box] & (background.ventricles[box] < _VENTRICLE_LIMIT)
    if site.diameter_mm < _FILLS_SULCI_ABOVE_MM:
        allowed &= background.gm[box] + background.wm[box] > _TISSUE_LIMIT
    core = np.clip((1 - relative) * site.radius / _EDGE + 0.5, 0, 1).astype(np.float32) * allowed
    seed = np.zeros(core.shape, dtype=bool)
    seed[tuple(c - s.start for c, s in zip(site.centre, box, strict=True))] = True
    inside = keep_attached((core >= _HALF) | seed, seed)
    core *= ndimage.binary_dilation(inside, structure=np.ones((3, 3, 3)))
    core[inside] = np.maximum(core[inside], _HALF)
    solid = bool(settings.nonenhancing_probability > 0 and rng.random() < settings.nonenhancing_probability)
    without = _leave_specks if solid else _cover_necrosis
    netc = without(relative, site, settings, rng) * core
    oedema = cover_oedema((relative - 1) * site.radius, extent, background, box, rng)
    swollen = np.zeros_like(inside)
    if extent > 0:
        # Opened, so that no fleck hangs on by a thread.
        swollen = ndimage.binary_opening((oedema >= _HALF) | inside) & ~inside
        swollen = keep_attached(swollen, inside)
        oedema = oedema * ndimage.binary_dilation(swollen | inside)
    return LesionShape(box, relative, core, netc=netc, oedema=oedema, inside=inside, swollen=swollen, solid=solid)
