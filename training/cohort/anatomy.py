"""First stage: one individual's anatomy, a strong deformation of the ICBM152 template that nilearn ships.

Tissue maps of the average brain (1 mm, 197x233x189, in the nilearn package itself: nothing is downloaded) are shifted,
scaled, bent on three scales, sharpened and given an individual width of sulci and cortex.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.cohort.fields import Volume, smooth_field, uniform
from training.cohort.settings import AnatomySettings, CohortSettings
from training.cohort.template import COARSE_STEP, Template, load_template

# Voxels at scale 1 that hold any individual: the largest drawn brain and its rim.
_WORKING_BOX: Final = (164, 204, 176)
# Points interpolated at a time: they stay in the processor's cache.
_CHUNK: Final = 16384
# Boxes narrower than this get a finer grid for the distance to the surface.
_FINE_DEPTH_BELOW: Final = 100


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
        front: template's y, mm MNI; with `height` it places vessels and sinuses.
        height: template's z, mm MNI.
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


def _enlarge(coarse: NDArray[Any], step: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Repeats each coarse voxel `step` times per axis and crops to the shape."""
    for axis in range(3):
        coarse = np.repeat(coarse, step, axis=axis)
    return coarse[: shape[0], : shape[1], : shape[2]]


def _draw_rotation(std_deg: float, rng: np.random.Generator) -> NDArray[np.float64]:
    rx, ry, rz = np.deg2rad(std_deg * rng.standard_normal(3))
    return (
        np.array([[1, 0, 0], [0, np.cos(rx), -np.sin(rx)], [0, np.sin(rx), np.cos(rx)]])
        @ np.array([[np.cos(ry), 0, np.sin(ry)], [0, 1, 0], [-np.sin(ry), 0, np.cos(ry)]])
        @ np.array([[np.cos(rz), -np.sin(rz), 0], [np.sin(rz), np.cos(rz), 0], [0, 0, 1]])
    )


