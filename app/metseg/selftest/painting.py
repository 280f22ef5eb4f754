"""Soft ellipsoids, of which the self-test's phantoms are made: nothing but exactly rounded arithmetic."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float64]
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Ball:
    """A ball: centre and radius in millimetres from the first voxel's middle."""

    centre: Triple
    radius: float

    @property
    def half_axes(self) -> Triple:
        """As an ellipsoid's."""
        return self.radius, self.radius, self.radius


def ball(shape: tuple[int, int, int], spacing_mm: Triple, centre: Triple, half_axes: Triple) -> Volume:
    """1 inside an ellipsoid, 0 outside, falling over about a millimetre between them."""
    squares = np.zeros(shape)
    for axis, (middle, half) in enumerate(zip(centre, half_axes, strict=True)):
        offset = (np.arange(shape[axis]) * spacing_mm[axis] - middle) / half
        along = [1, 1, 1]
        along[axis] = -1
        squares = squares + (offset * offset).reshape(along)
    distance = (1 - np.sqrt(squares)) * min(half_axes)
    return np.asarray(np.clip(distance + 0.5, 0, 1))


def paint(image: Volume, part: Volume, level: float) -> None:
    """Brings an image to a level where a part is 1, in place."""
    image += part * (level - image)
