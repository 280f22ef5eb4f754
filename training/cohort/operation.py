"""Operated brains: a resection cavity at the surface, its contents and its wall, and what the operation leaves around.

Labels follow the challenge (de Verdier et al. 2024, arXiv 2405.18368): RC is the cavity with its fluid or blood; thin
enhancement of its wall and of the dura is no ET; oedema and gliosis around it are SNFH; tumour that was left or has
grown again is labelled as any other.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metseg.labels import RC, SNFH, LabelMap
from training.cohort.appearance import draw_lesion_levels
from training.cohort.contrasts import Background, TissueLevels
from training.cohort.fields import Volume, smooth_field, uniform
from training.cohort.lesions import Lesion, paint_lesion
from training.cohort.operation_settings import OperationSettings
from training.cohort.settings import CohortSettings, LesionSettings, Modality
from training.cohort.shapes import Box, LesionSite, box_around, cover_oedema, keep_attached

# Shares of a voxel beyond which it is the thing itself.
_HALF: Final = 0.5
# Partial volume at the cavity's wall, voxels.
_EDGE: Final = 1.1
# Fields never have control points nearer than this, voxels.
_FINEST_FIELD: Final = 2.5
# Share of ventricle beyond which a cavity does not spread, and of tissue that its wall needs.
_VENTRICLE_LIMIT: Final = 0.3
_TISSUE_LIMIT: Final = 0.3
# Metastases keep their centres so many voxels off a cavity.
_KEEP_OUT: Final = 4
# How much slower the distance grows towards the surface: the surgeon's way in.
_OPENING: Final = 0.35
# Centres keep off the mid-sagittal plane by so many radii.
_OFF_MIDLINE: Final = 0.6
# t1c of dura and wall at most, as of metastases; the percentile that scales an image is 1.
_BRIGHTEST: Final = 1.25
_MM3_PER_ML: Final = 1000


@dataclass(frozen=True, slots=True)
class Operation:
    """One cavity as it was painted.

    Attributes:
        background: what metastases are placed into now: no tissue in the cavity, the brain's mask as it is now.
        cavity: where the cavity is; shape of the background.
        scarred: where oedema or gliosis is, likewise.
        residual: sites of tumour at the wall.
    """

    background: Background
    cavity: NDArray[np.bool_]
    scarred: NDArray[np.bool_]
    residual: tuple[LesionSite, ...]

    def finish(
        self,
        images: dict[Modality, Volume],
        labels: LabelMap,
        settings: LesionSettings,
        rng: np.random.Generator,
    ) -> tuple[Lesion, ...]:
        """Labels the cavity and what is around, and paints tumour at its wall, in place, once metastases are there.

        Args:
            images: of the case.
            labels: of the case; tumour keeps its label where it meets oedema.
            settings: of the tumour.
            rng: source of randomness.

        Returns:
            The tumours at the wall.
        """
        labels[self.scarred & (labels == 0)] = SNFH
        labels[self.cavity] = RC
        painting = (images, labels, self.background)
        return tuple(paint_lesion(*painting, site, settings, rng=rng) for site in self.residual)


@dataclass(frozen=True, slots=True)
class _Site:
    """Where a cavity is, on a box of the brain.

    Attributes:
        box: holds everything that the operation changes.
        centre: voxel of the whole grid.
        radius: of a ball of the cavity's volume, voxels.
        scale: voxels per millimetre.
        along: distance from the centre towards the middle of the brain, voxels; shape of the box.
        across: distance from that axis.
        shallow: distance to the brain's surface.
    """

    box: Box
    centre: tuple[int, int, int]
    radius: float
    scale: float
    along: Volume
    across: Volume
    shallow: Volume

    @property
    def size(self) -> tuple[int, int, int]:
        """Of the box."""
        x, y, z = self.along.shape
        return x, y, z


def operate(
    background: Background, off_midline: Volume, settings: CohortSettings, rng: np.random.Generator
) -> Operation | None:
    """Draws whether a brain was operated on, and paints the cavity.

    Args:
        background: the brain before any simulated metastasis; not changed. A cavity enters none of its ventricles.
        off_midline: distance from the mid-sagittal plane in voxels; broadcastable to the background's shape.
        settings: the cohort's distributions.
        rng: source of randomness, of this stage alone.

    Returns:
        None for a brain that was not, or where no cavity of the drawn size has room.
    """
    own = settings.operation
    if rng.random() >= own.probability:
        return None
    site = _draw_site(background, off_midline, own, settings.grid.lesion_scale, rng)
    if site is None:
        return None
    images = {modality: image.copy() for modality, image in background.images.items()}
    mask = background.mask.copy()
    before = replace(background, images=images, mask=mask)
    _sink(mask, site, own, rng)
    dura = uniform(rng, own.dura_mm) * site.scale if rng.random() < own.dura_probability else 0.0
    cover = _draw_cavity(before, site, own, rng, roof=dura)
    inside = cover >= _HALF
    distance = ndimage.distance_transform_edt(~inside).astype(np.float32)
    scarred = _paint_surroundings(before, site, settings, distance, rng)
    _paint_wall(before, site, own, distance, rng)
    _fill(before, site, own, cover, rng)
    if dura > 0:
        _paint_dura(before, site, own, dura, rng)
    if rng.random() < own.edge_probability:
        _leave_edge(before, site, own, rng)
    after, cavity = _without_tissue(before, site, cover, inside)
    marked = np.zeros(mask.shape, dtype=bool)
    marked[site.box] = scarred & ~inside
    return Operation(after, cavity, marked & mask, _draw_residual(after, site, own, distance, rng))


def _draw_site(
    background: Background, off_midline: Volume, own: OperationSettings, scale: float, rng: np.random.Generator
) -> _Site | None:
    """A place at the surface of a hemisphere or of the cerebellum, off the mid-sagittal plane."""
    low, high = np.log(own.volume_ml)
    voxels = float(np.exp(rng.uniform(low, high))) * _MM3_PER_ML * scale**3
    radius = float(np.cbrt(voxels * 3 / (4 * np.pi)))
    wanted = max(uniform(rng, own.depth) * radius, 1.0)
    part = 1 if rng.random() < own.cerebellum_share else 0
    near = np.abs(background.depth - wanted) < 2  # noqa: PLR2004 - the depth is known to about two voxels
    good = background.free & near & (off_midline > _OFF_MIDLINE * radius) & (background.ventricles < _VENTRICLE_LIMIT)
    chosen = good & (background.fossa == part)
    candidates = np.flatnonzero(chosen if chosen.any() else good & (background.fossa == 0))
    if candidates.size == 0:
        return None
    x, y, z = np.unravel_index(int(rng.choice(candidates)), background.mask.shape)
    centre = (int(x), int(y), int(z))
    reach = 1.45 * max(own.oedema_mm[1], own.gliosis_mm[1]) * scale + 3
    box = box_around(centre, 2.2 * radius + reach, background.mask.shape)
    mask = background.mask[box]
    inwards = _point_inwards(mask, tuple(c - s.start for c, s in zip(centre, box, strict=True)), radius)
    grid = [np.arange(s.start, s.stop, dtype=np.float32) - c for s, c in zip(box, centre, strict=True)]
    gx, gy, gz = grid[0][:, None, None], grid[1][:, None], grid[2]
    along = (inwards[0] * gx + inwards[1] * gy + inwards[2] * gz).astype(np.float32)
    squared = gx * gx + gy * gy + gz * gz - along * along
    across = np.sqrt(np.maximum(squared, 0)).astype(np.float32)
    shallow = ndimage.distance_transform_edt(mask).astype(np.float32)
    return _Site(box, centre, radius, scale, along, across, shallow)


def _point_inwards(mask: NDArray[np.bool_], centre: tuple[int, ...], radius: float) -> NDArray[np.float64]:
    """Unit vector from the surface to the middle of the brain, at a voxel near it."""
    around = box_around((centre[0], centre[1], centre[2]), radius + 6, mask.shape)
    places = np.argwhere(mask[around])
    outside = np.argwhere(~mask[around])
    if len(outside) == 0:
        return np.array([0.0, 0.0, -1.0])
    direction = places.mean(0) - outside.mean(0)
    return np.asarray(direction / (np.linalg.norm(direction) + 1e-6))


def _sink(mask: NDArray[np.bool_], site: _Site, own: OperationSettings, rng: np.random.Generator) -> None:
    """Lets the surface sink in over the cavity, in place."""
    depth = uniform(rng, own.sunken_mm) * site.scale
    taper = np.clip(1.4 - site.across / (1.2 * site.radius), 0, 1)
    near = site.along < 0
    mask[site.box] &= ~((site.shallow <= depth * taper) & near)


def _draw_cavity(
    brain: Background, site: _Site, own: OperationSettings, rng: np.random.Generator, *, roof: float
) -> Volume:
    """Cover of the cavity (0..1) on the site's box, one component, open to the surface but for a roof of dura."""
    radius, size = site.radius, site.size
    length = uniform(rng, own.elongation)
    along = np.where(site.along < 0, _OPENING, 1) * site.along / length
    relative = np.sqrt(along * along + site.across * site.across) / radius
    amplitude = np.float32(uniform(rng, own.irregularity))
    relative += amplitude * smooth_field(rng, size, max(0.9 * radius, _FINEST_FIELD))
    relative += np.float32(0.5) * amplitude * smooth_field(rng, size, max(0.35 * radius, _FINEST_FIELD))
    allowed = brain.mask[site.box] & (brain.ventricles[site.box] < _VENTRICLE_LIMIT) & (brain.fossa[site.box] < 2)  # noqa: PLR2004
    allowed &= site.shallow > roof
    wanted = min(round(4 / 3 * np.pi * radius**3), int(allowed.sum()) - 1)
    level = float(np.partition(relative[allowed], wanted)[wanted])
    cover = np.clip((level - relative) * radius / _EDGE + _HALF, 0, 1).astype(np.float32) * allowed
    components, count = ndimage.label(cover >= _HALF)
    if count > 1:
        largest = 1 + int(np.argmax(np.bincount(components.ravel())[1:]))
        cover *= ndimage.binary_dilation(components == largest)
        cover[(components > 0) & (components != largest)] = 0
    return cover


