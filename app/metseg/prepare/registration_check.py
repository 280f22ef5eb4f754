"""Whether a transform between two images of a head is believable, by other means than it was found.

Enough of the head must lie in both fields of view, and inside the skull the two images must tell of each other more
than they do when one is shifted. Another patient's head fits from outside; its ventricles and sulci don't.
"""

from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.files.case import Scan
from metseg.plan.radiosurgery import RegistrationPlan
from metseg.prepare.rigid_search import coarsen
from metseg.space.grid import Affine, FloatVolume, Grid

HEAD_HU: Final = -300.0
"""Skin and everything denser lies above, air and its noise below."""

BONE_HU: Final = 250.0
"""The skull lies above: its thinnest parts are blurred by thick slices, but contrast agent stays below."""

CHECK_BINS: Final = 12
"""Of the joint histogram inside the skull. Few: chance alone gives (bins - 1)^2 / (2 voxels) nats."""

SURROUNDINGS: Final = 3
"""Sides of what a voxel's detail is compared with, in shifts of the check: about 24 mm, a ventricle's width."""

Ball = NDArray[np.bool_]


def share_of_head(fixed: FloatVolume, fixed_grid: Grid, moving_grid: Grid, found: Affine, check_mm: float) -> float:
    """Share of the fixed image's head inside the moving image's field of view.

    Args:
        fixed: shape `fixed_grid.shape`, an MR of the whole head.
        fixed_grid: where it lies.
        moving_grid: of the other image.
        found: from the fixed image's world to the moving one's.
        check_mm: voxel side of the comparison.
    """
    small, small_grid = coarsen(fixed, fixed_grid, check_mm)
    low, high = np.percentile(small, (5, 98))
    points = np.argwhere(small > low + 0.1 * (high - low)).T
    if not points.size:
        return 0.0
    to_moving = np.linalg.inv(moving_grid.affine) @ found @ small_grid.affine
    places = to_moving[:3, :3] @ points + to_moving[:3, 3:]
    limits = np.array(moving_grid.shape)[:, None] - 1
    return float(((places >= 0) & (places <= limits)).all(axis=0).mean())


def gain_over_shifts(seen: Scan, cavity: Ball, other: Scan, to_other: Affine, plan: RegistrationPlan) -> float:
    """Mutual information of two images' details inside the skull, over its mean after shifts, minus 1.

    Args:
        seen: one image, coarsened to `plan.check_grid_mm`.
        cavity: shape of its grid: inside the skull, where the images are compared.
        other: the other image, coarsened likewise.
        to_other: a point of the first image's world to the same point in the other's.
        plan: how far to shift.

    Returns:
        0 where too little lies inside the skull.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    voxels = np.argwhere(cavity).T
    if voxels.shape[1] < CHECK_BINS**2:
        return 0.0
    width = tuple(max(3, round(SURROUNDINGS * plan.check_shift_mm / side)) for side in seen.grid.spacing_mm)
    detail = local_detail(seen.voxels, cavity, width)
    index = np.linalg.inv(other.grid.affine) @ to_other @ seen.grid.affine
    own = index[:3, :3] @ voxels + index[:3, 3:]
    step = plan.check_shift_mm / np.array(other.grid.spacing_mm)
    shifts = [np.zeros(3), *(sign * step * np.eye(3)[axis] for axis, sign in product(range(3), (-1, 1)))]
    values = []
    for shift in shifts:
        sampled = np.zeros(cavity.shape, dtype=np.float32)
        sampled[cavity] = ndimage.map_coordinates(other.voxels, own + shift[:, None], order=1, mode="nearest")
        values.append(mutual_information(detail, local_detail(sampled, cavity, width)))
    around = float(np.mean(values[1:]))
    return values[0] / around - 1 if around > 0 else 0.0


def coarsen_scan(voxels: FloatVolume, grid: Grid, side_mm: float) -> Scan:
    """An image in voxels of about this side, as the check compares them."""
    small, small_grid = coarsen(voxels, grid, side_mm)
    return Scan(small, small_grid, b"")


def local_detail(volume: FloatVolume, mask: Ball, width: tuple[int, ...]) -> NDArray[np.float32]:
    """What differs from the mean of its surroundings: cupping and coil shading follow the head's shape in any patient.

    Args:
        volume: shape (x, y, z).
        mask: same shape: what counts, as a voxel and as surroundings.
        width: sides of the surroundings, voxels.

    Returns:
        Shape (voxels of the mask,).
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    share = ndimage.uniform_filter(mask.astype(np.float32), width)
    mean = ndimage.uniform_filter(np.where(mask, volume, 0).astype(np.float32), width)[mask] / share[mask]
    return np.asarray(volume[mask] - mean, dtype=np.float32)


def skull_cavity(hounsfield: FloatVolume) -> Ball:
    """What bone surrounds on most sides, without the rim: the brain, in a CT coarsened to a few millimetres.

    A voxel counts when at least five of the six directions along the axes meet bone: the foramen magnum and a field of
    view that ends above the skull base leave one open.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    bone = hounsfield > BONE_HU
    met = np.zeros(bone.shape, dtype=np.uint8)
    for axis in range(3):
        met += np.logical_or.accumulate(bone, axis=axis)
        met += np.flip(np.logical_or.accumulate(np.flip(bone, axis), axis=axis), axis)
    inside = (met >= 5) & ~bone & (hounsfield > HEAD_HU)  # noqa: PLR2004 - of six
    return np.asarray(ndimage.binary_erosion(ndimage.binary_opening(inside), iterations=2))


def mutual_information(one: NDArray[np.float32], other: NDArray[np.float32], bins: int = CHECK_BINS) -> float:
    """Mutual information of two samples in nats, by ranks: each bin of either holds equally many values.

    Args:
        one: shape (n,).
        other: shape (n,).
        bins: of each.
    """
    codes = [_equal_bins(values, bins) for values in (one, other)]
    joint = np.bincount(codes[0] * bins + codes[1], minlength=bins * bins).reshape(bins, bins) / one.size
    expected = joint.sum(axis=1, keepdims=True) @ joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / expected[filled])).sum())


def _equal_bins(values: NDArray[np.float32], bins: int) -> NDArray[np.intp]:
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")
