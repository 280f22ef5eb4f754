"""The ICBM152 average brain that nilearn ships, prepared once per process for every case."""

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

COARSE_STEP: Final = 4
"""Every how many voxels coarse maps are sampled."""

# MNI coordinates, mm: a box around the lateral and third ventricles.
_VENTRICLE_BOX: Final = ((-45, 45), (-62, 45), (-22, 38))
# Brain stem and cerebellum by planes in MNI coordinates, mm: read off the template.
_STEM_HALF_WIDTH: Final = 18
_STEM_FRONT: Final = -12
_STEM_BACK: Final = -45
_STEM_TOP: Final = -12
_CEREBELLUM_FRONT: Final = -32
_CEREBELLUM_TOP: Final = -6
# Half of a tissue share's full scale, and nearly all of it, of 255.
_HALF: Final = 128
_NEARLY_PURE: Final = 230
# CSF nearer to the surface than this is sulcal, mm.
_INSIDE_DEPTH_MM: Final = 8
_PUSH_REACH_MM: Final = 25.0


@dataclass(frozen=True, slots=True)
class Template:
    """The average brain, cropped, RAS, 1 mm.

    Attributes:
        tissue: shape (x, y, z, 4), uint8: grey-matter share, white-matter share, brain (255 = all) and the T1 contrast
            that these don't explain (64 = the GM-WM difference, 128 = none).
        ventricles: shape (x, y, z), uint8: 255 inside the lateral and third ventricles.
        fossa: 1 cerebellum, 2 brain stem.
        centre: voxel of the brain's centre.
        ventricle_push: shape (3, X, Y, Z), unit vectors away from the ventricles, fading over 25 mm, every 4th voxel.
        midline: voxel x of the mid-sagittal plane.
        origin_mm: MNI coordinates of voxel (0, 0, 0).
    """

    tissue: NDArray[np.uint8]
    ventricles: NDArray[np.uint8]
    fossa: NDArray[np.uint8]
    centre: NDArray[np.float32]
    ventricle_push: NDArray[np.float32]
    midline: float
    origin_mm: tuple[float, float, float]


def _read_map(name: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    file = resources.files("nilearn") / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    with resources.as_file(file) as path:
        image = nib.load(path)
        return np.asanyarray(image.dataobj), image.affine


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
    gm_level, csf_level = float(np.median(t1[gm > _NEARLY_PURE])), float(np.median(t1[ventricles]))
    csf = np.clip((gm_level - t1.astype(np.float32)) / (gm_level - csf_level), 0, 1) * brain
    near = ndimage.binary_dilation(ventricles, iterations=5)
    rim = np.where(near, gm - np.minimum(gm, ndimage.grey_opening(gm, size=5)), 0).astype(np.uint8)
    white = np.where(near, wm.astype(np.float32) + rim, wm)
    grey = (gm - rim).astype(np.float32) * (1 - csf)
    return grey.astype(np.uint8), np.clip(white * (1 - csf * (gm > wm)), 0, 255).astype(np.uint8)


def _find_fossa(
    brain: NDArray[np.bool_], x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Brain stem (2) and cerebellum (1): x, y, z are the axes' MNI coordinates, broadcastable."""
    stem = (abs(x) < _STEM_HALF_WIDTH) & (y > _STEM_BACK) & (y < _STEM_FRONT)
    stem = stem & (z < -8 - 0.35 * (y + 20)) & (z < _STEM_TOP)
    cerebellum = (y < _CEREBELLUM_FRONT) & (z < -4 - 0.42 * abs(x)) & (z < _CEREBELLUM_TOP) & ~stem
    return (brain * (cerebellum * 1 + stem * 2)).astype(np.uint8)


def _find_ventricles(
    csf: NDArray[np.bool_], x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
) -> NDArray[np.bool_]:
    (x0, x1), (y0, y1), (z0, z1) = _VENTRICLE_BOX
    central = (x > x0) & (x < x1) & (y > y0) & (y < y1) & (z > z0) & (z < z1)
    ventricles = _largest_component(ndimage.binary_opening(csf & central))
    return np.asarray(ndimage.binary_dilation(ventricles) & csf)


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
    x, y, z = (a + o for a, o in zip(np.ogrid[tuple(slice(n) for n in t1.shape)], origin, strict=True))

    inside = ndimage.distance_transform_cdt(brain, metric="taxicab") > _INSIDE_DEPTH_MM
    ventricles = _find_ventricles(brain & (gm.astype(np.int16) + wm < _HALF) & inside, x, y, z)
    gm, wm = _individualise(t1, gm, wm, brain, ventricles)

    shares = np.stack([gm[brain], wm[brain], np.full(int(brain.sum()), 255)], axis=1).astype(np.float32) / 255
    levels, *_ = np.linalg.lstsq(shares, t1[brain].astype(np.float32), rcond=None)
    residual = (t1[brain] - shares @ levels) / abs(levels[1] - levels[0])
    detail = np.full(t1.shape, 128, dtype=np.uint8)
    detail[brain] = np.clip(128 + 64 * residual, 0, 255)

    coarse = ventricles[::COARSE_STEP, ::COARSE_STEP, ::COARSE_STEP]
    distance = ndimage.distance_transform_edt(~coarse) * COARSE_STEP
    distance = ndimage.gaussian_filter(distance.astype(np.float32), 1.0)
    push = np.stack(np.gradient(distance, COARSE_STEP)) * np.exp(-distance / _PUSH_REACH_MM)
    return Template(
        tissue=np.stack([gm, wm, brain.astype(np.uint8) * 255, detail], axis=-1),
        ventricles=ventricles.astype(np.uint8) * 255,
        fossa=_find_fossa(brain, x, y, z),
        centre=np.array([-origin[0], *(s / 2 for s in t1.shape[1:])], dtype=np.float32),
        ventricle_push=push.astype(np.float32),
        midline=float(-origin[0]),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
    )
