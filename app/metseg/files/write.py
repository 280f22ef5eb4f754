"""Label maps and soft volumes, to NIfTI files."""

import gzip
import io
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.files.atomic import write_atomically
from metseg.files.header import field_layout
from metseg.labels import LabelMap
from metseg.space.grid import FloatVolume

NIFTI_UINT8: Final = 2
NIFTI_INT16: Final = 4
NIFTI_FLOAT32: Final = 16

COMPRESSION_LEVEL: Final = 6
"""A label map is nearly all zeros: a higher level gains nothing."""

VOLUME_COMPRESSION_LEVEL: Final = 1
"""Noise in the last bits makes probabilities hard to compress at any level."""


def write_label_map(path: Path, labels: LabelMap, header: bytes) -> None:
    """Writes a label map that lies exactly where another image lies, such as the source image.

    That image's header is copied bit for bit but for data type, scaling, the offset of the voxels and a trailing fourth
    dimension. A fresh header made from the affine would change the voxel sizes' last bits, which the challenge's scorer
    compares. Header extensions are not copied: they describe how the image was made. The same labels and header give
    the same bytes.

    Args:
        path: ends in `.nii.gz` (compressed) or `.nii`; its folder exists. An existing file is replaced.
        labels: shape (x, y, z), that of the header.
        header: the other image's, such as `Case.source_header`.

    Raises:
        OutputError: it can't be written; nothing is left behind.
        ValueError: the labels are not uint8 or don't have the header's shape (a bug of the caller).
    """
    if labels.dtype != np.uint8:
        raise ValueError(f"labels are {labels.dtype}, expected uint8")
    _write(path, labels, header, NIFTI_UINT8, COMPRESSION_LEVEL)


def write_volume(path: Path, volume: FloatVolume, header: bytes) -> None:
    """Writes a float volume, such as a region's probabilities, the way `write_label_map` does; stored as float32.

    NIfTI has no half precision; a float16 volume is widened.
    """
    _write(path, volume.astype(np.float32, copy=False), header, NIFTI_FLOAT32, VOLUME_COMPRESSION_LEVEL)


def write_image(path: Path, image: FloatVolume, header: bytes) -> None:
    """Writes an image the way `write_label_map` does: as int16 where that loses nothing, else as float32."""
    whole = np.clip(np.rint(image), -(2**15), 2**15 - 1).astype(np.int16)
    if np.array_equal(whole, image):
        _write(path, whole, header, NIFTI_INT16, VOLUME_COMPRESSION_LEVEL)
    else:
        write_volume(path, image, header)


def _write(path: Path, voxels: NDArray[np.generic], header: bytes, datatype: int, level: int) -> None:
    own_header = _header_for(voxels.shape, header, datatype, voxels.dtype.itemsize)
    big_endian = field_layout(header)["sizeof_hdr"] == np.dtype(">i4")
    stored = voxels.astype(voxels.dtype.newbyteorder(">" if big_endian else "<"), copy=False)
    no_extension = bytes(4)
    content = own_header + no_extension + stored.tobytes(order="F")
    write_atomically(path, _gzip(content, level) if path.name.endswith(".gz") else content)


def _header_for(shape: tuple[int, ...], source_header: bytes, datatype: int, itemsize: int) -> bytes:
    """An image's header bytes for other voxels on the same grid."""
    layout = field_layout(source_header)
    header = np.frombuffer(source_header, dtype=layout).copy()[0]
    if tuple(header["dim"][1:4]) != shape:
        raise ValueError(f"voxels have shape {shape}, the header {tuple(header['dim'][1:4])}")
    if header["dim"][0] != len(shape):
        header["dim"][0] = len(shape)
        header["dim"][len(shape) + 1 :] = 1
    header["datatype"] = datatype
    header["bitpix"] = 8 * itemsize
    header["scl_slope"] = 1
    header["scl_inter"] = 0
    header["vox_offset"] = len(source_header) + 4
    block: bytes = header.tobytes()
    return block


def _gzip(content: bytes, level: int) -> bytes:
    """Compressed without file name or time: the same content gives the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=level, mtime=0) as stream:
        stream.write(content)
    return buffer.getvalue()
