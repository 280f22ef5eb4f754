"""First stage: one individual's anatomy, a strong deformation of the ICBM152 template that nilearn ships.

Tissue maps of the average brain (1 mm, 197x233x189, in the nilearn package itself: nothing is downloaded) are shifted,
scaled, bent on three scales, sharpened and given an individual width of sulci and cortex.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.cohort.fields import Volume, smooth_field, uniform
from training.cohort.settings import AnatomySettings, CohortSettings

# MNI coordinates, mm: a box around the lateral and third ventricles, and the planes that bound the posterior fossa.
_VENTRICLE_BOX: Final = ((-45, 45), (-62, 45), (-22, 38))
_COARSE: Final = 4


@dataclass(frozen=True, slots=True)
class Template:
    """The average brain, cropped, RAS, 1 mm.

    Attributes:
        maps: shape (5, x, y, z), uint8: grey matter, white matter, whole brain, ventricles, T1 detail (128 = none).
        fossa: shape (x, y, z), uint8: 1 cerebellum, 2 brain stem.
        centre: voxel of the brain's centre.
        ventricle_push: shape (3, X, Y, Z), unit vectors away from the ventricles, fading over 25 mm, every 4th voxel.
        midline: voxel x of the mid-sagittal plane.
        origin_mm: MNI coordinates of voxel (0, 0, 0).
    """

    maps: NDArray[np.uint8]
    fossa: NDArray[np.uint8]
    centre: NDArray[np.float32]
    ventricle_push: NDArray[np.float32]
    midline: float
    origin_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One individual on a working box of the grid. All maps share one shape (x, y, z), RAS.

    Attributes:
        offset: first voxel of the box on the full grid.
        mask: the skull-stripped brain with its rim of CSF.
        gm: grey-matter share, 0..1.
        wm: white-matter share, 0..1.
        csf: CSF share, 0..1; the three sum to 1 inside the mask and to 0 outside.
        ventricles: share of ventricle, 0..1.
        fossa: 1 cerebellum, 2 brain stem, 0 elsewhere.
        detail: T1 contrast of the template that tissue shares don't explain, about -1..1 of the GM-WM difference.
        depth: distance to the mask's surface in voxels, approximate (from a coarse grid).
        midline: template's signed distance from the mid-sagittal plane, mm.
        height: template's z, mm MNI; with `front` it places vessels and sinuses.
        front: template's y, mm MNI.
        scale: voxels per template mm.
    """

    offset: tuple[int, int, int]
    mask: NDArray[np.bool_]
    gm: Volume
    wm: Volume
    csf: Volume
    ventricles: Volume
    fossa: NDArray[np.uint8]
    detail: Volume
    depth: Volume
    midline: Volume
    front: Volume
    height: Volume
    scale: float


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    components, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return np.asarray(components == sizes.argmax())


