"""Blocks cut out of volumes and put back into them; a block may reach beyond the volume.

Volumes are arrays whose last three axes are x, y, z; axes before them, such as channels, stay as they are.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Triple = tuple[int, int, int]
Element = TypeVar("Element", bound=np.generic)
Index = tuple[Any, ...]

SPATIAL_AXES = 3


def cut_repeated(volume: NDArray[Element], start: Triple, size: Triple) -> NDArray[Element]:
    """Cuts a block out and repeats the volume's border where the block reaches beyond it.

    Args:
        volume: shape (..., x, y, z).
        start: first voxel of the block; may be negative.
        size: of the block.

    Returns:
        Shape (..., *size), a copy.
    """
    sides = [
        np.clip(np.arange(first, first + side), 0, limit - 1)
        for first, side, limit in zip(start, size, volume.shape[-SPATIAL_AXES:], strict=True)
    ]
    index: Index = (..., *np.ix_(*sides))
    block: NDArray[Element] = volume[index]
    return block


def cut_padded(volume: NDArray[Element], start: Triple, size: Triple) -> NDArray[Element]:
    """Cuts a block out and fills it with 0 where it reaches beyond the volume; otherwise as `cut_repeated`."""
    return paste(volume, (-start[0], -start[1], -start[2]), size)


def paste(block: NDArray[Element], start: Triple, shape: Triple) -> NDArray[Element]:
    """Puts a block into an empty volume; what reaches beyond it is dropped.

    Args:
        block: shape (..., x, y, z).
        start: where its first voxel comes to lie; may be negative.
        shape: of the volume.

    Returns:
        Shape (..., *shape), 0 outside the block.
    """
    outer = block.shape[:-SPATIAL_AXES]
    volume: NDArray[Element] = np.zeros((*outer, *shape), dtype=block.dtype)
    inside, source = _overlap(start, block.shape[-SPATIAL_AXES:], shape)
    volume[inside] = block[source]
    return volume


def _overlap(start: Triple, sides: Sequence[int], limits: Sequence[int]) -> tuple[Index, Index]:
    """The part of the volume that the block covers, and the part of the block that lies in it; both may be empty."""
    inside: list[slice] = []
    source: list[slice] = []
    for first, side, limit in zip(start, sides, limits, strict=True):
        low = min(max(first, 0), limit)
        high = max(min(first + side, limit), low)
        inside.append(slice(low, high))
        source.append(slice(low - first, high - first))
    return (..., *inside), (..., *source)
