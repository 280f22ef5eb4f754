"""Third stage: metastases in a background, which may be simulated or a real patient's images."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metseg.labels import ET, NETC, SNFH, LabelMap
from training.cohort.appearance import LesionLevels, draw_lesion_levels
from training.cohort.contrasts import Background
from training.cohort.fields import Volume, smooth_field, uniform
from training.cohort.settings import LesionSettings, Modality
from training.cohort.shapes import LesionShape, LesionSite, box_around, draw_shape

# Candidates drawn at once for a centre; with none of them free a lesion is left out.
_CANDIDATES: Final = 1024
# Centres keep out of ventricles and off the very surface.
_VENTRICLE_LIMIT: Final = 0.05
_SHALLOWEST: Final = 2
# Core cover of a voxel beyond which it is labelled; smaller lesions displace no tissue.
_HALF: Final = 0.5
_PUSHES_ABOVE_MM: Final = 12.0
# Roughness of each part: relative std of the fine mottle.
_MOTTLE: Final = {"oedema": 0.06, "et": 0.10, "netc": 0.06}


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
    """Number and sizes of one case's lesions, largest first, in voxels of 1 mm times the scale."""
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


class _Places:
    """Where centres are likely: the grey-white junction first, never ventricles or the very surface."""

    def __init__(self, background: Background) -> None:
        allowed = background.free & (background.ventricles <= _VENTRICLE_LIMIT) & (background.depth >= _SHALLOWEST)
        index = np.flatnonzero(allowed)
        gm, wm, fossa = (a.reshape(-1)[index] for a in (background.gm, background.wm, background.fossa))
        weight = gm * wm + 0.03 * wm + 0.02 * gm
        self._depth = background.depth.reshape(-1)
        self._shape = background.mask.shape
        self._taken = np.zeros(background.mask.size, dtype=bool)
        # Hemispheres, cerebellum, brain stem: voxels and running sums of their weights.
        self._parts = [(index[fossa == part], np.cumsum(weight[fossa == part], dtype=np.float64)) for part in range(3)]

    def draw(
        self, least_depth: float, settings: LesionSettings, rng: np.random.Generator
    ) -> tuple[int, int, int] | None:
        """One free voxel at least so deep; None when nothing is found."""
        where, points = rng.random(), rng.random(_CANDIDATES)
        part = 1 if where < settings.cerebellum_share else 2 if where > 1 - settings.brainstem_share else 0
        for index, running in (self._parts[part], self._parts[0]):
            if index.size == 0 or running[-1] <= 0:
                continue
            found = np.minimum(np.searchsorted(running, points * running[-1], side="right"), index.size - 1)
            voxels = index[found]
            good = np.flatnonzero((self._depth[voxels] >= least_depth) & ~self._taken[voxels])
            if good.size:
                x, y, z = np.unravel_index(voxels[good[0]], self._shape)
                return int(x), int(y), int(z)
        return None

    def take(self, centre: tuple[int, int, int], reach: float) -> None:
        """Keeps later centres away."""
        self._taken.reshape(self._shape)[box_around(centre, reach, self._shape)] = True


def _push_tissue(images: dict[Modality, Volume], shape: LesionShape, site: LesionSite, push: float) -> None:
    """Mass effect, in place: tissue at the lesion's place moves outwards, fading at three radii."""
    box = box_around(site.centre, 3.2 * site.radius + 4, next(iter(images.values())).shape)
    x, y, z = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, shape.box, strict=True))
    within = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip((x, y, z), shape.box, strict=True))
    relative = shape.relative[within]
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
        image[x, y, z] = ndimage.map_coordinates(image[x, y, z], grid, order=1, mode="nearest")


def _blend(
    images: dict[Modality, Volume],
    shape: LesionShape,
    levels: LesionLevels,
    settings: LesionSettings,
    rng: np.random.Generator,
) -> None:
    """Paints oedema, enhancing tumour and necrosis over the images, in place."""
    size = (shape.core.shape[0], shape.core.shape[1], shape.core.shape[2])
    fine, coarse = smooth_field(rng, size, 3.0), smooth_field(rng, size, 9.0)
    for modality, image in images.items():
        own = levels.of[modality]
        patch = image[shape.box]
        # Oedema and tumour vary most on T2 contrasts.
        uneven = uniform(rng, settings.unevenness) * (1.0 if modality in {"t2w", "t2f"} else 0.5)
        for part, level, cover in (
            ("oedema", own.snfh, shape.oedema),
            ("et", own.et, shape.core),
            ("netc", own.netc, shape.netc),
        ):
            strength = levels.texture if part == "et" and modality == "t1c" else 1.0
            mottle = np.float32(strength * _MOTTLE[part]) * fine + np.float32(strength * uneven) * coarse
            target = level * np.maximum(1 + mottle, 0.3)
            patch = patch + (target - patch) * cover
        image[shape.box] = patch


def _label(labels: LabelMap, shape: LesionShape) -> tuple[int, int, int]:
    """Writes one lesion's labels, in place; returns its voxels of ET, NETC and oedema."""
    own = labels[shape.box]
    own[shape.swollen & (own == 0)] = SNFH
    own[shape.inside] = ET
    own[shape.inside & (shape.netc >= _HALF)] = NETC
    core = own[shape.inside]
    return int((core == ET).sum()), int((core == NETC).sum()), int(shape.swollen.sum())


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
    places = _Places(background)
    for diameter in draw_diameters(settings, lesion_scale, rng):
        radius = float(diameter) / 2
        centre = places.draw(min(0.7 * radius, 14 * lesion_scale), settings, rng)
        if centre is None:
            continue
        # Cores keep two voxels apart from the next, which is smaller.
        places.take(centre, 2 * radius + 2)
        site = LesionSite(centre=centre, radius=radius, lesion_scale=lesion_scale)
        lesions.append(paint_lesion(images, labels, background, site, settings, rng=rng))
    return images, labels, tuple(lesions)


def paint_lesion(
    images: dict[Modality, Volume],
    labels: LabelMap,
    background: Background,
    site: LesionSite,
    settings: LesionSettings,
    *,
    rng: np.random.Generator,
) -> Lesion:
    """Draws one metastasis at a site and paints it, in place.

    Args:
        images: what is painted on.
        labels: on the same grid.
        background: its tissue maps and levels are read, not its images.
        site: where, and how large.
        settings: distributions.
        rng: source of randomness.
    """
    shape = draw_shape(background, site, settings, rng)
    levels = draw_lesion_levels(background, settings, site.diameter_mm, rng, solid=shape.solid)
    push = uniform(rng, settings.mass_effect) * site.radius
    if site.diameter_mm > _PUSHES_ABOVE_MM:
        _push_tissue(images, shape, site, push)
    _blend(images, shape, levels, settings, rng)
    et, netc, oedema = _label(labels, shape)
    return Lesion(
        centre=site.centre,
        diameter_mm=2 * site.radius,
        et_voxels=et,
        netc_voxels=netc,
        oedema_voxels=oedema,
        contrast=levels.contrast,
        cnr=levels.cnr,
    )
