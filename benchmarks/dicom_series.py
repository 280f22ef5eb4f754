"""DICOM series of any volume, one image per slice, as benchmarks and tests write them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
AIR_STORED: Final = 1024
"""What a CT's stored values lie above its Hounsfield units."""


def short(number: float) -> float:
    """As a decimal string of DICOM, 16 characters at most."""
    return float(f"{number:.9f}")


def start_dataset(sop_class: str, uids: Sequence[str] | None = None) -> pydicom.Dataset:
    """What every image has, without its place; `uids` are study, series and frame of reference."""
    data: Any = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    uids = uids or [generate_uid() for _ in range(3)]
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = uids
    data.PatientID, data.PatientName = "P1", "Phantom^One"
    data.PatientBirthDate = data.PatientSex = data.StudyID = data.AccessionNumber = ""
    data.StudyDate, data.StudyTime, data.ReferringPhysicianName = "20240101", "120000", ""
    data.Modality, data.SeriesNumber, data.InstanceNumber = "MR", 3, 1
    data.PositionReferenceIndicator = data.Laterality = ""
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    return data


def make_images(
    voxels: np.ndarray,
    affine: np.ndarray,
    tags: Mapping[str, Any],
    uids: Sequence[str],
    *,
    is_ct: bool = False,
    patient: str = "P1",
) -> Iterator[pydicom.Dataset]:
    """The images of a series, in the order of its slices.

    Args:
        voxels: shape (columns, rows, slices); Hounsfield units for a CT, else 0 to 65535.
        affine: voxel to RAS millimetres.
        tags: of every image; None takes one away.
        uids: study, series and frame of reference.
        is_ct: whether it is a CT.
        patient: PatientID.
    """
    lps = LPS_TO_RAS @ affine
    stored = np.rint(voxels + (AIR_STORED if is_ct else 0)).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)
    columns_mm, rows_mm, _ = np.linalg.norm(lps[:3, :3], axis=0)
    across, down = lps[:3, 0] / columns_mm, lps[:3, 1] / rows_mm
    step_mm = abs(float(np.cross(across, down) @ lps[:3, 2]))
    for index in range(voxels.shape[2]):
        data: Any = start_dataset(CTImageStorage if is_ct else MRImageStorage, uids)
        data.Modality, data.PatientID, data.InstanceNumber = "CT" if is_ct else "MR", patient, index + 1
        data.Columns, data.Rows = voxels.shape[:2]
        data.BitsStored, data.HighBit = 16, 15
        data.PixelSpacing, data.SliceThickness = [short(rows_mm), short(columns_mm)], short(step_mm)
        data.ImageOrientationPatient = [*map(short, (*across, *down))]
        data.ImagePositionPatient = [*map(short, lps[:3, 3] + index * lps[:3, 2])]
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if is_ct else "M"]
        data.BodyPartExamined = "HEAD"
        if is_ct:
            data.RescaleSlope, data.RescaleIntercept = 1, -AIR_STORED
        for keyword, value in tags.items():
            if value is None:
                data.pop(keyword, None)
            else:
                setattr(data, keyword, value)
        data.PixelData = stored[:, :, index].T.tobytes()
        yield data


def write_images(folder: Path, images: Iterator[pydicom.Dataset]) -> None:
    """One file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(images):
        data.save_as(folder / f"{index:03d}.dcm", enforce_file_format=True)
