"""A voxel grid in space. Arrays are indexed (x, y, z) in the order of the file they come from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]
"""Shape (4, 4): voxel indices to RAS+ millimetres."""

FloatVolume = NDArray[np.float32]
"""Shape (x, y, z)."""


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
