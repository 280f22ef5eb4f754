"""Slices as a radiologist looks at them: the patient's right on the left, anterior or superior at the top."""

from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from metseg.space.grid import Grid
from metseg.space.resampling import find_resampling

PlaneName = Literal["axial", "coronal", "sagittal"]
Element = TypeVar("Element", bound=np.generic)

RADIOLOGICAL: Final = "radiological orientation: the patient's right is on the left"

AXIS_OF: Final[dict[PlaneName, int]] = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The axis of the turned volume that a plane stands across."""

LETTERS: Final[dict[PlaneName, tuple[str, str, str, str]]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""What lies left, right, at the top and at the bottom."""


@dataclass(frozen=True, slots=True)
class View:
    """How a grid's volumes are turned for looking at: indices grow to the left, to posterior and to inferior.

    Axes are only permuted and flipped; an oblique grid is shown in its own planes, lettered by the closest direction.

    Attributes:
        grid: the grid of the volumes to turn.
        axes: for each of the turned axes L, P, I the grid's axis that runs along it.
        reversed_: for each of the turned axes L, P, I whether the grid's axis is flipped.
        spacing_mm: voxel sides along L, P, I.
    """

    grid: Grid
    axes: tuple[int, int, int]
    reversed_: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]

    def turn(self, volume: NDArray[Element]) -> NDArray[Element]:
        """A view of a volume on the grid, axes L, P, I."""
        flips = tuple(slice(None, None, -1 if flip else 1) for flip in self.reversed_)
        return volume.transpose(self.axes)[flips]

    def turn_index(self, voxel: tuple[float, float, float]) -> tuple[float, float, float]:
        """A voxel's place in the turned volume."""
        x, y, z = (
            self.grid.shape[axis] - 1 - voxel[axis] if flip else voxel[axis]
            for axis, flip in zip(self.axes, self.reversed_, strict=True)
        )
        return x, y, z


def choose_view(grid: Grid) -> View:
    """How to turn volumes on this grid."""
    resampling = find_resampling(grid)  # towards R, A, S: each axis the other way round
    spacing = grid.spacing_mm
    x, y, z = resampling.source_axes
    r, a, s = resampling.flipped
    return View(grid, resampling.source_axes, (not r, not a, not s), (spacing[x], spacing[y], spacing[z]))


def cut(turned: NDArray[Element], plane: PlaneName, index: int) -> NDArray[Element]:
    """One slice of a turned volume.

    Returns:
        Shape (rows, columns), the first row at the top, the first column on the left.
    """
    place: list[slice | int] = [slice(None)] * 3
    place[AXIS_OF[plane]] = index
    return turned[tuple(place)].T


def measure_pixel(view: View, plane: PlaneName) -> tuple[float, float]:
    """Height of a row and width of a column of a slice, in millimetres."""
    column, row = np.delete(view.spacing_mm, AXIS_OF[plane])
    return float(row), float(column)
