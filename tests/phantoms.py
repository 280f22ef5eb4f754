"""Phantoms that several tests share: small heads, and label maps of boxes.

A closed form that one test needs stands in that test. Whole heads with a planning CT and labelled cohorts are made by
`training.cohort`; the self-test's heads by `metseg.selftest.phantoms`.
"""

import math

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from metseg.labels import ET, NETC, SNFH
from metseg.selftest.painting import Part, Phantom
from metseg.systems import MODALITIES

SHAPE = (24, 32, 16)
REPORT_SHAPE = (40, 48, 32)
"""Holds the lesions of `lesion_map`."""
LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
UNIT = (1.0, 1.0, 1.0)

TWO_LESIONS = ((18, 20, 14, 11), (10, 20, 16, 4))
"""For `lesion_map`: the first voxel and the side of each."""

spacings = st.tuples(*[st.sampled_from([0.5, 0.8594, 1.0, 1.7])] * 3)


# ---- heads


def phantom(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A skull-stripped ellipsoid with a ball that is bright in t1c and t2f, one volume per modality."""
    half = tuple((side - 1) / 2 for side in shape)
    brain = Part(half, tuple(math.sqrt(0.8) * side for side in half), (200.0, 250.0, 300.0, 350.0))
    centre = tuple((1 + offset) * side for offset, side in zip((0.2, -0.2, 0.1), half, strict=True))
    lesion = Part(centre, tuple(0.2 * side for side in half), (200.0, 550.0, 300.0, 650.0))
    head = Phantom(
        modalities=MODALITIES,
        shape=shape,
        spacing_mm=UNIT,
        origin=(0.0, 239.0, 0.0),
        seed=seed,
        around=brain.levels,
        tissues=(),
        metastases=((lesion,),),
        noise=(25.0, 25.0, 25.0, 25.0),
        scale=1.0,
        lowest=(1.0, 1.0, 1.0, 1.0),
        brain=brain,
    )
    return {modality: image.astype(np.float32) for modality, image in head.images.items()}


# ---- label maps


def draw_map(*boxes, shape=(24, 20, 18), label=ET):
    """A map with boxes, each given as (first corner, side lengths)."""
    labels = np.zeros(shape, dtype=np.uint8)
    for corner, sides in boxes:
        labels[_box(corner, sides)] = label
    return labels


def cube(x, y, z, side=3):
    """A box for `draw_map`."""
    return (x, y, z), (side, side, side)


def lesion_map(shape=REPORT_SHAPE, boxes=TWO_LESIONS):
    """Cubes of oedema, in each of them enhancement around a necrotic voxel."""
    labels = np.zeros(shape, dtype=np.uint8)
    for x, y, z, side in boxes:
        labels[_box((x, y, z), (side,) * 3)] = SNFH
        labels[_box((x + 1, y + 1, z + 1), (side - 1,) * 3)] = ET
        labels[x + 2, y + 2, z + 2] = NETC
    return labels


@st.composite
def map_pairs(draw, shape=(15, 13, 11)):
    """A reference and a prediction of random boxes of all labels: touching, nested, overlapping, at the border."""
    maps = []
    for _ in range(2):
        labels = np.zeros(shape, dtype=np.uint8)
        for _ in range(draw(st.integers(0, 5))):
            corner = [draw(st.integers(0, side - 1)) for side in shape]
            labels[_box(corner, [draw(st.integers(1, 4)) for _ in shape])] = draw(st.integers(1, 4))
        maps.append(labels)
    return tuple(maps)


def _box(corner, sides):
    return tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))
