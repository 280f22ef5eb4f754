"""DICOM series of a phantom, of single-frame and of multi-frame images, and label maps on their grid."""

import numpy as np
import pydicom
from scipy.spatial.transform import Rotation

from benchmarks.dicom_series import LPS_TO_RAS, short
from benchmarks.dicom_series import start_dataset as start_image
from metseg.labels import RC

COLUMNS, ROWS, SLICES = 14, 10, 6
STRAIGHT = np.eye(3)
OBLIQUE = Rotation.from_euler("xyz", (10, -20, 15), degrees=True).as_matrix()
ORIGIN = np.array([-50.0, -40.0, 20.0])
SPACING = (0.9, 0.7, 2.5)  # along columns, rows, slices


def series_affine(direction):
    """Voxel (column, row, slice) to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = direction * SPACING
    affine[:3, 3] = ORIGIN
    return LPS_TO_RAS @ affine


def start_dataset(sop_class, uids=None):
    """What every image has, without its place, of the phantom's size; `uids` are study, series, frame of reference."""
    data = start_image(sop_class, uids)
    data.Rows, data.Columns = ROWS, COLUMNS
    return data


def write_series(folder, direction=STRAIGHT, slices=range(SLICES), uid=None, rows=ROWS):
    """A classic MR series; returns voxel (column, row, slice) to RAS mm."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = (pydicom.uid.generate_uid() for _ in range(3))
    across, down, normal = direction.T
    for number in slices:
        data = start_dataset(pydicom.uid.MRImageStorage, (study, uid or series, frame))
        data.InstanceNumber, data.Rows = number + 1, rows
        data.PixelSpacing = [SPACING[1], SPACING[0]]
        data.SliceThickness = SPACING[2]
        data.ImageOrientationPatient = [*across, *down]
        data.ImagePositionPatient = list(ORIGIN + number * SPACING[2] * normal)
        data.PixelData = np.full((rows, COLUMNS), number, dtype=np.uint16).tobytes()
        # Names that do not sort as the slices do.
        data.save_as(folder / f"{(number * 7) % 11:02d}.dcm", enforce_file_format=True)
    return series_affine(direction)


def volume(*, with_rc=False, seed=0):
    labels = np.random.default_rng(seed).integers(0, 4, (COLUMNS, ROWS, SLICES)).astype(np.uint8)
    labels[:, :, 2] = 0  # an empty slice
    if with_rc:
        labels[1, 1, 1] = RC
    return labels


def converted(labels, affine, order=(0, 1, 2), flips=(False, True, False)):
    """As dcm2niix writes it, rows flipped, or otherwise."""
    moved, affine = labels.transpose(order), affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            moved = np.flip(moved, axis)
            affine[:3, 3] += affine[:3, axis] * (moved.shape[axis] - 1)
            affine[:3, axis] *= -1
    return moved, affine


def write_enhanced(path, direction=STRAIGHT, order=range(SLICES), *, shared=("PlaneOrientation", "PixelMeasures")):
    """One enhanced MR image; frame i is slice `order[i]`; groups that are not shared stand in each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    across, down, normal = direction.T
    data = start_dataset(pydicom.uid.EnhancedMRImageStorage)
    data.NumberOfFrames = len(order)

    def item(**tags):
        made = pydicom.Dataset()
        for keyword, value in tags.items():
            setattr(made, keyword, value)
        return made

    def groups(number):
        yield "PlaneOrientation", item(ImageOrientationPatient=[*map(short, (*across, *down))])
        yield "PixelMeasures", item(PixelSpacing=[SPACING[1], SPACING[0]], SliceThickness=SPACING[2])
        yield "PlanePosition", item(ImagePositionPatient=[*map(short, ORIGIN + number * SPACING[2] * normal)])

    def gather(number, *, is_shared):
        return item(**{f"{name}Sequence": [tags] for name, tags in groups(number) if (name in shared) == is_shared})

    data.SharedFunctionalGroupsSequence = [gather(0, is_shared=True)]
    data.PerFrameFunctionalGroupsSequence = [gather(number, is_shared=False) for number in order]
    data.PixelData = np.stack([np.full((ROWS, COLUMNS), number, dtype=np.uint16) for number in order]).tobytes()
    data.save_as(path, enforce_file_format=True)
    return series_affine(direction)
