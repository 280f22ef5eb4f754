"""Series of any size and orientation, label maps with lesions, and what other readers of RT Structure Sets see."""

import numpy as np
import pydicom
import pytest

from benchmarks.dicom_series import LPS_TO_RAS, make_images, write_images
from benchmarks.structure_readers import Volume, find_readers, read_structures
from dicom_support import OBLIQUE, STRAIGHT, converted
from report_support import write_labels

SAGITTAL = np.stack([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]], axis=1)
DIRECTIONS = {"axial": STRAIGHT, "oblique": OBLIQUE, "sagittal": SAGITTAL}


def write_volume(folder, direction, shape, spacing, *, centre=(0, 0, 0), modality="MR"):
    """A classic series of empty images around a centre in DICOM's axes."""
    uids = [pydicom.uid.generate_uid() for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    is_ct = modality == "CT"
    empty = np.full(shape, -1024 if is_ct else 0)
    write_images(folder, make_images(empty, LPS_TO_RAS @ affine, {}, uids, is_ct=is_ct))
    return Volume(folder, shape, LPS_TO_RAS @ affine)


def write_map(path, labels, volume):
    """Writes labels of a series' voxels as dcm2niix lays them; returns the path."""
    write_labels(path, *converted(labels, volume.affine))
    return path


def read_back(reader, structure_set, volume, work):
    """Masks of each structure on the series' voxels, by name."""
    if reader not in find_readers():
        where = "Debian: apt-get install plastimatch" if reader == "plastimatch" else "PyPI: DicomRTTool"
        pytest.skip(f"{reader} is not installed ({where})")
    return read_structures(reader, structure_set, volume, work)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())
