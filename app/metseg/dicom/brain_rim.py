"""The rim of a brain mask on t1c: dark tissue is peeled off it, enhancing tumour that it cuts joins it.

CSF and bone around the brain are darker than half of the brain. Bright tissue joins where it is thick (vessels and dura
are thin), lies within a few millimetres of the mask, and is mostly inside it already (scalp, venous sinuses and the
cavernous sinus are mostly outside).
"""

from dataclasses import dataclass
from typing import Final

import cc3d
import numpy as np
from numpy.typing import NDArray

from metseg.space.components import bounding_box
from metseg.space.grid import FloatVolume, Grid
from metseg.space.rigid import resample_rigid

WORKING_MM: Final = 1.0
"""Voxel side of the grid that is worked on, along the axes of the patient; chosen: time does not depend on the file."""

REACH_MM: Final = 5
"""How far outside the mask tissue may join; chosen: less than skull and CSF, which lie between brain and scalp."""

LEAST_RADIUS_MM: Final = 1
"""Bright tissue that no ball of this radius fits into is thin: under 3 mm, as dura and veins are; chosen."""

PEEL_MM: Final = 3
"""How deep dark tissue is peeled off; chosen: a necrotic tumour behind a rim stays."""

DARK_SHARE: Final = 0.5
"""Dark: less than this share of the brain's median; chosen between CSF and grey matter."""

SPREADS: Final = 2.5
"""Bright: so many robust standard deviations above the brain's median."""

MAD_TO_STD: Final = 1.4826
"""Of a normal distribution."""

HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Rim:
    """What a brain mask gains and loses; both have its shape.

    Attributes:
        cut: enhancing tissue outside the mask that should be inside.
        dark: CSF and bone inside the mask, at its surface.
    """

    cut: NDArray[np.bool_]
    dark: NDArray[np.bool_]


def examine_rim(image: FloatVolume, mask: NDArray[np.bool_], grid: Grid) -> Rim:
    """Finds what is wrong at the surface of a brain mask.

    Args:
        image: shape `grid.shape`: t1c.
        mask: same shape: the brain, not empty.
        grid: of both.
    """
    working = _working_grid(mask, grid)
    soft = resample_rigid(mask.astype(np.float32), grid, working, np.eye(4), outside=0.0)
    inside = soft >= HALF
    if not inside.any():
        return Rim(np.zeros_like(mask), np.zeros_like(mask))
    seen = resample_rigid(image, grid, working, np.eye(4), outside=float(image.min()))
    cut = _choose(_is_bright(seen, inside), inside)
    dark = _peel(seen, inside)
    return Rim(_bring_back(cut, working, grid) & ~mask, _bring_back(dark, working, grid) & mask)


def _bring_back(found: NDArray[np.bool_], working: Grid, grid: Grid) -> NDArray[np.bool_]:
    if not found.any():
        return np.zeros(grid.shape, dtype=np.bool_)
    brought: NDArray[np.bool_] = resample_rigid(found.astype(np.float32), working, grid, np.eye(4), outside=0.0) >= HALF
    return brought


def _peel(image: FloatVolume, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dark voxels that a path of dark ones connects to the surface, not deeper than PEEL_MM."""
    from scipy import ndimage  # noqa: PLC0415 - heavy

    dark = image < DARK_SHARE * np.median(image[inside])
    rest = inside
    for _ in range(PEEL_MM):
        rest = rest & ~(dark & ~ndimage.binary_erosion(rest))
    kept: NDArray[np.bool_] = inside & ~rest
    return kept


def _working_grid(mask: NDArray[np.bool_], grid: Grid) -> Grid:
    """A grid along R, A and S around the mask, with room for what may join."""
    box = bounding_box(mask)
    if box is None:
        raise ValueError("the mask is empty")
    ends = np.array([[side.start, side.stop - 1] for side in box], dtype=np.float64)
    corners = np.array([[x, y, z] for x in ends[0] for y in ends[1] for z in ends[2]])
    world = corners @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    room = REACH_MM + LEAST_RADIUS_MM + 1
    low, high = world.min(axis=0) - room, world.max(axis=0) + room
    x, y, z = (int(side) for side in np.ceil((high - low) / WORKING_MM) + 1)
    affine = np.diag([WORKING_MM, WORKING_MM, WORKING_MM, 1.0])
    affine[:3, 3] = low
    return Grid((x, y, z), affine)


def _is_bright(image: FloatVolume, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    values = image[inside]
    median = np.median(values)
    spread = MAD_TO_STD * np.median(np.abs(values - median))
    bright: NDArray[np.bool_] = image > median + SPREADS * spread
    return bright


def _choose(bright: NDArray[np.bool_], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What joins: thick, near, and of a component that is mostly inside."""
    near = _dilate(inside, REACH_MM)
    thick = _open(bright & near, LEAST_RADIUS_MM)
    numbers = cc3d.connected_components(thick, connectivity=6)
    count = int(numbers.max())
    within = np.bincount(numbers[inside], minlength=count + 1)
    outside = np.bincount(numbers[~inside], minlength=count + 1)
    joins = within >= outside
    joins[0] = False
    chosen: NDArray[np.bool_] = joins[numbers] & ~inside
    return chosen


def _open(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """What balls inside the mask cover."""
    return _dilate(~_dilate(~mask, radius), radius) & mask


def _dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """All voxels within a radius of the mask, about: faces and edges in turn make a polyhedron like a ball."""
    from scipy import ndimage  # noqa: PLC0415 - heavy

    grown = mask
    for step in range(radius):
        grown = ndimage.binary_dilation(grown, ndimage.generate_binary_structure(3, 1 + step % 2))
    return np.asarray(grown)
