"""Smooth random fields on a grid, made from a few control points: cheap at any size."""

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]
"""Shape (x, y, z), float32."""

# Standard deviation that a cubic B-spline leaves of unit white noise on its control points, per axis.
_SPLINE_STD = 0.6924


def spline_matrix(n_out: int, n_control: int) -> NDArray[np.float32]:
    """The linear map from control points to samples of a uniform cubic B-spline, shape (n_out, n_control)."""
    position = (np.arange(n_out) + 0.5) / n_out * (n_control - 3)
    knot = np.minimum(position.astype(int), n_control - 4)
    u = position - knot
    weights = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1) / 6
    matrix = np.zeros((n_out, n_control), dtype=np.float32)
    for j in range(4):
        matrix[np.arange(n_out), knot + j] = weights[:, j]
    return matrix


def linear_matrix(n_out: int, n_in: int) -> NDArray[np.float32]:
    """Linear interpolation between cell centres, ends held: shape (n_out, n_in)."""
    position = np.clip((np.arange(n_out) + 0.5) / n_out * n_in - 0.5, 0, n_in - 1)
    low = np.minimum(position.astype(int), max(n_in - 2, 0))
    high = np.minimum(low + 1, n_in - 1)
    matrix = np.zeros((n_out, n_in), dtype=np.float32)
    matrix[np.arange(n_out), low] += 1 - (position - low)
    matrix[np.arange(n_out), high] += position - low
    return matrix


def apply_along(volume: Volume, matrix: NDArray[np.float32], axis: int) -> Volume:
    """Multiplies one axis of a volume by a matrix (n_out, n_in)."""
    moved = np.tensordot(matrix, volume, axes=(1, axis))
    return np.ascontiguousarray(np.moveaxis(moved, 0, axis))


def expand(control: Volume, shape: tuple[int, int, int]) -> Volume:
    """Evaluates a grid of cubic B-spline control points on `shape` voxels."""
    a, b, c = (spline_matrix(n, m) for n, m in zip(shape, control.shape, strict=True))
    plane = np.tensordot(a, control, axes=(1, 0))
    plane = np.matmul(b, plane)
    return np.matmul(plane, c.T)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int, int], spacing: float) -> Volume:
    """Draws a smooth Gaussian field of zero mean and unit standard deviation.

    Args:
        rng: source of randomness.
        shape: voxels of the result.
        spacing: distance of the control points in voxels; features are about this large.
    """
    counts = tuple(max(1, round(n / spacing)) + 3 for n in shape)
    control = rng.standard_normal(counts, dtype=np.float32)
    return expand(control / np.float32(_SPLINE_STD**3), shape)


def uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """One draw from a range of the settings."""
    return float(rng.uniform(*ends))
