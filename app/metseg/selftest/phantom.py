"""A small head with three metastases, the same to the last bit everywhere.

Only additions, multiplications, divisions and square roots of float64, which IEEE 754 rounds alike on every machine,
and a generator whose stream numpy has frozen (RandomState): the phantom needs no file, and its hash can be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.selftest.painting import Triple, Volume, ball, paint
from metseg.space.domain import Modality

SHAPE: Final = (112, 128, 80)
SEED: Final = 2023
SCALE: Final = 1000.0
"""Intensities as a scanner would store them; below they are in units of the scaled image (0..1)."""
NOISE: Final = 0.015
AFFINE: Final = ((-1.0, 0, 0, 0), (0, -1.0, 0, 127), (0, 0, 1.0, 0), (0, 0, 0, 1.0))
"""LPS on disk, 1 mm, as cases on the SRI24 atlas."""


@dataclass(frozen=True, slots=True)
class TissueLevels:
    """Intensities of one modality, 0..1."""

    white: float
    grey: float
    fluid: float
    oedema: float
    core: float
    enhancing: float


LEVELS: Final[dict[Modality, TissueLevels]] = {
    "t1n": TissueLevels(white=0.72, grey=0.56, fluid=0.25, oedema=0.52, core=0.36, enhancing=0.52),
    "t1c": TissueLevels(white=0.40, grey=0.34, fluid=0.14, oedema=0.32, core=0.24, enhancing=0.95),
    "t2w": TissueLevels(white=0.30, grey=0.42, fluid=0.95, oedema=0.68, core=0.80, enhancing=0.50),
    "t2f": TissueLevels(white=0.38, grey=0.48, fluid=0.12, oedema=0.88, core=0.62, enhancing=0.66),
}
"""Within the ranges of the synthetic cohort (docs/cohort.md)."""


@dataclass(frozen=True, slots=True)
class Metastasis:
    """Three concentric balls: radii in voxels, 0 for what it lacks."""

    centre: tuple[float, float, float]
    oedema: float
    enhancing: float
    core: float


METASTASES: Final = (
    Metastasis((38, 78, 44), oedema=16, enhancing=9, core=4.5),
    Metastasis((76, 50, 36), oedema=9, enhancing=5, core=0),
    Metastasis((72, 86, 58), oedema=0, enhancing=4, core=0),
)


def make_phantom() -> Mapping[Modality, NDArray[np.int16]]:
    """The phantom's images, shape SHAPE, skull-stripped."""
    generator = np.random.RandomState(SEED)  # the newer generators' streams may change
    images: dict[Modality, NDArray[np.int16]] = {}
    inside = _ellipsoid((55.5, 63.5, 38.0), (47, 57, 36))
    for modality, levels in LEVELS.items():
        image = _paint(levels)
        noise = generator.randint(-1000, 1001, SHAPE) + generator.randint(-1000, 1001, SHAPE)
        image = (image + NOISE * noise / 1000.0) * SCALE
        images[modality] = np.where(inside > 0, np.maximum(np.rint(image), 1), 0).astype(np.int16)
    return images


def _paint(levels: TissueLevels) -> Volume:
    centre = (55.5, 63.5, 38.0)
    image = np.full(SHAPE, levels.grey)
    for part, level in (
        (_ellipsoid(centre, (41, 51, 30)), levels.white),
        (_ellipsoid((46, 66, 42), (4, 14, 7)), levels.fluid),
        (_ellipsoid((65, 66, 42), (4, 14, 7)), levels.fluid),
    ):
        paint(image, part, level)
    for lesion in METASTASES:
        for radius, level in (
            (lesion.oedema, levels.oedema),
            (lesion.enhancing, levels.enhancing),
            (lesion.core, levels.core),
        ):
            if radius:
                paint(image, _ellipsoid(lesion.centre, (radius, radius, radius)), level)
    return image


def _ellipsoid(centre: Triple, half_axes: Triple) -> Volume:
    return ball(SHAPE, (1.0, 1.0, 1.0), centre, half_axes)
