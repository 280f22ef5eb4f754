"""Where the brain ends, and which voxels touch that edge."""

from collections.abc import Iterable
from typing import Final

import cc3d
import numpy as np
from numpy.typing import NDArray

from metseg.space.grid import FloatVolume

FACE_NEIGHBOURS: Final = 6
"""Background is 6-connected: it does not leak through the corner between two brain voxels."""


def find_outside(images: Iterable[FloatVolume]) -> NDArray[np.bool_]:
    """The background around a skull-stripped brain.

    Args:
        images: shape (x, y, z) each, one or more, background exactly 0.

    Returns:
        Same shape: true where every image is 0 and the border of the volume can be reached through such voxels. Zeros
        enclosed by brain are brain. All false for images that were not skull-stripped.
    """
    volumes = iter(images)
    zero = next(volumes) == 0
    for volume in volumes:
        zero &= volume == 0
    parts = cc3d.connected_components(np.pad(zero, 1, constant_values=True), connectivity=FACE_NEIGHBOURS)
    # The padding joins everything that reaches the border into the component of the first voxel.
    outside: NDArray[np.bool_] = (parts == parts[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return outside


def find_touching(voxels: NDArray[np.intp], outside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which voxels lie at the brain's edge.

    Args:
        voxels: shape (3, n): indices.
        outside: see `find_outside`.

    Returns:
        Shape (n,): true for a voxel that is outside, has a face in common with one that is, or lies at the volume's
        border.
    """
    limits = np.array(outside.shape)[:, None] - 1
    found: NDArray[np.bool_] = outside[tuple(voxels)] | ((voxels == 0) | (voxels == limits)).any(axis=0)
    for axis in range(voxels.shape[0]):
        for step in (-1, 1):
            neighbour = voxels.copy()
            neighbour[axis] = np.clip(neighbour[axis] + step, 0, limits[axis, 0])
            found |= outside[tuple(neighbour)]
    return found
