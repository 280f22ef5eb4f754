"""The outline of a mask in one slice as closed polygons, along the edges of its pixels.

A polygon along the pixels' edges passes no pixel's centre. Every program that fills it finds the same pixels: one that
asks where a pixel's centre lies, and one that rounds the corners to pixels and fills what they enclose.

A hole is joined to the outline around it by a channel without width, there and back (the keyhole technique, DICOM
PS3.3, C.8.8.6.3). The polygons of a slice then mean the same to programs that unite them and to those that combine them
by exclusive or (docs/decisions/061-rtstruct.md).
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""Shape (columns, rows): one slice."""

Polygon = NDArray[np.float64]
"""Shape (points, 2): column and row of each corner in pixels, centres at whole numbers; the last joins the first."""

INSET_PIXELS: Final = 1e-3
"""How far polygons lie inside the pixels' edges. A corner then rounds to a pixel of the mask, pixels that touch at a
corner have polygons that do not, and the area of a single pixel is 0.4 % too small."""

CHANNEL_PIXELS: Final = 0.25
"""How far from the corner of a hole its channel begins: away from other edges and from the pixels' centres."""

_Point = tuple[int, int]

_RIGHT: Final[dict[_Point, _Point]] = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}
"""What lies to the right of a step, as rows grow downwards: outlines are walked with the mask there."""


def trace_mask(mask: Mask) -> list[Polygon]:
    """Outlines a mask.

    Args:
        mask: shape (columns, rows).

    Returns:
        A polygon for each part whose pixels share edges, with its holes joined to it; none for an empty mask. Polygons
        neither cross nor touch each other.
    """
    outlines: list[Polygon] = []
    holes: list[Polygon] = []
    for corners in _walk_loops(mask):
        polygon = _lay_inside(np.array(corners, dtype=np.float64))
        (outlines if _encloses_mask(polygon) else holes).append(polygon)
    for hole in sorted(holes, key=lambda polygon: float(polygon[:, 1].min())):  # what lies above a hole is joined first
        _join_hole(hole, outlines)
    return outlines


def _walk_loops(mask: Mask) -> Iterator[list[_Point]]:
    """The corners of each outline; pixel (c, r) reaches from corner (c, r) to corner (c + 1, r + 1)."""
    steps = _list_steps(mask)
    while steps:
        here = next(iter(steps))
        way = next(iter(steps[here]))
        first, corners = (here, way), list[_Point]()
        while True:
            here = (here[0] + way[0], here[1] + way[1])
            onward = steps[here]
            # Where two pixels touch by a corner alone there are two ways: the right one stays with the same pixel.
            turn = _RIGHT[way] if _RIGHT[way] in onward else next(iter(onward))
            onward.remove(turn)
            if not onward:
                del steps[here]
            if turn != way:
                corners.append(here)
            way = turn
            if (here, way) == first:
                break
        yield corners


def _list_steps(mask: Mask) -> dict[_Point, set[_Point]]:
    """The edges between mask and background: from each corner the ways that one can go with the mask to the right."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    edges = (
        (inside & ~padded[1:-1, :-2], (0, 0), (1, 0)),
        (inside & ~padded[2:, 1:-1], (1, 0), (0, 1)),
        (inside & ~padded[1:-1, 2:], (1, 1), (-1, 0)),
        (inside & ~padded[:-2, 1:-1], (0, 1), (0, -1)),
    )
    steps: dict[_Point, set[_Point]] = {}
    for pixels, start, way in edges:
        for column, row in (np.argwhere(pixels) + start).tolist():
            steps.setdefault((column, row), set()).add(way)
    return steps


def _lay_inside(corners: NDArray[np.float64]) -> Polygon:
    """From the pixels' corners to pixels, a little inside the mask."""
    ways = np.sign(np.roll(corners, -1, axis=0) - corners)
    to_mask = np.stack([-ways[:, 1], ways[:, 0]], axis=1)  # the right of each way
    inside: Polygon = corners - 0.5 + INSET_PIXELS * (to_mask + np.roll(to_mask, 1, axis=0))
    return inside


def _encloses_mask(polygon: Polygon) -> bool:
    column, row = polygon.T
    return bool((column * np.roll(row, -1) - np.roll(column, -1) * row).sum() > 0)


def _join_hole(hole: Polygon, outlines: list[Polygon]) -> None:
    """Joins a hole to what is straight above its topmost edge, by a channel there and back."""
    first = int(np.lexsort((hole[:, 0], hole[:, 1]))[0])  # its topmost edge ends there, at the left
    below = hole[first] + (CHANNEL_PIXELS, 0)
    index, corner, above = _find_above(below, outlines)
    outline, around = outlines[index], np.roll(hole, -first, axis=0)
    outlines[index] = np.concatenate(
        [outline[: corner + 1], [above, below], around, [below, above], outline[corner + 1 :]]
    )


def _find_above(point: NDArray[np.float64], outlines: Sequence[Polygon]) -> tuple[int, int, NDArray[np.float64]]:
    """The first edge straight above a point: its outline, the corner that it starts at, and where it is met."""
    best = (-1, -1, np.array([point[0], -np.inf]))
    for index, outline in enumerate(outlines):
        ends = np.roll(outline, -1, axis=0)
        low, high = np.minimum(outline[:, 0], ends[:, 0]), np.maximum(outline[:, 0], ends[:, 0])
        is_met = (low < point[0]) & (point[0] < high) & (outline[:, 1] < point[1])
        for corner in np.flatnonzero(is_met).tolist():
            if outline[corner, 1] > best[2][1]:
                best = (index, corner, np.array([point[0], outline[corner, 1]]))
    return best
