"""Two independent readers of RT Structure Sets: plastimatch, and DicomRTTool, which fills with OpenCV."""

import logging
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np
import pydicom

from benchmarks.dicom_series import LPS_TO_RAS

READERS: Final = ("plastimatch", "dicomrttool")

Masks = dict[str, np.ndarray]


@dataclass(frozen=True)
class Volume:
    """A series on disk: its folder, shape (columns, rows, slices), voxel to RAS mm."""

    folder: Path
    shape: tuple[int, int, int]
    affine: np.ndarray

    def points(self) -> np.ndarray:
        """RAS mm of each voxel's centre, shape (3, columns, rows, slices)."""
        index = np.indices(self.shape).reshape(3, -1)
        return (self.affine[:3, :3] @ index + self.affine[:3, 3:]).reshape(3, *self.shape)


def find_readers() -> list[str]:
    """Those that are installed."""
    there = {"plastimatch": shutil.which("plastimatch"), "dicomrttool": find_spec("DicomRTTool")}
    return [name for name in READERS if there[name] is not None]


def read_structures(reader: str, structure_set: Path, volume: Volume, work: Path) -> Masks:
    """Masks of each structure on the series' voxels, by name; `work` is an empty folder."""
    return {"plastimatch": _read_with_plastimatch, "dicomrttool": _read_with_dicomrttool}[reader](
        structure_set, volume, work
    )


def _read_with_plastimatch(structure_set: Path, volume: Volume, work: Path) -> Masks:
    command = ["plastimatch", "convert", f"--input={structure_set}", f"--referenced-ct={volume.folder}"]
    outputs = [f"--output-prefix={work / 'plastimatch'}", "--prefix-format=nii.gz", f"--output-ss-list={work / 'list'}"]
    subprocess.run([*command, *outputs], check=True, capture_output=True, timeout=600)
    names = [line.split("|")[2] for line in (work / "list").read_text().splitlines()]
    found = {}
    for name in names:
        path = work / "plastimatch" / f"{name}.nii.gz"
        if not path.exists():  # it writes no image of an empty structure
            found[name] = np.zeros(volume.shape, dtype=bool)
            continue
        image = nib.load(path)
        found[name] = _turn(np.asarray(image.dataobj) > 0, image.affine, volume)
    return found


def _read_with_dicomrttool(structure_set: Path, volume: Volume, work: Path) -> Masks:
    from DicomRTTool.ReaderWriter import DicomReaderWriter  # noqa: PLC0415 - heavy

    logging.getLogger("DicomRTTool").setLevel(logging.WARNING)
    names = [str(item.ROIName) for item in pydicom.dcmread(structure_set).StructureSetROISequence]
    both = work / "both"
    shutil.copytree(volume.folder, both)
    shutil.copy(structure_set, both / "structures.dcm")
    reader = DicomReaderWriter(Contour_Names=[name.lower() for name in names], arg_max=False, verbose=False)
    reader.walk_through_folders(str(both))
    reader.set_index(0)
    reader.get_images()
    reader._dicom_slice_z_positions = None  # noqa: SLF001 - its look-up of slices by z holds for axial ones alone
    reader.get_mask()
    image = reader.dicom_handle
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    masks = np.moveaxis(reader.mask, -1, 0)[1:]
    return {
        name: _turn(mask.transpose(2, 1, 0) > 0, LPS_TO_RAS @ affine, volume)
        for name, mask in zip(names, masks, strict=True)
    }


def _turn(mask: np.ndarray, affine: np.ndarray, volume: Volume) -> np.ndarray:
    """A mask on a grid of the series' voxels, in their order."""
    index = np.argwhere(mask)
    to_volume = np.linalg.inv(volume.affine) @ affine
    exact = index @ to_volume[:3, :3].T + to_volume[:3, 3]
    place = np.rint(exact).astype(int)
    if index.size and np.abs(exact - place).max() >= 0.02:
        raise ValueError(f"the reader's voxels are not the series': {np.abs(exact - place).max():.3f} voxels apart")
    turned = np.zeros(volume.shape, dtype=bool)
    turned[tuple(place.T)] = True
    return turned
