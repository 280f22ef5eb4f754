"""From one member's probabilities to its label map."""

import numpy as np

from metseg.labels import BRATS_REGIONS, LabelMap, Regions
from metseg.predict.members import Probabilities


def member_labels(probabilities: Probabilities, threshold: float, regions: Regions = BRATS_REGIONS) -> LabelMap:
    """One member's label map: a region is where its probability is at least the threshold.

    Args:
        probabilities: shape (regions, x, y, z).
        threshold: in (0, 1), compared in float32, as the probabilities are.
        regions: the channels.

    Returns:
        Shape (x, y, z).
    """
    return regions.decode(probabilities >= np.float32(threshold))
