"""What of a label map is planned on: the core of each lesion, named so that a planning system shows the name whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.labels import LabelMap
from metseg.space.components import Box, Components, find_components
from metseg.space.grid import Grid
from metseg.systems import System

GTV: Final = "GTV"
"""RT ROI Interpreted Type of a gross tumour volume."""

NO_TARGET: Final = ""
"""That of a lesion without core: the standard lets it be empty."""

LONGEST_NAME: Final = 16
"""Characters of a structure's name that planning systems keep apart (Eclipse); the standard allows 64."""

MM3_PER_CC: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Target:
    """One structure to draw.

    Attributes:
        name: at most `LONGEST_NAME` characters, such as `GTV03b 1.24cc`: lesion 3 of the report, its second core.
        description: the same in words.
        interpreted_type: `GTV` or `NO_TARGET`.
        volume_mm3: on the label map's grid.
        box: where it lies in the label map.
        mask: shape of the box.
    """

    name: str
    description: str
    interpreted_type: str
    volume_mm3: float
    box: Box
    mask: NDArray[np.bool_]


def find_targets(labels: LabelMap, grid: Grid, system: System) -> tuple[Target, ...]:
    """The structures of a label map, by lesions as the report numbers them.

    A gross tumour volume is the core of a lesion, without the oedema around it. A lesion with several cores has one
    structure for each, the largest first, told apart by a letter. A lesion without core keeps a structure of its
    whole, which is no gross tumour volume.

    Args:
        labels: shape (x, y, z), of the system.
        grid: of the labels.
        system: what the labels mean.

    Returns:
        The targets; none where the map has no lesion.
    """
    lesions = find_components(system.regions.whole_mask(labels))
    digits = max(2, len(str(lesions.count)))
    targets: list[Target] = []
    for number, (box, mask) in enumerate(_cut_out(lesions), start=1):
        core = mask & system.regions.mask(labels[box], system.regions.core)
        cores = list(_cut_out(find_components(core)))
        for index, (inner, part) in enumerate(cores or [(tuple(slice(0, side) for side in mask.shape), mask)]):
            volume_mm3 = int(part.sum()) * grid.voxel_volume_mm3
            letter = _letters(index) if len(cores) > 1 else ""
            place = tuple(
                slice(outer.start + side.start, outer.start + side.stop) for outer, side in zip(box, inner, strict=True)
            )
            which = f"{number:0{digits}d}{letter}"
            targets.append(
                Target(
                    name=f"{GTV if cores else 'OED'}{which} {_name_volume(volume_mm3)}",
                    description=_describe(number, index, len(cores), volume_mm3, system),
                    interpreted_type=GTV if cores else NO_TARGET,
                    volume_mm3=volume_mm3,
                    box=place,
                    mask=part,
                )
            )
    return tuple(targets)


def _cut_out(components: Components) -> Iterator[tuple[Box, NDArray[np.bool_]]]:
    """The components, the largest first: the box of each, and what of the box belongs to it."""
    order = np.argsort(components.component_of, kind="stable")
    own = np.split(components.voxels[order], np.cumsum(components.sizes)[:-1])
    for index in components.largest_first().tolist():
        places = np.stack(np.unravel_index(own[index], components.shape))
        first, last = places.min(axis=1), places.max(axis=1)
        mask = np.zeros(last - first + 1, dtype=np.bool_)
        mask[tuple(places - first[:, None])] = True
        yield tuple(slice(int(low), int(high) + 1) for low, high in zip(first, last, strict=True)), mask


def _letters(index: int) -> str:
    """From a to z, then aa, ab and so on."""
    before, last = divmod(index, len(ascii_lowercase))
    return (_letters(before - 1) if before else "") + ascii_lowercase[last]


def _name_volume(volume_mm3: float) -> str:
    """In cubic centimetres, with three significant digits and at most seven characters."""
    volume_cc = volume_mm3 / MM3_PER_CC
    decimals = next((places for places, below in ((3, 0.9995), (2, 9.995), (1, 99.95)) if volume_cc < below), 0)
    return f"{volume_cc:.{decimals}f}cc"


def _describe(number: int, index: int, cores: int, volume_mm3: float, system: System) -> str:
    region = system.regions.core if cores else system.regions.whole
    outer = set(system.regions.whole.labels) - set(system.regions.core.labels)
    shown = [label for label in region.labels if cores or label in outer]
    parts = " and ".join(system.label_kinds[label].name for label in shown)
    which = f", core {index + 1} of {cores}" if cores > 1 else ""
    return f"lesion {number}{which}: {parts}{'' if cores else ' alone, not a target'}, {volume_mm3:.0f} mm3"
