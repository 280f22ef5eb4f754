"""Label maps as lists of voxels inside a window: what every score is computed from.

A tumour fills a per cent or so of a head. Scores therefore work on the flat indices of the labelled voxels, inside a
window that just holds both maps, and a dense array appears only where a library needs one.

Axis order: a window is stored as (z, y, x), the memory order of a NIfTI file and the order in which the official 2026
program numbers components (docs/scores.md). Everything that leaves this module - coordinates, spacings - is
(x, y, z).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError

HIGHEST_LABEL = 4
"""Labels of the convention are 0..4 (docs/input.md)."""

Spacing = tuple[float, float, float]
"""Voxel size along x, y and z, in millimetres."""

IntArray = NDArray[np.signedinteger[Any]]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """A box of the source grid.

    Attributes:
        shape_zyx: voxels along each axis.
        start_xyz: source index of the window's first voxel; may be negative, a margin can lie outside the grid.
        spacing_mm: voxel size, (x, y, z).
        grid_voxels: voxels of the whole source grid.
    """

    shape_zyx: tuple[int, int, int]
    start_xyz: tuple[int, int, int]
    spacing_mm: Spacing
    grid_voxels: int

    @property
    def size(self) -> int:
        """Voxels in the window."""
        return int(np.prod(self.shape_zyx))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        x, y, z = self.spacing_mm
        return x * y * z

    def step(self, dx: int, dy: int, dz: int) -> int:
        """Difference of flat index between a voxel and its neighbour at this offset."""
        _, ny, nx = self.shape_zyx
        return (dz * ny + dy) * nx + dx

    def coordinates(self, indices: IntArray) -> IntArray:
        """Window coordinates of flat indices: shape (n, 3), columns x, y, z."""
        z, y, x = np.unravel_index(indices, self.shape_zyx)
        return np.stack([x, y, z], axis=1)

    def source_coordinates(self, indices: IntArray) -> IntArray:
        """Coordinates on the source grid: shape (n, 3), columns x, y, z."""
        coordinates: IntArray = self.coordinates(indices) + np.asarray(self.start_xyz)
        return coordinates

    def mask(self, indices: IntArray) -> NDArray[np.bool_]:
        """Dense mask, shape `shape_zyx`, true at these flat indices."""
        dense = np.zeros(self.size, dtype=np.bool_)
        dense[indices] = True
        return dense.reshape(self.shape_zyx)


@dataclass(frozen=True, slots=True)
class Voxels:
    """The labelled voxels of one label map.

    Attributes:
        indices: flat indices into the window, ascending.
        labels: label of each.
    """

    indices: IntArray
    labels: NDArray[np.uint8]

    def of_region(self, labels: Sequence[int]) -> IntArray:
        """Flat indices of the voxels that carry one of these labels, ascending."""
        member = np.zeros(256, dtype=np.bool_)
        member[list(labels)] = True
        return self.indices[member[self.labels]]


@dataclass(frozen=True, slots=True)
class MapPair:
    """A reference and a prediction in their common window."""

    window: Window
    reference: Voxels
    prediction: Voxels


def pair_maps(reference: NDArray[Any], prediction: NDArray[Any], spacing_mm: Sequence[float], margin: int) -> MapPair:
    """Cuts two label maps down to the window that holds both.

    Args:
        reference: shape (x, y, z), whole numbers 0..4 of any data type.
        prediction: the same.
        spacing_mm: voxel size along x, y, z; positive.
        margin: background voxels to keep on every side, so that neighbours can be reached by adding to a flat index.

    Raises:
        InputError: shapes differ, the maps aren't three-dimensional, a spacing isn't positive, or a value is no label.
    """
    if reference.ndim != 3 or reference.shape != prediction.shape:  # noqa: PLR2004 - three axes
        raise InputError(
            f"reference and prediction must be 3-D and of one shape: found {reference.shape} and {prediction.shape}"
        )
    spacing = [float(side) for side in spacing_mm]
    if len(spacing) != reference.ndim or not all(np.isfinite(side) and side > 0 for side in spacing):
        raise InputError(f"the spacing must be three positive numbers of millimetres: found {tuple(spacing)}")
    maps = [np.ascontiguousarray(check_labels(labels, role).T)
            for labels, role in ((reference, "the reference"), (prediction, "the prediction"))]  # fmt: skip
    shape = maps[0].shape
    found = [np.flatnonzero(labels != 0) for labels in maps]
    points = np.stack(np.unravel_index(np.concatenate(found), shape), axis=1)
    low = points.min(axis=0) if len(points) else np.zeros(3, dtype=np.int64)
    high = points.max(axis=0) if len(points) else np.zeros(3, dtype=np.int64)
    start = low - margin
    window_shape = high - low + 1 + 2 * margin
    window = Window(
        shape_zyx=(int(window_shape[0]), int(window_shape[1]), int(window_shape[2])),
        start_xyz=(int(start[2]), int(start[1]), int(start[0])),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        grid_voxels=int(np.prod(shape)),
    )
    inside = np.ravel_multi_index(tuple((points - start).T), window.shape_zyx)
    reference_inside, prediction_inside = np.split(inside, [len(found[0])])
    return MapPair(
        window=window,
        reference=Voxels(reference_inside, maps[0].ravel()[found[0]]),
        prediction=Voxels(prediction_inside, maps[1].ravel()[found[1]]),
    )


def check_labels(labels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """The map as uint8, once it is certain that it holds nothing but labels 0..4.

    Args:
        labels: any shape and data type; floats are accepted when they are whole numbers.
        name: what to call the map in a message: a file, or "the reference".

    Raises:
        InputError: lists the values that are no label of the convention.
    """
    if labels.dtype == np.bool_:
        return labels.astype(np.uint8)
    if labels.dtype.kind not in "iuf":
        raise InputError(f"{name} must hold numbers: found values of type {labels.dtype}")
    with np.errstate(invalid="ignore"):  # a NaN becomes some number here and is caught by the comparison below
        whole = labels if labels.dtype == np.uint8 else labels.astype(np.uint8)
    if (whole is labels or np.array_equal(whole, labels)) and (whole.size == 0 or whole.max() <= HIGHEST_LABEL):
        return whole
    values = np.unique(labels)
    wrong = values[~np.isin(values, np.arange(HIGHEST_LABEL + 1))]
    listed = ", ".join(f"{value:g}" for value in wrong[:10]) + (", ..." if len(wrong) > 10 else "")  # noqa: PLR2004
    raise InputError(
        f"{name} holds values outside the label convention 0..{HIGHEST_LABEL}: {listed}",
        hint="labels are 0 background, 1 NETC, 2 SNFH, 3 ET, 4 RC; write whole numbers, not probabilities",
    )
