"""Third stage: metastases in a background, which may be simulated or a real patient's images."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metseg.labels import ET, NETC, SNFH, LabelMap
from training.cohort.appearance import LesionLevels, draw_lesion_levels
from training.cohort.contrasts import Background
from training.cohort.fields import Volume, smooth_field, uniform
from training.cohort.settings import LesionSettings, Modality

# Soft edge of a lesion in voxels: partial volume of 1 mm voxels.
_EDGE = 1.1
# A core this near to the sampled limit of the box would be cut.
_MARGIN = 3


@dataclass(frozen=True, slots=True)
class Lesion:
    """One simulated metastasis as it was painted.

    Attributes:
        centre: voxel on the background's grid (on the whole grid once a case is complete).
        diameter_mm: drawn diameter of the core (ET and NETC), before irregularity.
        et_voxels: voxels labelled 3; 0 where another lesion covers this one.
        netc_voxels: voxels labelled 1.
        oedema_voxels: voxels labelled 2.
        contrast: t1c of ET minus white matter, in units of the scaled image.
        cnr: that contrast over the standard deviation of the t1c noise.
    """

    centre: tuple[int, int, int]
    diameter_mm: float
    et_voxels: int
    netc_voxels: int
    oedema_voxels: int
    contrast: float
    cnr: float


def draw_diameters(settings: LesionSettings, lesion_scale: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Number and sizes of one case's lesions, largest first, in mm."""
    if rng.random() < settings.none_probability:
        return np.zeros(0)
    drawn = settings.count_median * np.exp(settings.count_log_std * rng.standard_normal())
    count = int(np.clip(round(drawn), 1, settings.count_max))
    diameters = settings.diameter_median_mm * np.exp(settings.diameter_log_std * rng.standard_normal(count))
    if rng.random() < settings.dominant_probability:
        diameters[0] = settings.dominant_median_mm * np.exp(settings.dominant_log_std * rng.standard_normal())
    diameters = np.clip(diameters, *settings.diameter_range_mm)
    if rng.random() < settings.giant_probability:
        diameters[0] = uniform(rng, settings.giant_diameter_mm)
    return np.maximum(np.sort(diameters)[::-1] * lesion_scale, settings.diameter_range_mm[0])


@dataclass(frozen=True, slots=True)
class _Places:
    """Voxels where centres may lie: flat indices, weights, depth and part (0 hemispheres, 1 cerebellum, 2 stem)."""

    index: NDArray[np.intp]
    weight: NDArray[np.float32]
    depth: NDArray[np.float32]
    part: NDArray[np.uint8]
    shape: tuple[int, ...]


def _list_places(background: Background) -> _Places:
    """Where centres are likely: the grey-white junction first, never ventricles or the very surface."""
    weight = background.gm * background.wm + 0.03 * background.wm + 0.02 * background.gm
    allowed = background.free & (background.ventricles <= 0.05) & (background.depth >= 2)  # noqa: PLR2004
    index = np.flatnonzero(allowed & (weight > 0))
    flat = [a.reshape(-1)[index] for a in (weight, background.depth, background.fossa)]
    return _Places(index=index, weight=flat[0], depth=flat[1], part=flat[2], shape=weight.shape)


def _draw_centre(
    places: _Places, taken: NDArray[np.bool_], needed: float, settings: LesionSettings, rng: np.random.Generator
) -> tuple[int, int, int] | None:
    where = rng.random()
    part = 1 if where < settings.cerebellum_share else 2 if where > 1 - settings.brainstem_share else 0
    point = rng.random()
    possible = places.weight * ((places.depth >= needed) & ~taken.reshape(-1)[places.index])
    chosen = possible * (places.part == part)
    cumulative = np.cumsum(chosen if chosen.any() else possible, dtype=np.float64)
    if cumulative.size == 0 or cumulative[-1] <= 0:
        return None
    found = min(int(np.searchsorted(cumulative, point * cumulative[-1], side="right")), cumulative.size - 1)
    x, y, z = np.unravel_index(places.index[found], places.shape)
    return int(x), int(y), int(z)


def _box(centre: tuple[int, int, int], reach: float, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    low = [max(0, int(c - reach)) for c in centre]
    high = [min(n, int(c + reach) + 2) for c, n in zip(centre, shape, strict=True)]
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))  # type: ignore[return-value]


def _shape_function(
    centre: tuple[int, int, int],
    radius: float,
    box: tuple[slice, slice, slice],
    settings: LesionSettings,
    rng: np.random.Generator,
) -> Volume:
    """Relative distance from the lesion's centre: below 1 inside, an irregular ellipsoid or a few merged ones."""
    size = tuple(s.stop - s.start for s in box)
    axes = np.exp(0.15 * rng.standard_normal(3))
    axes /= np.cbrt(axes.prod())
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    lobes = 1 if radius < 4 else int(rng.integers(1, 4))  # noqa: PLR2004
    offset = rng.uniform(-0.5, 0.5, 3)
    relative = np.full(size, np.inf, dtype=np.float32)
    grid = [np.arange(s.start, s.stop, dtype=np.float32) - c for s, c in zip(box, centre, strict=True)]
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
    if radius > 2.5:  # noqa: PLR2004
        relative += np.float32(amplitude) * smooth_field(rng, size, max(0.9 * radius, 2.5))
        relative += np.float32(0.4 * amplitude) * smooth_field(rng, size, max(0.35 * radius, 2.5))
    return relative