def _individualise(
    t1: NDArray[np.uint8],
    gm: NDArray[np.uint8],
    wm: NDArray[np.uint8],
    brain: NDArray[np.bool_],
    ventricles: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Makes two features of an average brain look like one person's.

    Sulci, which averaging fills with grey matter, take back the share of CSF that the T1 image shows; the thin grey rim
    that partial volume draws around the ventricles becomes white matter.
    """
    gm_level, csf_level = float(np.median(t1[gm > 230])), float(np.median(t1[ventricles]))  # noqa: PLR2004
    csf = np.clip((gm_level - t1.astype(np.float32)) / (gm_level - csf_level), 0, 1) * brain
    near = ndimage.binary_dilation(ventricles, iterations=5)
    rim = np.where(near, gm - np.minimum(gm, ndimage.grey_opening(gm, size=5)), 0).astype(np.uint8)
    white = np.where(near, wm.astype(np.float32) + rim, wm)
    grey = (gm - rim).astype(np.float32) * (1 - csf)
    return grey.astype(np.uint8), np.clip(white * (1 - csf * (gm > wm)), 0, 255).astype(np.uint8)


def _read_map(name: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    file = resources.files("nilearn") / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    with resources.as_file(file) as path:
        image = nib.load(path)
        return np.asanyarray(image.dataobj), image.affine


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Reads the template from the nilearn package and derives what every case needs; cached per process."""
    t1, affine = _read_map("t1")
    gm, wm = (_read_map(name)[0] for name in ("gm", "wm"))
    brain = ndimage.binary_fill_holes(_largest_component(t1 > 0))
    corners = ndimage.find_objects(brain.astype(np.uint8))[0]
    box = tuple(slice(max(s.start - 6, 0), s.stop + 6) for s in corners)
    t1, gm, wm, brain = (a[box] for a in (t1, gm, wm, brain))
    origin = affine[:3, 3] + [s.start for s in box]
    x, y, z = np.ogrid[: t1.shape[0], : t1.shape[1], : t1.shape[2]]
    x, y, z = x + origin[0], y + origin[1], z + origin[2]

    inside = ndimage.binary_erosion(brain, iterations=8)
    csf = brain & (gm.astype(np.int16) + wm < 128) & inside  # noqa: PLR2004  half of 255
    (x0, x1), (y0, y1), (z0, z1) = _VENTRICLE_BOX
    central = (x > x0) & (x < x1) & (y > y0) & (y < y1) & (z > z0) & (z < z1)
    ventricles = _largest_component(ndimage.binary_opening(csf & central))
    ventricles = ndimage.binary_dilation(ventricles) & csf

    gm, wm = _individualise(t1, gm, wm, brain, ventricles)

    stem = (abs(x) < 18) & (y > -45) & (y < -12) & (z < -8 - 0.35 * (y + 20)) & (z < -12)
    cerebellum = (y < -32) & (z < -4 - 0.42 * abs(x)) & (z < -6) & ~stem
    fossa = (brain * (cerebellum * 1 + stem * 2)).astype(np.uint8)

    shares = np.stack([gm[brain], wm[brain], np.full(int(brain.sum()), 255)], axis=1).astype(np.float32) / 255
    levels, *_ = np.linalg.lstsq(shares, t1[brain].astype(np.float32), rcond=None)
    residual = (t1[brain] - shares @ levels) / abs(levels[1] - levels[0])
    detail = np.full(t1.shape, 128, dtype=np.uint8)
    detail[brain] = np.clip(128 + 64 * residual, 0, 255)

    distance = ndimage.distance_transform_edt(~ventricles[::_COARSE, ::_COARSE, ::_COARSE]) * _COARSE
    distance = ndimage.gaussian_filter(distance.astype(np.float32), 1.0)
    push = np.stack(np.gradient(distance, _COARSE)) * np.exp(-distance / 25.0)
    return Template(
        maps=np.stack([gm, wm, brain.astype(np.uint8) * 255, ventricles.astype(np.uint8) * 255, detail]),
        fossa=fossa,
        centre=np.array([-origin[0], *(s / 2 for s in t1.shape[1:])], dtype=np.float32),
        ventricle_push=push.astype(np.float32),
        midline=float(-origin[0]),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
    )


def _control_points(shape: tuple[int, int, int], spacing: float) -> tuple[int, int, int]:
    return tuple(max(1, round(n / spacing)) + 3 for n in shape)  # type: ignore[return-value]


def _template_coordinates(
    template: Template, settings: AnatomySettings, shape: tuple[int, int, int], scale: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Where in the template each voxel of the box comes from, shape (3, x, y, z)."""
    axis_scale = scale * uniform(rng, settings.scale) * (1 + settings.axis_scale_std * rng.standard_normal(3))
    rx, ry, rz = np.deg2rad(settings.rotation_deg_std * rng.standard_normal(3))
    rotation = (
        np.array([[1, 0, 0], [0, np.cos(rx), -np.sin(rx)], [0, np.sin(rx), np.cos(rx)]])
        @ np.array([[np.cos(ry), 0, np.sin(ry)], [0, 1, 0], [-np.sin(ry), 0, np.cos(ry)]])
        @ np.array([[np.cos(rz), -np.sin(rz), 0], [np.sin(rz), np.cos(rz), 0], [0, 0, 1]])
    )
    shear = np.eye(3) + np.triu(settings.shear_std * rng.standard_normal((3, 3)), 1)
    to_template = (rotation @ shear @ np.diag(1 / axis_scale)).astype(np.float32)
    shift = settings.shift_mm_std * scale * rng.standard_normal(3)
    grid = [np.arange(n, dtype=np.float32) - n / 2 - s for n, s in zip(shape, shift, strict=True)]
    strength = uniform(rng, settings.warp_strength)
    coordinates = np.empty((3, *shape), dtype=np.float32)
    for axis in range(3):
        row = to_template[axis]
        coordinates[axis] = (
            (row[0] * grid[0])[:, None, None] + (row[1] * grid[1])[:, None] + row[2] * grid[2] + template.centre[axis]
        )
        for spacing, std in zip(settings.warp_spacings_mm, settings.warp_std_mm, strict=True):
            coordinates[axis] += strength * std * smooth_field(rng, shape, spacing * scale)
    return coordinates


def _grow_ventricles(template: Template, coordinates: NDArray[np.float32], growth_mm: float) -> None:
    """Pulls the coordinates towards the ventricles, in place, so that the ventricles look larger."""
    coarse = tuple(slice(None, None, 2) for _ in range(3))
    points = coordinates[(slice(None), *coarse)] / _COARSE
    for axis in range(3):
        pushed = ndimage.map_coordinates(template.ventricle_push[axis], points, order=1, mode="nearest")
        for k in range(3):
            pushed = np.repeat(pushed, 2, axis=k)
        shape = coordinates.shape[1:]
        coordinates[axis] -= growth_mm * pushed[: shape[0], : shape[1], : shape[2]]


def _sampled_voxels(template: Template, coordinates: NDArray[np.float32]) -> NDArray[np.intp]:
    """Flat indices of the voxels that can lie in the brain: the others are never sampled."""
    points = coordinates[:, ::_COARSE, ::_COARSE, ::_COARSE]
    near = ndimage.map_coordinates(template.maps[2], points, order=0) > 0
    near = ndimage.binary_dilation(near, ndimage.generate_binary_structure(3, 3))
    for axis in range(3):
        near = np.repeat(near, _COARSE, axis=axis)
    shape = coordinates.shape[1:]
    return np.flatnonzero(near[: shape[0], : shape[1], : shape[2]])


def _strip_mask(brain: Volume, settings: AnatomySettings, scale: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The skull-stripped region: the brain and an uneven rim of CSF around it."""
    smooth = ndimage.gaussian_filter(brain, max(1.8 * scale, 0.6), truncate=2.5)
    level = uniform(rng, settings.strip_level) + 0.12 * smooth_field(rng, brain.shape, 18 * scale)
    return np.asarray(smooth > np.clip(level, 0.06, 0.70))


def coarse_depth(mask: NDArray[np.bool_]) -> Volume:
    """Distance to the surface in voxels, from every 4th voxel: accurate to about two voxels, fast."""
    step = _COARSE if min(mask.shape) > 100 else 2  # noqa: PLR2004
    padded = np.pad(mask[::step, ::step, ::step], 1)
    distance = ndimage.distance_transform_edt(padded)[1:-1, 1:-1, 1:-1].astype(np.float32) * step
    for axis in range(3):
        distance = np.repeat(distance, step, axis=axis)
    return distance[: mask.shape[0], : mask.shape[1], : mask.shape[2]]


def _individual_shares(
    gm: Volume, wm: Volume, inside: NDArray[np.float32], settings: AnatomySettings, noise: NDArray[np.float32], gain: float,
    sharpness: float,
) -> tuple[Volume, Volume, Volume]:
    """Sharpens and perturbs tissue shares; vectors over the mask's voxels in, vectors out."""
    csf = np.maximum(1 - gm - wm, 0) * inside + (1 - inside)
    csf = np.maximum(csf, 1e-3)
    weights = []
    for share, log_noise in ((gm, noise[0]), (wm, noise[1]), (csf, gain + 0.6 * noise[2])):
        weights.append(np.maximum(share, 1e-4) ** sharpness * np.exp(settings.tissue_log_noise * log_noise))
    total = weights[0] + weights[1] + weights[2]
    return weights[0] / total, weights[1] / total, weights[2] / total


def draw_anatomy(settings: CohortSettings, rng: np.random.Generator) -> Anatomy:
    """Draws one individual.

    Args:
        settings: the cohort's distributions; `grid` and `anatomy` are read.
        rng: source of randomness; the same state gives the same individual.
    """
    template, own, scale = load_template(), settings.anatomy, settings.grid.anatomy_scale
    grid = settings.grid.shape
    wanted = [int(np.ceil(scale * n)) for n in (164, 204, 176)]
    shape = tuple(min(n, w) for n, w in zip(grid, wanted, strict=True))
    offset = tuple((n - s) // 2 for n, s in zip(grid, shape, strict=True))

    coordinates = _template_coordinates(template, own, shape, scale, rng)
    _grow_ventricles(template, coordinates, uniform(rng, own.ventricle_growth_mm))
    index = _sampled_voxels(template, coordinates)
    points = coordinates.reshape(3, -1)[:, index]

    def warp(values: NDArray[np.uint8], order: int = 1) -> NDArray[np.float32]:
        return ndimage.map_coordinates(values, points, output=np.float32, order=order, mode="nearest")

    def fill(values: NDArray[np.float32], empty: float = 0.0) -> Volume:
        volume = np.full(shape, empty, dtype=np.float32)
        volume.reshape(-1)[index] = values
        return volume

    brain = fill(warp(template.maps[2]) / 255)
    mask = _strip_mask(brain, own, scale, rng)
    noise = [smooth_field(rng, shape, max(own.tissue_noise_spacing_mm * scale, 2.0)).reshape(-1)[index] for _ in range(3)]
    gain = own.csf_log_gain[0] + own.csf_log_gain[1] * float(rng.standard_normal())
    gm, wm, csf = _individual_shares(
        warp(template.maps[0]) / 255,
        warp(template.maps[1]) / 255,
        brain.reshape(-1)[index],
        own,
        np.stack(noise),
        gain,
        uniform(rng, own.sharpness),
    )
    corners = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in corners)
    mask = mask[box]
    return Anatomy(
        offset=tuple(o + s.start for o, s in zip(offset, box, strict=True)),  # type: ignore[arg-type]
        mask=mask,
        gm=fill(gm)[box] * mask,
        wm=fill(wm)[box] * mask,
        csf=fill(csf, 1.0)[box] * mask,
        ventricles=fill(warp(template.maps[3]) / 255)[box] * mask,
        fossa=fill(warp(template.fossa, order=0))[box].astype(np.uint8),
        detail=fill(warp(template.maps[4]) / 64 - 2)[box] * mask,
        depth=coarse_depth(mask),
        midline=coordinates[0][box] - template.midline,
        front=coordinates[1][box] + template.origin_mm[1],
        height=coordinates[2][box] + template.origin_mm[2],
        scale=scale,
    )


__all__ = ["Anatomy", "Template", "coarse_depth", "draw_anatomy", "load_template"]
