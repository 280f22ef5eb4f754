"""Small label maps for the tests of the scores."""

import numpy as np
from hypothesis import strategies as st

from metseg.labels import ET

UNIT = (1.0, 1.0, 1.0)


def draw_map(*boxes, shape=(24, 20, 18), label=ET):
    """A map with boxes, each given as (first corner, side lengths)."""
    labels = np.zeros(shape, dtype=np.uint8)
    for corner, sides in boxes:
        labels[tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))] = label
    return labels


def cube(x, y, z, side=3):
    return (x, y, z), (side, side, side)


@st.composite
def map_pairs(draw, shape=(15, 13, 11)):
    """A reference and a prediction of random boxes of all labels: touching, nested, overlapping, at the border."""
    maps = []
    for _ in range(2):
        labels = np.zeros(shape, dtype=np.uint8)
        for _ in range(draw(st.integers(0, 5))):
            corner = [draw(st.integers(0, side - 1)) for side in shape]
            size = [draw(st.integers(1, 4)) for _ in shape]
            box = tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))
            labels[box] = draw(st.integers(1, 4))
        maps.append(labels)
    return tuple(maps)


spacings = st.tuples(*[st.sampled_from([0.5, 0.8594, 1.0, 1.7])] * 3)
