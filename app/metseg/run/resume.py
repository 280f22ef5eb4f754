"""Which cases `--resume` leaves alone: those whose label map is whole, and of this case and bundle."""

import logging
from pathlib import Path

import numpy as np

from metseg.errors import InputError
from metseg.files.image import ImageError, read_grid
from metseg.files.read import LabelImage, read_label_map
from metseg.findings import listed, printable
from metseg.labels import BACKGROUND, MAX_LABEL, Regions
from metseg.space.grid import grid_difference

logger = logging.getLogger(__name__)


def is_done(case_id: str, path: Path, image: Path | None, regions: Regions) -> bool:
    """Whether a case's label map is finished work: whole, with the bundle's labels, on the right grid; says why not.

    A failure's blank map looks like that of a case without lesions: both are made again, the latter to the same bytes.

    Args:
        case_id: for the log.
        path: the label map; it need not exist.
        image: whose grid it should have; None where the case lacks it.
        regions: the bundle's.
    """
    if not path.exists():
        return False
    try:
        found = read_label_map(path)
    except InputError as error:
        flaw = str(error)
    else:
        if not found.labels.any():
            logger.info("case %s: segmented again: its label map holds no label", printable(case_id))
            return False
        flaw = find_flaw(found, image, regions)
    if flaw:
        logger.warning("case %s: segmented again: %s", printable(case_id), printable(flaw))
    return not flaw


def find_flaw(found: LabelImage, image: Path | None, regions: Regions) -> str:
    """Why a label map is not of this case and bundle; empty when it is, or when the image can't tell."""
    is_known = np.isin(np.arange(MAX_LABEL + 1), [BACKGROUND, *regions.labels])[found.labels]
    if not is_known.all():
        foreign = [str(label) for label in np.unique(found.labels[~is_known])]
        return f"its label map holds {listed(foreign)}, the bundle's labels are {', '.join(map(str, regions.labels))}"
    try:
        difference = grid_difference(found.grid, read_grid(image)) if image is not None else ""
    except ImageError:  # the case would only fail: what is there stays
        return ""
    return f"its label map is not on the grid of {image}: {difference}" if difference else ""
