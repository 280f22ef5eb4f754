"""The phantom of each system: its images, its hash, its files."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.labels import SystemName
from metseg.selftest import head_phantom, phantom
from metseg.space.domain import Modality

CASE_ID: Final = "self-test"


@dataclass(frozen=True, slots=True)
class Phantom:
    """A case made by code.

    Attributes:
        images: of one shape.
        affine: of all of them, 4 rows.
        metastases: how many it has.
    """

    images: Mapping[Modality, NDArray[np.int16]]
    affine: tuple[tuple[float, ...], ...]
    metastases: int

    @property
    def sha256(self) -> str:
        """Hash of the voxels."""
        digest = hashlib.sha256()
        for modality in sorted(self.images):
            digest.update(modality.encode() + np.ascontiguousarray(self.images[modality], dtype="<i2").tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> Path:
        """Writes the phantom as a case and returns the case's folder."""
        import nibabel as nib  # noqa: PLC0415 - slow to import

        case = folder / CASE_ID
        case.mkdir(parents=True)
        for modality, voxels in self.images.items():
            header = nib.Nifti1Header()
            header.set_xyzt_units("mm")
            nib.save(nib.Nifti1Image(voxels, np.array(self.affine), header), case / f"{CASE_ID}-{modality}.nii.gz")
        return case


def phantom_of(system: SystemName) -> Phantom:
    """The phantom for a system's bundles."""
    if system == "radiosurgery":
        return Phantom(head_phantom.make_head(), head_phantom.AFFINE, len(head_phantom.METASTASES))
    return Phantom(phantom.make_phantom(), phantom.AFFINE, len(phantom.METASTASES))
