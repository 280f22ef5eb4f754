"""Slices in order: which of them make one volume, and on which grid."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.dicom.planes import Plane
from metseg.errors import InputError
from metseg.findings import plain_number
from metseg.space.grid import Grid

LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's patient axes point to the left and to posterior, NIfTI's to the right and to anterior."""

GAP_TOLERANCE: Final = 0.01
"""Relative: how far distances between neighbouring slices may differ."""


def order_planes(planes: Sequence[Plane]) -> tuple[NDArray[np.intp], Grid]:
    """Puts slices in order along the direction in which the third index grows.

    Slices that are shifted against each other within their planes, as those of a tilted CT gantry, make a sheared grid.

    Returns:
        Index of each slice in `planes`, and the grid: voxel indices (column, row, slice) to RAS+ millimetres.

    Raises:
        InputError: they make no volume; says why, without a name.
    """
    first = planes[0]
    if not all(plane.is_parallel_to(first) for plane in planes):
        raise InputError("slices of different orientation, size or pixel spacing", hint="Split the series.")
    row, column = np.array(first.orientation, dtype=np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    positions = np.array([plane.position_mm for plane in planes], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    step = _measure_step(positions[order], normal * float(first.thickness_mm or 1))
    row_mm, column_mm = (float(side) for side in first.spacing_mm)
    affine = np.eye(4)
    # Within a row the column index grows along the first direction, by the second of PixelSpacing's values.
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * column_mm, column * row_mm, step
    affine[:3, 3] = positions[order[0]]
    rows, columns = first.shape
    return order, Grid((columns, rows, len(planes)), LPS_TO_RAS @ affine)


def _measure_step(positions: NDArray[np.float64], lone: NDArray[np.float64]) -> NDArray[np.float64]:
    """The way from one slice to the next; `lone` for a single slice."""
    if len(positions) == 1:
        return lone
    steps = np.diff(positions, axis=0)
    mean: NDArray[np.float64] = steps.mean(axis=0)
    size = float(np.linalg.norm(mean))
    if size == 0 or float(np.abs(steps - mean).max()) > GAP_TOLERANCE * size:
        lengths = np.linalg.norm(steps, axis=1)
        shortest, longest = (plain_number(float(length)) for length in (lengths.min(), lengths.max()))
        places = len({tuple(position) for position in positions})
        raise InputError(
            f"{len(positions)} slices at {places} places lie {shortest} to {longest} mm apart, expected equal steps"
            + _count_missing(lengths),
            hint="Slices are missing or doubled, or there are several volumes: export one volume again.",
        )
    return mean


def _count_missing(lengths: NDArray[np.float64]) -> str:
    """How many slices are missing, where the gaps are multiples of the usual step."""
    usual = float(np.median(lengths))
    gaps = lengths / usual if usual > 0 else np.zeros(1)
    whole = np.rint(gaps)
    missing = int(whole.sum()) - len(lengths)
    if whole.min() < 1 or np.abs(gaps - whole).max() > GAP_TOLERANCE * whole.max() or missing > len(lengths):
        return ""
    return f"; {missing} {'is' if missing == 1 else 'are'} missing"
