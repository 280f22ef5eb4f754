"""Series of any size and orientation, label maps with lesions, and two independent readers of RT Structure Sets."""

import logging
import shutil
import subprocess
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest

from dicom_support import LPS_TO_RAS, OBLIQUE, STRAIGHT, converted, short, start_dataset
from report_support import write_labels

pydicom = pytest.importorskip("pydicom")

SAGITTAL = np.stack([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]], axis=1)
DIRECTIONS = {"axial": STRAIGHT, "oblique": OBLIQUE, "sagittal": SAGITTAL}


@dataclass(frozen=True)
class Volume:
    """A series on disk: shape (columns, rows, slices), voxel to RAS mm."""

    folder: object
    shape: tuple[int, int, int]
    affine: np.ndarray

    def points(self):
        """RAS mm of each voxel's centre, shape (3, columns, rows, slices)."""
        index = np.indices(self.shape).reshape(3, -1)
        return (self.affine[:3, :3] @ index + self.affine[:3, 3:]).reshape(3, *self.shape)


def write_volume(folder, direction, shape, spacing, *, centre=(0, 0, 0), modality="MR"):
    """A classic series of empty images around a centre in DICOM's axes."""
    folder.mkdir(parents=True, exist_ok=True)
    uids = [pydicom.uid.generate_uid() for _ in range(3)]
    across, down, normal = direction.T
    origin = np.array(centre) - direction @ ((np.array(shape) - 1) / 2 * spacing)
    for number in range(shape[2]):
        storage = pydicom.uid.MRImageStorage if modality == "MR" else pydicom.uid.CTImageStorage
        data = start_dataset(storage, uids)
        data.Modality, data.InstanceNumber = modality, number + 1
        data.Columns, data.Rows, _ = shape
        data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        data.RescaleIntercept, data.RescaleSlope = 0, 1
        data.ImageOrientationPatient = [*map(short, (*across, *down))]
        data.ImagePositionPatient = [*map(short, origin + number * spacing[2] * normal)]
        data.PixelData = np.zeros((shape[1], shape[0]), dtype=np.uint16).tobytes()
        data.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    return Volume(folder, shape, LPS_TO_RAS @ affine)


def write_map(path, labels, volume):
    """Writes labels of a series' voxels as dcm2niix lays them; returns the path."""
    write_labels(path, *converted(labels, volume.affine))
    return path


def read_back(reader, structure_set, volume, work):
    """Masks of each structure on the series' voxels, by name."""
    return {"plastimatch": read_with_plastimatch, "dicomrttool": read_with_dicomrttool}[reader](
        structure_set, volume, work
    )


def read_with_plastimatch(structure_set, volume, work):
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed (Debian: apt-get install plastimatch)")
    command = ["plastimatch", "convert", f"--input={structure_set}", f"--referenced-ct={volume.folder}"]
    outputs = [f"--output-prefix={work / 'plastimatch'}", "--prefix-format=nii.gz", f"--output-ss-list={work / 'list'}"]
    subprocess.run([*command, *outputs], check=True, capture_output=True, timeout=120)
    names = [line.split("|")[2] for line in (work / "list").read_text().splitlines()]
    found = {}
    for name in names:
        path = work / "plastimatch" / f"{name}.nii.gz"
        if not path.exists():  # it writes no image of an empty structure
            found[name] = np.zeros(volume.shape, dtype=bool)
            continue
        image = nib.load(path)
        found[name] = turn(np.asarray(image.dataobj) > 0, image.affine, volume)
    return found


def read_with_dicomrttool(structure_set, volume, work):
    reading = pytest.importorskip("DicomRTTool.ReaderWriter", reason="dicomrttool is not installed")
    logging.getLogger("DicomRTTool").setLevel(logging.WARNING)
    names = [str(item.ROIName) for item in pydicom.dcmread(structure_set).StructureSetROISequence]
    both = work / "both"
    shutil.copytree(volume.folder, both)
    shutil.copy(structure_set, both / "structures.dcm")
    reader = reading.DicomReaderWriter(Contour_Names=[name.lower() for name in names], arg_max=False, verbose=False)
    reader.walk_through_folders(str(both))
    reader.set_index(0)
    reader.get_images()
    reader._dicom_slice_z_positions = None  # its look-up of slices by z holds for axial ones alone
    reader.get_mask()
    image = reader.dicom_handle
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    masks = np.moveaxis(reader.mask, -1, 0)[1:].transpose(0, 3, 2, 1) > 0
    return {name: turn(mask, LPS_TO_RAS @ affine, volume) for name, mask in zip(names, masks, strict=True)}


def turn(mask, affine, volume):
    """A mask on a grid of the series' voxels, in their order."""
    index = np.argwhere(mask)
    to_volume = np.linalg.inv(volume.affine) @ affine
    exact = index @ to_volume[:3, :3].T + to_volume[:3, 3]
    place = np.rint(exact).astype(int)
    assert not index.size or np.abs(exact - place).max() < 0.02
    turned = np.zeros(volume.shape, dtype=bool)
    turned[tuple(place.T)] = True
    return turned


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())
