"""A voxel grid in space, and how two of them differ.

Arrays are indexed (x, y, z) in the order of the file they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.findings import plain_number, sides_in_words

Affine = NDArray[np.float64]
"""Shape (4, 4): voxel indices to RAS+ millimetres."""

FloatVolume = NDArray[np.float32]
"""Shape (x, y, z)."""

GRID_TOLERANCE_VOXELS: Final = 0.1
"""How far the corners of two images' grids may lie apart, in units of the smallest voxel side. Two roundings of one
affine (float32 sform, quaternion qform, four decimals in a converter) differ by less than 0.03."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A voxel grid in space.

    Attributes:
        shape: voxels along each axis.
        affine: voxel indices to RAS+ millimetres.
    """

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each axis, in millimetres."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, in cubic millimetres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


def grid_difference(grid: Grid, expected: Grid, tolerance_voxels: float = GRID_TOLERANCE_VOXELS) -> str:
    """Says how two grids differ beyond the tolerance; empty when they are the same.

    Shapes must be equal. Rounding, signed zeros and the choice between qform and sform don't count.

    Args:
        grid: the grid in question.
        expected: the grid that it should be.
        tolerance_voxels: how far their corners may lie apart, in units of the expected grid's smallest voxel side.
    """
    if grid.shape != expected.shape:
        return f"{times(grid.shape)} voxels, expected {times(expected.shape)}"
    shift_mm = corner_shift_mm(grid, expected)
    if shift_mm <= tolerance_voxels * min(expected.spacing_mm):
        return ""
    return (
        f"corners up to {plain_number(shift_mm)} mm apart (voxels of {sides_in_words(grid.spacing_mm)} mm, "
        f"axes {_axes(grid)}; "
        f"expected {sides_in_words(expected.spacing_mm)} mm, axes {_axes(expected)})"
    )


def corner_shift_mm(one: Grid, other: Grid) -> float:
    """The largest distance between the same corner voxel of two grids of equal shape, in millimetres.

    An affine difference is linear, so no voxel lies further apart than the corners do.
    """
    corners = np.array(np.meshgrid(*[(0, side - 1) for side in one.shape], [1], indexing="ij"), dtype=np.float64)
    offsets = (one.affine - other.affine)[:3] @ corners.reshape(4, -1)
    return float(np.sqrt((offsets**2).sum(axis=0)).max())


def times(sides: Sequence[int]) -> str:
    """A shape as people write it: 240x240x155."""
    return "x".join(str(side) for side in sides)


def _axes(grid: Grid) -> str:
    """The grid's axes in letters, such as LPS: where each array axis points."""
    from nibabel import aff2axcodes  # noqa: PLC0415

    codes: tuple[str, ...] = aff2axcodes(grid.affine)
    return "".join(codes)
