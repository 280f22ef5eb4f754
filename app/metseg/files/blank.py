"""The label map of a case that could not be segmented: empty, on the best grid that its files still tell.

Callers demand a file for every case (the 2023 evaluator fails a whole submission for a missing one), so inside the
image a broken case gets one. It does not mean that there is no tumour: the log and the report say so.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from metseg.files.case import CaseFiles
from metseg.files.image import ImageError, read_shape
from metseg.findings import printable
from metseg.labels import LabelMap
from metseg.systems import SOURCE_MODALITY, Modality

logger = logging.getLogger(__name__)

SRI24_SHAPE: Final = (240, 240, 155)
SRI24_ORIGIN_MM: Final = (0.0, 239.0, 0.0)
"""Grid of the challenge's skull-stripped cases: 1 mm, LPS on disk."""

PREFERENCE: Final[tuple[Modality, ...]] = ("t1c", "t1n", "t2f", "t2w", "ct")
"""Whose header a blank map takes: the first that can be read."""


def blank_label_map(files: CaseFiles, first: Modality = SOURCE_MODALITY) -> tuple[LabelMap, bytes]:
    """Makes an empty label map for a case.

    Args:
        files: the case.
        first: the modality whose header is tried before the others.

    Returns:
        The map, and the header to write it with: that of the first readable modality, else of any image in the case's
        folder, or, when none is readable, one of the SRI24 atlas grid.
    """
    for path in _by_preference(files, first):
        header = _readable_header(path)
        if header is not None:
            return header
    logger.warning("case %s: no readable header; the blank map takes the SRI24 grid", printable(files.case_id))
    return _sri24()


def _by_preference(files: CaseFiles, first: Modality) -> Iterator[Path]:
    for modality in dict.fromkeys((first, *PREFERENCE)):
        if modality in files.images:
            yield files.images[modality]
        yield from files.rivals.get(modality, ())
    yield from files.others


def _readable_header(path: Path) -> tuple[LabelMap, bytes] | None:
    try:
        shape, header = read_shape(path)
    except ImageError:
        return None
    return np.zeros(shape, dtype=np.uint8), header


def _sri24() -> tuple[LabelMap, bytes]:
    import nibabel as nib  # noqa: PLC0415 - slow to import

    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = SRI24_ORIGIN_MM
    header = nib.Nifti1Header()
    header.set_data_shape(SRI24_SHAPE)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    return np.zeros(SRI24_SHAPE, dtype=np.uint8), header.binaryblock
