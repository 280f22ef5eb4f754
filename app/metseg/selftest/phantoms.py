"""The phantoms: small heads with three metastases each."""

from collections.abc import Iterable
from typing import Final

from metseg.errors import WeightsError
from metseg.selftest.painting import Cisterns, Part, Phantom, Triple, ball
from metseg.systems import Modality

_WHITE, _GREY, _FLUID = (0.72, 0.40, 0.30, 0.38), (0.56, 0.34, 0.42, 0.48), (0.25, 0.14, 0.95, 0.12)
_OEDEMA, _ENHANCING, _CORE = (0.52, 0.32, 0.68, 0.88), (0.52, 0.95, 0.50, 0.66), (0.36, 0.24, 0.80, 0.62)
"""Levels of t1n, t1c, t2w and t2f, within the ranges of the synthetic cohort (docs/cohort.md)."""

_MIDDLE: Final = (55.5, 63.5, 38.0)
_LARGE, _MEDIUM, _SMALL = (38.0, 78.0, 44.0), (76.0, 50.0, 36.0), (72.0, 86.0, 58.0)

STRIPPED_HEAD: Final = Phantom(
    modalities=("t1n", "t1c", "t2w", "t2f"),
    shape=(112, 128, 80),
    spacing_mm=(1.0, 1.0, 1.0),
    origin=(0.0, 127.0, 0.0),
    seed=2023,
    around=_GREY,
    tissues=(
        Part(_MIDDLE, (41, 51, 30), _WHITE),
        Part((46, 66, 42), (4, 14, 7), _FLUID),
        Part((65, 66, 42), (4, 14, 7), _FLUID),
    ),
    metastases=(
        (ball(_LARGE, 16, _OEDEMA), ball(_LARGE, 9, _ENHANCING), ball(_LARGE, 4.5, _CORE)),
        (ball(_MEDIUM, 9, _OEDEMA), ball(_MEDIUM, 5, _ENHANCING)),
        (ball(_SMALL, 4, _ENHANCING),),
    ),
    noise=(0.015, 0.015, 0.015, 0.015),
    scale=1000.0,
    lowest=(1.0, 1.0, 1.0, 1.0),
    brain=Part(_MIDDLE, (47, 57, 36), _GREY),
)
"""A skull-stripped head as cases on the SRI24 atlas have it."""

_CENTRE: Triple = (57.5, 69.5, 63.0)
_HEAD_FLUID, _TUMOUR, _NECROSIS = (8.0, 140.0), (40.0, 950.0), (22.0, 240.0)
_WHITE_MATTER: Final = Part(_CENTRE, (37, 49, 43), (30.0, 400.0))

WHOLE_HEAD: Final = Phantom(
    modalities=("ct", "t1c"),
    shape=(116, 140, 64),
    spacing_mm=(1.0, 1.0, 2.0),
    origin=(57.5, 69.5, -63.0),
    seed=2019,
    around=(-1000.0, 0.0),
    tissues=(
        Part(_CENTRE, (52, 64, 58), (20.0, 900.0)),  # scalp
        Part(_CENTRE, (48, 60, 54), (900.0, 100.0)),  # skull
        Part(_CENTRE, (43, 55, 49), _HEAD_FLUID),
        Part(_CENTRE, (41, 53, 47), (37.0, 340.0)),  # grey matter
        _WHITE_MATTER,
    ),
    metastases=(
        (ball((40, 82, 72), 9, _TUMOUR), ball((40, 82, 72), 4.5, _NECROSIS)),
        (ball((76, 50, 56), 5, _TUMOUR),),
        (ball((70, 92, 80), 3.5, _TUMOUR),),
    ),
    noise=(4.0, 12.0),
    scale=1.0,
    lowest=(-1024.0, 0.0),
    cisterns=Cisterns(60, _WHITE_MATTER, (3, 6), _HEAD_FLUID),
)
"""A whole head as a planning CT (Hounsfield units) and a contrast T1 show it.

Both images lie on one grid. The registration runs and is checked as for any case. It finds that nothing is to be moved,
so that its transform is exactly the identity, which no processor rounds otherwise; its check looks at the cisterns. The
head is a small child's, 0.8 litres, and takes a fraction of an adult's time.
"""

PHANTOMS: Final = (STRIPPED_HEAD, WHOLE_HEAD)


def find_phantom(modalities: Iterable[Modality]) -> Phantom:
    """The first phantom that has all of these images.

    Raises:
        WeightsError: none has.
    """
    wanted = set(modalities)
    for phantom in PHANTOMS:
        if wanted <= set(phantom.modalities):
            return phantom
    raise WeightsError(f"no phantom of the self-test has all of {', '.join(sorted(wanted))}")
