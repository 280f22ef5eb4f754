"""Label maps as lists of voxels inside their joint box: what every score is computed from.

A tumour fills a per cent or so of a head. Scores therefore work on the flat indices of the labelled voxels, inside the
smallest box that holds both maps, and a dense array appears only where a library needs one.

Axis order: a box is stored as (z, y, x), the memory order of a NIfTI file and the order in which the official 2026
program numbers components (docs/scores.md). Everything that leaves this module - coordinates, spacings - is
(x, y, z).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.files.read import list_values, whole_labels
from metseg.labels import MAX_LABEL, Region
from metseg.systems import HIGHEST_LABEL

_log = logging.getLogger(__name__)

Spacing = tuple[float, float, float]
"""Voxel size along x, y and z, in millimetres."""

IntArray = NDArray[np.signedinteger[Any]]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JointBox:
    """The part of a grid that holds the labelled voxels of two maps, and a margin around them.

    Attributes:
        shape_zyx: voxels along each axis.
        start_xyz: index on the grid of the box's first voxel; may be negative, a margin can lie outside the grid.
        spacing_mm: voxel size, (x, y, z).
        grid_voxels: voxels of the whole grid.
    """

    shape_zyx: tuple[int, int, int]
    start_xyz: tuple[int, int, int]
    spacing_mm: Spacing
    grid_voxels: int

    @property
    def size(self) -> int:
        """Voxels in the box."""
        return int(np.prod(self.shape_zyx))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        x, y, z = self.spacing_mm
        return x * y * z

    def measure_step(self, dx: int, dy: int, dz: int) -> int:
        """Difference of flat index between a voxel and its neighbour at this offset."""
        _, ny, nx = self.shape_zyx
        return (dz * ny + dy) * nx + dx

    def locate(self, indices: IntArray) -> IntArray:
        """Coordinates in the box of flat indices: shape (n, 3), columns x, y, z."""
        z, y, x = np.unravel_index(indices, self.shape_zyx)
        return np.stack([x, y, z], axis=1)

    def locate_on_grid(self, indices: IntArray) -> IntArray:
        """Coordinates on the whole grid: shape (n, 3), columns x, y, z."""
        coordinates: IntArray = self.locate(indices) + np.asarray(self.start_xyz)
        return coordinates

    def mark(self, indices: IntArray) -> NDArray[np.bool_]:
        """Shape (size,): true at these flat indices."""
        marked = np.zeros(self.size, dtype=np.bool_)
        marked[indices] = True
        return marked

    def to_mask(self, indices: IntArray) -> NDArray[np.bool_]:
        """Dense mask, shape `shape_zyx`, true at these flat indices."""
        return self.mark(indices).reshape(self.shape_zyx)


@dataclass(frozen=True, slots=True)
class LabelledVoxels:
    """The labelled voxels of one label map.

    Attributes:
        indices: flat indices into the joint box, ascending.
        labels: label of each.
    """

    indices: IntArray
    labels: NDArray[np.uint8]

    def select(self, region: Region) -> IntArray:
        """Flat indices of the voxels that belong to a region, ascending."""
        belongs = np.zeros(MAX_LABEL + 1, dtype=np.bool_)
        belongs[list(region.labels)] = True
        return self.indices[belongs[self.labels]]


@dataclass(frozen=True, slots=True)
class MapPair:
    """A reference and a prediction in their joint box."""

    box: JointBox
    reference: LabelledVoxels
    prediction: LabelledVoxels


def pair_maps(reference: NDArray[Any], prediction: NDArray[Any], spacing_mm: Sequence[float], margin: int) -> MapPair:
    """Cuts two label maps down to the box that holds both.

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
    x, y, z = _check_spacing(spacing_mm)
    maps = [np.ascontiguousarray(check_labels(labels, role).T)
            for labels, role in ((reference, "the reference"), (prediction, "the prediction"))]  # fmt: skip
    shape = maps[0].shape
    found = [np.flatnonzero(labels != 0) for labels in maps]
    points = np.stack(np.unravel_index(np.concatenate(found), shape), axis=1)
    low = points.min(axis=0) if len(points) else np.zeros(3, dtype=np.int64)
    high = points.max(axis=0) if len(points) else np.zeros(3, dtype=np.int64)
    start = low - margin
    sides = high - low + 1 + 2 * margin
    box = JointBox(
        shape_zyx=(int(sides[0]), int(sides[1]), int(sides[2])),
        start_xyz=(int(start[2]), int(start[1]), int(start[0])),
        spacing_mm=(x, y, z),
        grid_voxels=int(np.prod(shape)),
    )
    inside = np.ravel_multi_index(tuple((points - start).T), box.shape_zyx)
    reference_inside, prediction_inside = np.split(inside, [len(found[0])])
    return MapPair(
        box=box,
        reference=LabelledVoxels(reference_inside, maps[0].ravel()[found[0]]),
        prediction=LabelledVoxels(prediction_inside, maps[1].ravel()[found[1]]),
    )


def _check_spacing(spacing_mm: Sequence[float]) -> Spacing:
    sides = tuple(float(side) for side in spacing_mm)
    if len(sides) != 3 or not all(np.isfinite(side) and side > 0 for side in sides):  # noqa: PLR2004 - three axes
        raise InputError(f"the spacing must be three positive numbers of millimetres: found {sides}")
    return sides


def check_labels(labels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """The map as uint8, once it is certain that it holds nothing but labels 0..4.

    Args:
        labels: any shape and data type; floats are accepted near whole numbers (`metseg.files.read.whole_labels`).
        name: what to call the map in a message, such as "the reference".

    Raises:
        InputError: lists the values that are no label of the convention.
    """
    if labels.dtype.kind not in "biuf":
        raise InputError(f"{name} must hold numbers: found values of type {labels.dtype}")
    if labels.dtype == np.uint8 and labels.max(initial=0) <= HIGHEST_LABEL:
        return labels  # the usual case, without a copy
    found = whole_labels(labels, HIGHEST_LABEL)
    if found.wrong.size:
        raise InputError(
            f"{name} holds values outside the label convention 0..{HIGHEST_LABEL}: {list_values(found.wrong)}",
            hint="labels are 0 background, 1 NETC, 2 SNFH, 3 ET, 4 RC; write whole numbers, not probabilities",
        )
    if found.rounded.size:
        _log.warning("%s: %s rounded to whole numbers", name, list_values(found.rounded))
    return found.labels
