"""The brain's mask on t1c's grid, from networks or from a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.files.case import Scan
from metseg.files.image import ImageError, read_image
from metseg.findings import Finding
from metseg.space.rigid import resample_rigid

HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class FoundBrain:
    """Where the brain is.

    Attributes:
        mask: shape of t1c's grid.
        source: what found it, for `import.json`.
        findings: what is odd about it.
    """

    mask: NDArray[np.bool_]
    source: str
    findings: tuple[Finding, ...] = ()


BrainFinder = Callable[[Scan], FoundBrain]
"""Takes t1c."""


def brain_by_networks(source: Scan) -> FoundBrain:
    """Finds the brain with the networks of `weights/brain` (metseg.dicom.brain).

    Raises:
        InputError: there is no brain that could be one.
        WeightsError: the networks are missing or altered.
    """
    from metseg.dicom.brain import extract_brain  # noqa: PLC0415 - heavy

    found = extract_brain(source.voxels, source.grid.affine)
    return FoundBrain(found.mask, found.source, found.findings)


def brain_from_file(path: Path) -> BrainFinder:
    """A finder that takes a mask made elsewhere: any grid that covers t1c's, such as that of another converter."""

    def find(source: Scan) -> FoundBrain:
        from metseg.dicom.brain import weigh_brain  # noqa: PLC0415 - heavy

        try:
            image = read_image(path)
        except ImageError as error:
            raise InputError(f"brain mask {path}: {error}", hint=error.hint) from None
        if not image.voxels.any():
            raise InputError(f"brain mask {path}: it is empty", hint="Give a mask that is 0 outside the brain.")
        soft = (image.voxels > 0).astype(np.float32)
        mask = resample_rigid(soft, image.grid, source.grid, np.eye(4), outside=0.0) >= HALF
        volume_ml = float(mask.sum()) * source.grid.voxel_volume_mm3 / 1000
        if not mask.any():
            raise InputError(
                f"brain mask {path}: lies outside t1c", hint="Give a mask of the same scan, unregistered and unmoved."
            )
        return FoundBrain(mask, "file", weigh_brain(volume_ml))

    return find