def _paint_surroundings(
    brain: Background, site: _Site, settings: CohortSettings, distance: Volume, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Paints oedema or gliosis around the cavity, in place; returns where it is."""
    own = settings.operation
    swells = rng.random() < own.oedema_probability
    extent = uniform(rng, own.oedema_mm if swells else own.gliosis_mm) * site.scale
    cover = cover_oedema(distance, extent, brain, site.box, rng)
    near = ndimage.binary_dilation(distance == 0)
    scarred = keep_attached(ndimage.binary_opening((cover >= _HALF) | near) & (cover >= _HALF), near)
    cover *= ndimage.binary_dilation(scarred | near)
    levels = draw_lesion_levels(brain, settings.lesions, 2 * site.radius / site.scale, rng)
    mottle = 1 + np.float32(uniform(rng, settings.lesions.unevenness)) * smooth_field(rng, site.size, 9.0)
    for modality, image in brain.images.items():
        image[site.box] += (levels.of[modality].snfh * mottle - image[site.box]) * cover
    return scarred


def _paint_wall(
    brain: Background, site: _Site, own: OperationSettings, distance: Volume, rng: np.random.Generator
) -> None:
    """Paints thin enhancement and old blood along the wall, in place."""
    tissue = np.clip(2 * (brain.gm[site.box] + brain.wm[site.box]) - _TISSUE_LIMIT, 0, 1) * brain.mask[site.box]
    uneven = np.clip(1 + 0.7 * smooth_field(rng, site.size, max(0.8 * site.radius, _FINEST_FIELD)), 0, 2)
    thickness, level = uniform(rng, own.rim_mm) * site.scale, uniform(rng, own.rim_enhancement)
    if rng.random() < own.rim_probability:
        cover = np.clip(thickness * uneven - distance + 1, 0, 1) * tissue
        image = brain.images["t1c"]
        level = min(level * brain.levels["t1c"].wm, _BRIGHTEST)
        image[site.box] += (level - image[site.box]).clip(min=0) * cover
    if rng.random() < own.haemosiderin_probability:
        cover = np.clip(1.5 * site.scale * uneven - distance + 1, 0, 1) * tissue
        for modality in ("t2w", "t2f"):
            brain.images[modality][site.box] *= 1 - rng.uniform(0.2, 0.7) * cover


def _fill(brain: Background, site: _Site, own: OperationSettings, cover: Volume, rng: np.random.Generator) -> None:
    """Fills the cavity with fluid, some of it blood, in place."""
    suppressed, protein = rng.random() < own.suppressed_probability, uniform(rng, own.protein_t2f)
    leak, watery = rng.uniform(0, 0.15), rng.uniform(0.9, 1.1)
    blood = _draw_blood(site, own, cover, rng)
    blood_t1, blood_t2w, blood_t2f = uniform(rng, own.blood_t1), rng.uniform(0.2, 0.9), rng.uniform(0.6, 1.6)
    mottle = 1 + np.float32(0.04) * smooth_field(rng, site.size, max(0.5 * site.radius, _FINEST_FIELD))
    for modality, image in brain.images.items():
        levels = brain.levels[modality]
        bright = max(levels.gm, levels.wm)
        fluid, clot = {
            "t1n": (levels.csf, blood_t1 * levels.wm),
            "t1c": (levels.csf + leak * (levels.gm - levels.csf), blood_t1 * levels.wm),
            "t2w": (levels.csf * watery, blood_t2w * levels.csf),
            "t2f": (levels.csf if suppressed else protein * bright, blood_t2f * bright),
        }[modality]
        inside = (fluid + (clot - fluid) * blood) * mottle
        image[site.box] += (inside - image[site.box]) * cover


def _draw_blood(site: _Site, own: OperationSettings, cover: Volume, rng: np.random.Generator) -> Volume:
    """Share of blood (0..1) in each voxel of the cavity: none, clots, or what has settled at the back of it."""
    bleeds, settles = rng.random() < own.blood_probability, rng.random() < own.level_probability
    share = uniform(rng, own.blood_share)
    clots = smooth_field(rng, site.size, max(0.6 * site.radius, _FINEST_FIELD))
    if not bleeds:
        return np.zeros_like(cover)
    if settles:  # patients lie on their backs; y runs from back to front
        clots = np.broadcast_to(-np.arange(site.size[1], dtype=np.float32)[:, None], site.size)
    level = np.quantile(clots[cover >= _HALF], 1 - share) if share < 1 else clots.min() - 1
    return np.clip(2 * (clots - level) + _HALF, 0, 1).astype(np.float32)


def _paint_dura(
    brain: Background, site: _Site, own: OperationSettings, thickness: float, rng: np.random.Generator
) -> None:
    """Paints dura over the cavity and beside it, which takes up contrast agent, in place."""
    reach = rng.uniform(1.1, 2.0) * site.radius
    shell = np.clip(thickness - site.shallow + 1, 0, 1) * np.clip(reach - site.across, 0, 1) * (site.along < 0)
    cover = (shell * brain.mask[site.box]).astype(np.float32)
    grey, wet, lit = rng.uniform(0.6, 1.1), rng.uniform(0.0, 0.3), rng.uniform(0.5, 1.2)
    strong = min(uniform(rng, own.dura_level), _BRIGHTEST / brain.levels["t1c"].wm)
    for modality, image in brain.images.items():
        levels = brain.levels[modality]
        level = {
            "t1n": grey * levels.gm,
            "t1c": strong * levels.wm,
            "t2w": _mix(levels, wet),
            "t2f": lit * max(levels.gm, levels.wm),
        }[modality]
        image[site.box] += (level - image[site.box]) * cover


def _mix(levels: TissueLevels, share: float) -> float:
    return levels.gm + share * (levels.csf - levels.gm)


def _leave_edge(brain: Background, site: _Site, own: OperationSettings, rng: np.random.Generator) -> None:
    """Leaves patches of scalp, muscle and bone outside the brain, around the bone defect, in place."""
    reach = uniform(rng, (1.5, 5.0)) * site.scale
    outside = ndimage.distance_transform_edt(~brain.mask[site.box])
    ring = (site.across > 0.5 * site.radius) & (site.across < 1.8 * site.radius) & (site.along < 0)
    patches = smooth_field(rng, site.size, max(0.6 * site.radius, _FINEST_FIELD)) > rng.uniform(-0.2, 1.0)
    remnant = (outside > 0) & (outside <= reach) & ring & patches
    texture = 1 + 0.3 * smooth_field(rng, site.size, 3.0)[remnant]
    for modality, image in brain.images.items():
        levels = brain.levels[modality]
        image[site.box][remnant] = uniform(rng, own.edge_level) * max(levels.wm, levels.gm) * texture
    brain.mask[site.box] |= remnant


def _without_tissue(
    brain: Background, site: _Site, cover: Volume, inside: NDArray[np.bool_]
) -> tuple[Background, NDArray[np.bool_]]:
    """The background whose cavity no tumour enters, and the cavity on the whole grid."""
    cavity = np.zeros(brain.mask.shape, dtype=bool)
    cavity[site.box] = inside
    gm, wm, ventricles = brain.gm.copy(), brain.wm.copy(), brain.ventricles.copy()
    for tissue in (gm, wm):
        tissue[site.box] *= 1 - cover
    ventricles[cavity] = 1
    free = brain.free & brain.mask
    free[site.box] &= ~ndimage.binary_dilation(inside, iterations=_KEEP_OUT)
    return replace(brain, gm=gm, wm=wm, ventricles=ventricles, free=free), cavity


def _draw_residual(
    brain: Background, site: _Site, own: OperationSettings, distance: Volume, rng: np.random.Generator
) -> tuple[LesionSite, ...]:
    """Sites of tumour at the wall, in tissue; nodules of one case lie near each other."""
    if rng.random() >= own.residual_probability:
        return ()
    tissue = brain.gm[site.box] + brain.wm[site.box] > _HALF
    wall = np.argwhere((distance >= 1) & (distance < 3) & tissue & (site.shallow > 2))  # noqa: PLR2004 - voxels
    if len(wall) == 0:
        return ()
    low, high = np.log(own.residual_diameter_mm)
    first = wall[rng.integers(len(wall))]
    near = wall[np.linalg.norm(wall - first, axis=1) < max(1.2 * site.radius, 3)]
    corner = [side.start for side in site.box]
    sites = []
    for _ in range(int(rng.integers(own.residual_count[0], own.residual_count[1] + 1))):
        x, y, z = (int(c + o) for c, o in zip(near[rng.integers(len(near))], corner, strict=True))
        diameter = float(np.exp(rng.uniform(low, high))) * site.scale
        sites.append(LesionSite((x, y, z), min(diameter / 2, site.radius), site.scale))
    return tuple(sites)
