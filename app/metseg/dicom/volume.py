"""The voxels of a stack, on the grid of its slices: nothing is resampled, turned or flipped."""

import numpy as np

from metseg.dicom.reading import HINT_COPY, read_pixels
from metseg.dicom.study import Stack
from metseg.dicom.tags import DicomFileError
from metseg.files.case import Scan
from metseg.files.header import make_header
from metseg.space.grid import times


def read_volume(stack: Stack) -> Scan:
    """Reads the pixels of a stack.

    Args:
        stack: one that makes a volume.

    Returns:
        Voxels indexed (column, row, slice), in the units that the headers promise; a NIfTI header of their grid.

    Raises:
        InputError: a file is truncated, damaged or of a compression that can't be read; or its pixels are not what its
            header says.
        ValueError: the stack makes no volume (a bug of the caller).
    """
    if stack.grid is None:
        raise ValueError(stack.problem)
    columns, rows, _ = stack.grid.shape
    voxels = np.empty(stack.grid.shape, dtype=np.float32, order="F")
    place = {(item.file.path, item.frame): index for index, item in enumerate(stack.slices)}
    files = {item.file.path: item.file for item in stack.slices}
    for path, file in files.items():
        frames = read_pixels(file)
        if frames.shape[1:] != (rows, columns):
            problem = f"its pixels are {times(frames.shape[1:])}, its header says {times((rows, columns))}"
            raise DicomFileError(file.path.name, problem, hint=HINT_COPY)
        for frame, pixels in enumerate(frames):
            index = place.get((path, frame))
            if index is not None:
                voxels[:, :, index] = pixels.T
    return Scan(voxels, stack.grid, make_header(stack.grid))