def _template_coordinates(
    template: Template, settings: AnatomySettings, shape: tuple[int, int, int], scale: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Where in the template each voxel of the box comes from, shape (3, x, y, z)."""
    axis_scale = scale * uniform(rng, settings.scale) * (1 + settings.axis_scale_std * rng.standard_normal(3))
    rotation = _draw_rotation(settings.rotation_deg_std, rng)
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
    points = coordinates[(slice(None), *coarse)] / COARSE_STEP
    for axis in range(3):
        pushed = ndimage.map_coordinates(template.ventricle_push[axis], points, order=1, mode="nearest")
        coordinates[axis] -= growth_mm * _enlarge(pushed, 2, coordinates.shape[1:])


def _interpolate(values: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Trilinear interpolation of (x, y, z, maps) at points (3, n): shape (n, maps). Much faster than map by map."""
    _, ny, nz, maps = values.shape
    rows = values.reshape(-1, maps)
    low, fraction = [], []
    for position, n in zip(points, values.shape, strict=False):
        held = np.clip(position, 0, np.float32(n - 1.001))
        low.append(held.astype(np.intp))
        fraction.append((held - low[-1])[:, None])
    first = (low[0] * ny + low[1]) * nz + low[2]

    def along_z(index: NDArray[np.intp]) -> NDArray[np.float32]:
        near, far = rows[index].astype(np.float32), rows[index + 1].astype(np.float32)
        return near + fraction[2] * (far - near)

    near = along_z(first)
    near += fraction[1] * (along_z(first + nz) - near)
    far = along_z(first + ny * nz)
    far += fraction[1] * (along_z(first + (ny + 1) * nz) - far)
    return near + fraction[0] * (far - near)


class _Sampler:
    """Takes template maps to the box, sampling only where something can lie.

    Attributes:
        index: flat indices of the voxels near the brain; vectors of this class are over them.
    """

    def __init__(self, template: Template, coordinates: NDArray[np.float32]) -> None:
        self._shape = coordinates.shape[1:]
        self._flat = coordinates.reshape(3, -1)
        self._coarse = coordinates[:, ::COARSE_STEP, ::COARSE_STEP, ::COARSE_STEP]
        self.index = self._find_near(template.tissue[..., 2])

    def _find_near(self, values: NDArray[np.uint8]) -> NDArray[np.intp]:
        """Flat indices of the voxels within one coarse voxel of where a map is not 0."""
        near = ndimage.map_coordinates(values, self._coarse, order=0) > 0
        near = ndimage.binary_dilation(near, ndimage.generate_binary_structure(3, 3))
        return np.flatnonzero(_enlarge(near, COARSE_STEP, self._shape))

    def vectors(self, values: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Several maps, shape (x, y, z, maps), at the voxels of `index`: shape (maps, voxels), linear, edges held."""
        points = self._flat[:, self.index]
        sampled = np.empty((values.shape[-1], self.index.size), dtype=np.float32)
        for start in range(0, self.index.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            sampled[:, part] = _interpolate(values, points[:, part]).T
        return sampled

    def fill(self, vector: NDArray[np.float32], empty: float = 0.0) -> Volume:
        """A vector over `index` as a volume, `empty` elsewhere."""
        volume = np.full(self._shape, empty, dtype=np.float32)
        volume.reshape(-1)[self.index] = vector
        return volume

    def compact(self, values: NDArray[np.uint8]) -> Volume:
        """A map that is 0 in most of the brain, as a volume."""
        index = self._find_near(values)
        volume = np.zeros(self._shape, dtype=np.float32)
        points = self._flat[:, index]
        volume.reshape(-1)[index] = ndimage.map_coordinates(values, points, output=np.float32, order=1, mode="nearest")
        return volume

    def blocks(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A map of classes, nearest neighbour, in blocks of the coarse grid."""
        return np.asarray(_enlarge(ndimage.map_coordinates(values, self._coarse, order=0), COARSE_STEP, self._shape))


def _strip_mask(brain: Volume, settings: AnatomySettings, scale: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The skull-stripped region: the brain and an uneven rim of CSF around it."""
    smooth = ndimage.gaussian_filter(brain, max(1.8 * scale, 0.6), truncate=2.5)
    level = uniform(rng, settings.strip_level) + 0.12 * smooth_field(rng, brain.shape, 18 * scale)
    return np.asarray(smooth > np.clip(level, 0.06, 0.70))


def _measure_depth(mask: NDArray[np.bool_]) -> Volume:
    """Distance to the surface in voxels, from every 4th voxel: accurate to about two voxels, fast."""
    step = COARSE_STEP if min(mask.shape) > _FINE_DEPTH_BELOW else 2
    padded = np.pad(mask[::step, ::step, ::step], 1)
    distance = ndimage.distance_transform_edt(padded)[1:-1, 1:-1, 1:-1].astype(np.float32) * step
    return _enlarge(distance, step, mask.shape)


def _individual_shares(
    tissue: NDArray[np.float32],
    noise: list[NDArray[np.float32]],
    settings: AnatomySettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Sharpens and perturbs tissue shares; GM, WM and brain in, GM, WM and CSF out, as vectors."""
    gm, wm, brain = tissue
    gain = settings.csf_log_gain[0] + settings.csf_log_gain[1] * float(rng.standard_normal())
    sharpness = uniform(rng, settings.sharpness)
    csf = np.maximum(np.maximum(1 - gm - wm, 0) * brain + (1 - brain), 1e-3)
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
    x, y, z = (min(n, int(np.ceil(scale * wanted))) for n, wanted in zip(grid, _WORKING_BOX, strict=True))
    shape = (x, y, z)

    coordinates = _template_coordinates(template, own, shape, scale, rng)
    _grow_ventricles(template, coordinates, uniform(rng, own.ventricle_growth_mm))
    sampler = _Sampler(template, coordinates)
    tissue = sampler.vectors(template.tissue)
    inside = tissue[2] / 255
    mask = _strip_mask(sampler.fill(inside), own, scale, rng)
    spacing = max(own.tissue_noise_spacing_mm * scale, 2.0)
    noise = [smooth_field(rng, shape, spacing).reshape(-1)[sampler.index] for _ in range(3)]
    gm, wm, csf = _individual_shares(tissue[:3] / 255, noise, own, rng)
    corners = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in corners)
    mask = mask[box]
    first = tuple((n - m) // 2 + s.start for n, m, s in zip(grid, shape, box, strict=True))
    return Anatomy(
        offset=(first[0], first[1], first[2]),
        mask=mask,
        gm=sampler.fill(gm)[box] * mask,
        wm=sampler.fill(wm)[box] * mask,
        csf=sampler.fill(csf, 1.0)[box] * mask,
        ventricles=sampler.compact(template.ventricles)[box] / 255 * mask,
        fossa=sampler.blocks(template.fossa)[box],
        detail=sampler.fill(tissue[3] / 64 - 2)[box] * mask,
        depth=_measure_depth(mask),
        midline=coordinates[0][box] - template.midline,
        front=coordinates[1][box] + template.origin_mm[1],
        height=coordinates[2][box] + template.origin_mm[2],
        scale=scale,
    )
