"""What a CT shows as dense as a small bone inside healthy brains: pineal gland, choroid plexus, pallidum, falx."""

from dataclasses import dataclass
from typing import Final, get_args

import numpy as np

from training.cohort.anatomy import Anatomy
from training.cohort.ct_settings import Calcified, CtSettings
from training.cohort.fields import Volume, smooth_field, uniform


@dataclass(frozen=True, slots=True)
class _Site:
    """Where a spot lies.

    Attributes:
        place: in the template, mm MNI: to the right, front, up.
        spread_mm: std of that.
        flatness: thickness from left to right over the length.
    """

    place: tuple[float, float, float]
    spread_mm: tuple[float, float, float] = (1.5, 1.5, 1.5)
    flatness: float = 1.0


SITES: Final[dict[Calcified, tuple[_Site, ...]]] = {
    "pineal": (_Site((0, -27, 2)),),
    "choroid": (_Site((23, -41, 13)), _Site((-23, -41, 13))),
    "pallidum": (_Site((18, -3, 0)), _Site((-18, -3, 0))),
    "falx": (_Site((0, 15, 45), (0, 20, 20), flatness=0.7),),
}

_LUMP_MM: Final = 1.5
"""Size of the lumps that such a spot is made of."""


def calcify(hounsfield: Volume, anatomy: Anatomy, settings: CtSettings, rng: np.random.Generator) -> Volume:
    """An ideal CT of a brain with its calcifications.

    Args:
        hounsfield: shape (x, y, z) of the anatomy.
        anatomy: where things are.
        settings: how often, how large and how dense.
        rng: source of randomness.
    """
    density = np.zeros_like(hounsfield)
    for kind in get_args(Calcified):
        if rng.random() >= settings.calcification_probability[kind]:
            continue
        for site in SITES[kind]:
            spot = _lumps(anatomy, site, uniform(rng, settings.calcification_mm) / 2, rng)
            np.maximum(density, uniform(rng, settings.calcification_hu) * spot, out=density)
    return np.maximum(hounsfield, density * anatomy.mask)


def _lumps(anatomy: Anatomy, site: _Site, radius_mm: float, rng: np.random.Generator) -> Volume:
    """Share of the full density, 0 to 1, around one site."""
    right, front, up = np.array(site.place) + np.array(site.spread_mm) * rng.standard_normal(3)
    squared = (
        ((anatomy.midline - right) / (site.flatness * radius_mm)) ** 2
        + ((anatomy.front - front) / radius_mm) ** 2
        + ((anatomy.height - up) / radius_mm) ** 2
    )
    lumps = 1 + 0.4 * smooth_field(rng, anatomy.mask.shape, _LUMP_MM * anatomy.scale)
    return np.asarray(np.clip(2 * (np.exp(-0.7 * squared) * lumps - 0.25), 0, 1), dtype=np.float32)
