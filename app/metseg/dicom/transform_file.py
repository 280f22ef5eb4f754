"""A rigid registration as a caller hands it over: a text file of four rows of four numbers."""

from pathlib import Path
from typing import Final

import numpy as np

from metseg.errors import InputError
from metseg.findings import plain_number
from metseg.space.grid import Affine

RIGID_TOLERANCE: Final = 1e-3
"""How far the rotation's columns may be from unit length and right angles: other programs write four decimals."""

MAX_BYTES: Final = 4096
"""Of the file; sixteen numbers take a tenth of it."""

_HINT: Final = (
    "Write the 4x4 matrix from the label map's world to the series', in RAS millimetres, as four rows of four numbers."
)


def read_registration(path: Path) -> Affine:
    """Reads a rigid registration.

    Args:
        path: text of sixteen numbers, row by row, parted by blanks, commas or lines.

    Returns:
        Shape (4, 4): a point in RAS millimetres of the label map's world to the same point in the series'.

    Raises:
        InputError: the file can't be read, or does not hold a rigid transform.
    """
    try:
        text = path.read_bytes()[:MAX_BYTES].decode()
        numbers = np.array([float(part) for part in text.replace(",", " ").split()], dtype=np.float64)
    except OSError as error:
        raise InputError(f"registration {path}: can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"registration {path}: no numbers alone", hint=_HINT) from error
    matrix: Affine = np.zeros((4, 4))
    if numbers.size != matrix.size or not np.isfinite(numbers).all():
        raise InputError(f"registration {path}: {numbers.size} numbers, expected 16 finite ones", hint=_HINT)
    matrix.flat[:] = numbers
    rotation = matrix[:3, :3]
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 0:
        raise InputError(f"registration {path}: its last row is {matrix[3].tolist()}, expected 0 0 0 1", hint=_HINT)
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        raise InputError(
            f"registration {path}: not rigid (determinant {plain_number(float(np.linalg.det(rotation)))}, expected 1 "
            "and axes at right angles)",
            hint="Export a rigid registration: six degrees of freedom, no scaling.",
        )
    return matrix
