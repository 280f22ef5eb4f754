"""The challenge's labels and the nested regions that the network predicts.

Labels: 0 background, 1 NETC (non-enhancing tumour core), 2 SNFH (surrounding FLAIR hyperintensity), 3 ET (enhancing
tumour); later challenges add 4 RC (resection cavity), which is read and scored but never predicted. Regions, in the
network's channel order: WT = {1, 2, 3}, TC = {1, 3}, ET = {3}. Source: Erdur et al. 2023, section 2.1.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

BACKGROUND: Final = 0
METASTASIS: Final = 1
"""The one label of the radiosurgery system (Hu et al. 2019), which tells no parts of a tumour apart."""
NETC: Final = 1
SNFH: Final = 2
ET: Final = 3
RC: Final = 4

RegionName = Literal["WT", "TC", "ET"]
REGIONS: Final[tuple[RegionName, ...]] = ("WT", "TC", "ET")
REGION_LABELS: Final[dict[RegionName, tuple[int, ...]]] = {
    "WT": (NETC, SNFH, ET),
    "TC": (NETC, ET),
    "ET": (ET,),
}

METASTASIS_REGIONS: Final = ("metastasis",)
"""The one region of the radiosurgery system's networks."""

SystemName = Literal["brats", "radiosurgery"]
"""Which of the two systems a label map is of: its numbers alone don't say what label 1 means."""

LABEL_NAMES: Final[dict[SystemName, dict[int, str]]] = {
    "brats": {NETC: "NETC", SNFH: "SNFH", ET: "ET", RC: "RC"},
    "radiosurgery": {METASTASIS: "metastasis"},
}
"""What the numbers of a system's label maps mean."""

LabelMap = NDArray[np.uint8]
"""Shape (x, y, z), labels 0..4."""

RegionMasks = NDArray[np.bool_]
"""Shape (3, x, y, z), channels WT, TC, ET; where a system knows metastases alone, (1, x, y, z)."""


def whole_tumour(labels: LabelMap) -> NDArray[np.bool_]:
    """Where a map of labels 0..4 shows the whole tumour: everything but background and resection cavity; any shape."""
    mask: NDArray[np.bool_] = (labels != BACKGROUND) & (labels != RC)
    return mask


def region_masks(labels: LabelMap) -> RegionMasks:
    """Splits a label map into its regions.

    Args:
        labels: shape (x, y, z), labels 0..4; 4 (RC) belongs to none of the three regions.

    Returns:
        Shape (3, x, y, z), channels WT, TC, ET.
    """
    member_of = np.zeros((len(REGIONS), 256), dtype=np.bool_)
    for channel, region in enumerate(REGIONS):
        member_of[channel, list(REGION_LABELS[region])] = True
    return np.stack([row[labels] for row in member_of])


def decode_regions(masks: RegionMasks) -> LabelMap:
    """Turns region masks into one label map.

    A single mask is that of metastases, label 1. Of three:

    3 where ET; 1 where TC and not ET; then 2 where WT and not TC: so an ET voxel that is outside TC but inside WT ends
    as 2 (after the authors' AURORA tool).

    Args:
        masks: shape (3, x, y, z), channels WT, TC, ET, or (1, x, y, z).

    Returns:
        Shape (x, y, z), labels 0..3.
    """
    if len(masks) == len(METASTASIS_REGIONS):
        return np.where(masks[0], np.uint8(METASTASIS), np.uint8(BACKGROUND))
    wt, tc, et = masks
    labels = np.zeros(wt.shape, dtype=np.uint8)
    labels[et] = ET
    labels[tc & ~et] = NETC
    labels[wt & ~tc] = SNFH
    return labels