def _logistic(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def _necrosis(
    relative: Volume, radius: float, settings: LesionSettings, lesion_scale: float, rng: np.random.Generator
) -> Volume:
    """Coverage of the core that does not enhance (0..1): one cavity under a rim, or islands; nothing when small."""
    diameter = 2 * radius / lesion_scale
    if rng.random() > _logistic((diameter - settings.necrosis_midpoint_mm) / settings.necrosis_slope_mm):
        return np.zeros_like(relative)
    rim = uniform(rng, settings.rim_mm) * lesion_scale
    uneven = np.exp(0.45 * smooth_field(rng, relative.shape, max(0.8 * radius, 2.5)))
    if rng.random() < settings.open_rim_probability:
        uneven *= np.clip(1 + smooth_field(rng, relative.shape, max(0.9 * radius, 2.5)), 0, 1)
    inner = (1 - relative) * radius - rim * uneven
    if diameter > 15 and rng.random() < settings.patchy_probability:  # noqa: PLR2004
        islands = smooth_field(rng, relative.shape, max(0.6 * radius, 2.5)) - rng.uniform(-0.6, 0.8)
        inner = np.minimum(inner + 0.5 * rim, islands * 0.4 * radius)
        inner = np.minimum(inner, (1 - relative) * radius - 0.5)
    return np.clip(inner / _EDGE + 0.5, 0, 1).astype(np.float32)


def _oedema(
    relative: Volume,
    radius: float,
    background: Background,
    box: tuple[slice, slice, slice],
    settings: LesionSettings,
    lesion_scale: float,
    rng: np.random.Generator,
) -> Volume:
    """Coverage of oedema (0..1), which follows white matter in fingers and stops at cortex and CSF."""
    diameter = 2 * radius / lesion_scale
    likely = _logistic((diameter - settings.oedema_midpoint_mm) / settings.oedema_slope_mm)
    if rng.random() > max(likely, settings.oedema_floor):
        return np.zeros_like(relative)
    extent = _oedema_extent(radius, settings, lesion_scale, rng)
    distance = (relative - 1) * radius
    resistance = ndimage.uniform_filter(1 - background.wm[box], 3)
    distance += np.float32(0.9 * extent) * resistance * resistance
    distance += np.float32(0.24 * extent) * smooth_field(rng, relative.shape, max(0.7 * extent, 3.0))
    cover = ndimage.uniform_filter(np.clip((extent - distance) / (2 + 0.15 * extent) + 0.5, 0, 1), 3)
    tissue = np.clip(1.6 * (background.gm[box] + background.wm[box]) - 0.4, 0, 1) * (background.ventricles[box] < 0.5)  # noqa: PLR2004
    return (cover * tissue).astype(np.float32)


def _oedema_extent(radius: float, settings: LesionSettings, lesion_scale: float, rng: np.random.Generator) -> float:
    median, log_std = settings.oedema_extent
    extent = median * np.exp(log_std * rng.standard_normal()) * (radius + 3 * lesion_scale)
    return float(min(extent, settings.oedema_extent_max_mm * lesion_scale))


def _attached(mask: NDArray[np.bool_], seed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The components of a mask that touch the seed (26 neighbours)."""
    components, count = ndimage.label(mask | seed, structure=np.ones((3, 3, 3)))
    if count <= 1:
        return mask
    keep = np.zeros(count + 1, dtype=bool)
    keep[np.unique(components[seed])] = True
    keep[0] = False
    return np.asarray(keep[components] & mask)


def _push_tissue(images: dict[Modality, Volume], relative: Volume, push: float, box: tuple[slice, ...]) -> None:
    """Mass effect, in place: tissue at the lesion's place moves outwards, fading at three radii."""
    gradient = np.stack(np.gradient(relative))
    gradient /= np.linalg.norm(gradient, axis=0) + 1e-3
    amount = push * np.exp(-0.5 * (relative / 1.2) ** 2).astype(np.float32)
    fade = np.ones(relative.shape, dtype=np.float32)
    for axis, n in enumerate(relative.shape):
        edge = np.minimum(np.arange(n), np.arange(n)[::-1]) / 4
        fade *= np.minimum(edge, 1).reshape([-1 if k == axis else 1 for k in range(3)]).astype(np.float32)
    grid = np.indices(relative.shape, dtype=np.float32)
    grid -= gradient * amount * fade
    for image in images.values():
        image[box] = ndimage.map_coordinates(image[box], grid, order=1, mode="nearest")


def _blend(
    images: dict[Modality, Volume],
    box: tuple[slice, ...],
    cover: dict[str, Volume],
    levels: LesionLevels,
    unevenness: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Paints oedema, enhancing tumour and necrosis over the images, in place."""
    shape = next(iter(cover.values())).shape
    fine, coarse = smooth_field(rng, shape, 3.0), smooth_field(rng, shape, 9.0)
    for modality, image in images.items():
        own = levels.of[modality]
        patch = image[box]
        # Oedema and tumour vary most on T2 contrasts.
        uneven = uniform(rng, unevenness) * (1.0 if modality in ("t2w", "t2f") else 0.5)
        for part, level, roughness in (
            ("oedema", own.snfh, 0.06),
            ("et", own.et, 0.10),
            ("netc", own.netc, 0.06),
        ):
            target = level * np.maximum(1 + np.float32(roughness) * fine + np.float32(uneven) * coarse, 0.3)
            patch = patch + (target - patch) * cover[part]
        image[box] = patch


def place_lesions(
    background: Background, settings: LesionSettings, rng: np.random.Generator, *, lesion_scale: float = 1.0
) -> tuple[dict[Modality, Volume], LabelMap, tuple[Lesion, ...]]:
    """Draws metastases and paints them into a background.

    Args:
        background: images and tissue maps; not changed.
        settings: distributions.
        rng: source of randomness.
        lesion_scale: factor on all sizes, for small grids.

    Returns:
        New images, the label map (labels 0..3) and what was placed; a lesion that finds no place is left out.
    """
    images = {m: image.copy() for m, image in background.images.items()}
    labels = np.zeros(background.mask.shape, dtype=np.uint8)
    lesions: list[Lesion] = []
    places = _list_places(background)
    taken = np.zeros(labels.shape, dtype=bool)
    for diameter in draw_diameters(settings, lesion_scale, rng):
        radius = float(diameter) / 2
        centre = _draw_centre(places, taken, min(0.7 * radius, 14 * lesion_scale), settings, rng)
        if centre is None:
            continue
        lesion = _paint_one(images, labels, background, centre, radius, settings, lesion_scale, rng)
        # Cores keep two voxels apart from the next, which is smaller.
        taken[_box(centre, 2 * radius + 2, labels.shape)] = True
        if lesion is not None:
            lesions.append(lesion)
    return images, labels, tuple(lesions)


def _paint_one(
    images: dict[Modality, Volume],
    labels: LabelMap,
    background: Background,
    centre: tuple[int, int, int],
    radius: float,
    settings: LesionSettings,
    lesion_scale: float,
    rng: np.random.Generator,
) -> Lesion | None:
    """Paints one lesion into images and labels, in place; None when nothing of it remains."""
    reach = 1.5 * radius + _MARGIN + min(2.5 * (radius + 3), settings.oedema_extent_max_mm * lesion_scale)
    box = _box(centre, reach, labels.shape)
    relative = _shape_function(centre, radius, box, settings, rng)
    allowed = background.mask[box] & (background.ventricles[box] < 0.3)  # noqa: PLR2004
    if radius < 6 * lesion_scale:  # a small lesion does not fill a sulcus
        allowed &= background.gm[box] + background.wm[box] > 0.3  # noqa: PLR2004
    core = np.clip((1 - relative) * radius / _EDGE + 0.5, 0, 1).astype(np.float32) * allowed
    seed = np.zeros(core.shape, dtype=bool)
    seed[tuple(c - s.start for c, s in zip(centre, box, strict=True))] = True
    inside = (core >= 0.5) | seed  # noqa: PLR2004
    inside = _attached(inside, seed)
    core *= ndimage.binary_dilation(inside, structure=np.ones((3, 3, 3)))
    core[inside] = np.maximum(core[inside], 0.5)
    netc = _necrosis(relative, radius, settings, lesion_scale, rng) * core
    oedema = _oedema(relative, radius, background, box, settings, lesion_scale, rng)
    # Opened, so that no fleck hangs on by a thread.
    swollen = ndimage.binary_opening((oedema >= 0.5) | inside) & ~inside  # noqa: PLR2004
    swollen = _attached(swollen, inside)
    oedema = oedema * ndimage.binary_dilation(swollen | inside)
    levels = draw_lesion_levels(background, settings, 2 * radius / lesion_scale, rng)
    push = uniform(rng, settings.mass_effect) * radius
    if radius > 6 * lesion_scale:
        _push_tissue(images, relative, push, box)
    _blend(images, box, {"oedema": oedema, "et": core, "netc": netc}, levels, settings.unevenness, rng)
    own = labels[box]
    own[swollen & (own == 0)] = SNFH
    own[inside] = ET
    own[inside & (netc >= 0.5)] = NETC  # noqa: PLR2004
    return Lesion(
        centre=centre,
        diameter_mm=2 * radius,
        et_voxels=int((own[inside] == ET).sum()),
        netc_voxels=int((own[inside] == NETC).sum()),
        oedema_voxels=int((swollen & ~inside).sum()),
        contrast=levels.contrast,
        cnr=levels.cnr,
    )


def move_lesion(lesion: Lesion, offset: tuple[int, int, int]) -> Lesion:
    """The same lesion on a grid whose origin lies `offset` voxels before the background's."""
    x, y, z = (c + o for c, o in zip(lesion.centre, offset, strict=True))
    return replace(lesion, centre=(x, y, z))
