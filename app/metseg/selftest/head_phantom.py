"""A small whole head as a planning CT and a contrast T1 show it, for bundles of the radiosurgery system.

Made like `metseg.selftest.phantom`, the same to the last bit everywhere. Both images lie on one grid: the registration
runs and is checked as for any case, finds that nothing is to be moved, and the transform is then exactly the identity,
which no processor rounds otherwise. Balls of fluid stand for the ventricles and cisterns that its check looks at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.selftest.painting import Ball, Triple, Volume, ball, paint
from metseg.space.domain import Modality

SHAPE: Final = (116, 140, 64)
SPACING_MM: Final = (1.0, 1.0, 2.0)
AFFINE: Final = ((-1.0, 0, 0, 57.5), (0, -1.0, 0, 69.5), (0, 0, 2.0, -63.0), (0, 0, 0, 1.0))
"""LPS on disk."""

SEED: Final = 2019
CENTRE: Final = (57.5, 69.5, 63.0)
AIR_HU: Final = -1000.0
CISTERNS: Final = 60
NOISE_HU: Final = 4.0
NOISE_T1C: Final = 12.0


@dataclass(frozen=True, slots=True)
class Layer:
    """One tissue: half axes of its ellipsoid in millimetres, Hounsfield units, intensity on the T1."""

    half_axes: Triple
    hounsfield: float
    t1c: float


LAYERS: Final = (
    Layer((52, 64, 58), hounsfield=20, t1c=900),  # scalp
    Layer((48, 60, 54), hounsfield=900, t1c=100),  # skull
    Layer((43, 55, 49), hounsfield=8, t1c=140),  # fluid
    Layer((41, 53, 47), hounsfield=37, t1c=340),  # grey matter
    Layer((37, 49, 43), hounsfield=30, t1c=400),  # white matter
)
"""From outside to inside; 0.8 litres, a small child's head, which takes a fraction of an adult's time."""

FLUID: Final = (8.0, 140.0)
METASTASES: Final = (
    Ball((40, 82, 72), radius=9),
    Ball((76, 50, 56), radius=5),
    Ball((70, 92, 80), radius=3.5),
)
TUMOUR: Final = (40.0, 950.0)
NECROSIS: Final = (22.0, 240.0)


def make_head() -> Mapping[Modality, NDArray[np.int16]]:
    """The phantom's images, shape SHAPE: the CT in Hounsfield units, the T1 in a scanner's."""
    generator = np.random.RandomState(SEED)  # the newer generators' streams may change
    ct, t1c = np.full(SHAPE, AIR_HU), np.zeros(SHAPE)
    for layer in LAYERS:
        _add(ct, t1c, ball(SHAPE, SPACING_MM, CENTRE, layer.half_axes), (layer.hounsfield, layer.t1c))
    for place in _cisterns(generator):
        _add(ct, t1c, ball(SHAPE, SPACING_MM, place.centre, place.half_axes), FLUID)
    for metastasis in METASTASES:
        _add(ct, t1c, ball(SHAPE, SPACING_MM, metastasis.centre, metastasis.half_axes), TUMOUR)
    large = METASTASES[0]
    _add(ct, t1c, ball(SHAPE, SPACING_MM, large.centre, Ball(large.centre, large.radius / 2).half_axes), NECROSIS)
    ct += NOISE_HU * _noise(generator)
    t1c += NOISE_T1C * _noise(generator)
    return {"ct": np.rint(ct).astype(np.int16), "t1c": np.maximum(np.rint(t1c), 0).astype(np.int16)}


def _add(ct: Volume, t1c: Volume, part: Volume, levels: tuple[float, float]) -> None:
    paint(ct, part, levels[0])
    paint(t1c, part, levels[1])


def _cisterns(generator: np.random.RandomState) -> list[Ball]:
    """Balls of fluid within the brain, clear of the metastases."""
    found: list[Ball] = []
    while len(found) < CISTERNS:
        offset = generator.randint(-1000, 1001, 3) / 1000.0
        radius = float(generator.randint(3, 7))
        if (offset * offset).sum() > 1:
            continue
        x, y, z = (float(c + o * half) for c, o, half in zip(CENTRE, offset, LAYERS[-1].half_axes, strict=True))
        if all(_gap_squared((x, y, z), other.centre) > (other.radius + radius + 3) ** 2 for other in METASTASES):
            found.append(Ball((x, y, z), radius))
    return found


def _gap_squared(one: Triple, other: Triple) -> float:
    return sum((a - b) * (a - b) for a, b in zip(one, other, strict=True))


def _noise(generator: np.random.RandomState) -> Volume:
    """Two uniform numbers' sum: between -2 and 2."""
    return np.asarray((generator.randint(-1000, 1001, SHAPE) + generator.randint(-1000, 1001, SHAPE)) / 1000.0)
