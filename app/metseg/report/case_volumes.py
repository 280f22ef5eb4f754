"""What the lesions of a case are measured and drawn on: label map, images and votes on one grid."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from metseg.labels import LabelMap
from metseg.report.lesions import Votes
from metseg.space.grid import FloatVolume, Grid
from metseg.systems import SOURCE_MODALITY, Modality, System


@dataclass(frozen=True, slots=True)
class CaseVolumes:
    """The volumes of one case, all on one grid.

    Attributes:
        grid: where every volume lies.
        labels: the label map.
        system: what the labels mean.
        images: the images that could be read, by modality; may be empty. A CT is in the window that pictures show.
        votes: the members' votes; None where the members are not known.
        reference: the label map to compare with; None where there is none.
        label_grid: the modality whose grid the label map has.
    """

    grid: Grid
    labels: LabelMap
    system: System
    images: Mapping[Modality, FloatVolume] = field(default_factory=dict)
    votes: Votes | None = None
    reference: LabelMap | None = None
    label_grid: Modality = SOURCE_MODALITY


def apply_window(hounsfield: FloatVolume, window_hu: tuple[float, float]) -> FloatVolume:
    """A CT in a window of its grey scale.

    Args:
        hounsfield: any shape, in Hounsfield units.
        window_hu: the units that become 0 and 1; values outside are clipped.

    Returns:
        Same shape, in [0, 1].
    """
    low, high = window_hu
    scaled = (hounsfield - np.float32(low)) * np.float32(1 / (high - low))
    return np.clip(scaled, 0, 1, out=scaled)
