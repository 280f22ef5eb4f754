"""Cases and label maps, from and to NIfTI files."""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.files.atomic import remove_partials, write_atomically
from metseg.files.header import ImageError, field_layout
from metseg.files.image import Image, read_image
from metseg.files.rules import examine_case
from metseg.findings import Problem, listed, printable
from metseg.labels import RC, LabelMap
from metseg.space.domain import OWN_GRID, Case, CaseFiles, FloatVolume, Grid, Modality, Scan

__all__ = ["read_case", "read_label_map", "remove_partials", "write_label_map", "write_volume"]

NIFTI_UINT8: Final = 2
NIFTI_FLOAT32: Final = 16

COMPRESSION_LEVEL: Final = 6
"""A label map is nearly all zeros: a higher level gains nothing."""

VOLUME_COMPRESSION_LEVEL: Final = 1
"""Noise in the last bits makes probabilities hard to compress at any level."""


def read_case(files: CaseFiles, *, modalities: Sequence[Modality], reference: Modality = "t1c") -> Case:
    """Reads a case's images and makes sure that they can be used (docs/input.md).

    Args:
        files: where they lie.
        modalities: those to read; all of them must be there. May leave out the reference, whose grid and header are
            then those of the first modality named.
        reference: the modality whose grid the others must have (those of OWN_GRID keep theirs) and whose header a
            written label map copies.

    Returns:
        Images in float32, finite, on one grid, axes in the file's order.

    Raises:
        InputError: names every problem of the case, as `metseg check` does.
    """
    problems: list[Problem] = []
    images: dict[Modality, Image] = {}
    for examined in examine_case(files, required=modalities, reference=reference):
        problems += examined.problems
        if examined.image is not None:
            images[examined.modality] = examined.image
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        hints = dict.fromkeys(problem.hint for problem in errors if problem.hint)
        what = "; ".join(problem.what for problem in errors)
        raise InputError(f"case {printable(files.case_id)}: {what}", hint=" ".join(hints))
    first = images[reference if reference in images else modalities[0]]
    return Case(
        case_id=files.case_id,
        grid=first.grid,
        images={modality: images[modality].voxels for modality in modalities if modality not in OWN_GRID},
        reference_header=first.header,
        warnings=tuple(problem.what for problem in problems),
        scans={
            modality: Scan(images[modality].voxels, images[modality].grid, images[modality].header)
            for modality in modalities
            if modality in OWN_GRID
        },
    )


def read_label_map(path: Path) -> tuple[LabelMap, Grid]:
    """Reads a label map of any number type that holds the labels 0 to 4 only.

    Args:
        path: NIfTI, compressed or not; floats that are whole numbers are accepted.

    Returns:
        Labels in the file's axis order, and their grid.

    Raises:
        InputError: unreadable (see `metseg.files.image.read_image`), or values that are no label, which it lists.
    """
    try:
        image = read_image(path)
    except ImageError as error:
        raise ImageError(error.code, f"label map {path}: {error}", hint=error.hint) from None
    voxels = image.voxels
    with np.errstate(invalid="ignore"):  # NaN becomes some number and then differs from itself
        labels = voxels.astype(np.uint8)
    if not np.array_equal(labels, voxels) or labels.max() > RC:
        values = np.unique(voxels[~np.isin(voxels, np.arange(RC + 1, dtype=np.float32))])
        raise ImageError(
            "labels",
            f"label map {path}: holds {listed([f'{value:g}' for value in values])}, "
            f"expected whole numbers from 0 to {RC}",
            hint="Give a label map, not an image or probabilities.",
        )
    return labels, image.grid


def write_label_map(path: Path, labels: LabelMap, reference_header: bytes) -> None:
    """Writes a label map that lies exactly where the reference image lies.

    The reference's header is copied bit for bit but for data type, scaling, the offset of the voxels and a trailing
    fourth dimension: a fresh header made from the affine would change the voxel sizes' last bits, which the challenge's
    scorer compares. Header extensions are not copied: they describe how the reference image was made. The same labels
    and header give the same bytes.

    Args:
        path: ends in `.nii.gz` (compressed) or `.nii`; its folder exists. An existing file is replaced.
        labels: shape (x, y, z), that of the reference.
        reference_header: see `Case.reference_header`.

    Raises:
        OutputError: it can't be written; nothing is left behind.
        ValueError: the labels are not uint8 or don't have the header's shape (a bug of the caller).
    """
    if labels.dtype != np.uint8:
        raise ValueError(f"labels are {labels.dtype}, expected uint8")
    _write(path, labels, reference_header, NIFTI_UINT8, COMPRESSION_LEVEL)


def write_volume(path: Path, volume: FloatVolume, reference_header: bytes) -> None:
    """Writes a float volume, such as a region's probabilities, the way `write_label_map` does; stored as float32.

    NIfTI has no half precision; a float16 volume is widened.
    """
    _write(path, volume.astype(np.float32, copy=False), reference_header, NIFTI_FLOAT32, VOLUME_COMPRESSION_LEVEL)


def _write(path: Path, voxels: NDArray[np.generic], reference_header: bytes, datatype: int, level: int) -> None:
    header = _header_for(voxels.shape, reference_header, datatype, voxels.dtype.itemsize)
    big_endian = field_layout(reference_header)["sizeof_hdr"] == np.dtype(">i4")
    stored = voxels.astype(voxels.dtype.newbyteorder(">" if big_endian else "<"), copy=False)
    no_extension = bytes(4)
    content = header + no_extension + stored.tobytes(order="F")
    write_atomically(path, _gzip(content, level) if path.name.endswith(".gz") else content)


def _header_for(shape: tuple[int, ...], reference_header: bytes, datatype: int, itemsize: int) -> bytes:
    """The reference's header bytes for other voxels on the same grid."""
    layout = field_layout(reference_header)
    header = np.frombuffer(reference_header, dtype=layout).copy()[0]
    if tuple(header["dim"][1:4]) != shape:
        raise ValueError(f"voxels have shape {shape}, the header {tuple(header['dim'][1:4])}")
    if header["dim"][0] != len(shape):
        header["dim"][0] = len(shape)
        header["dim"][len(shape) + 1 :] = 1
    header["datatype"] = datatype
    header["bitpix"] = 8 * itemsize
    header["scl_slope"] = 1
    header["scl_inter"] = 0
    header["vox_offset"] = len(reference_header) + 4
    block: bytes = header.tobytes()
    return block


def _gzip(content: bytes, level: int) -> bytes:
    """Compressed without file name or time: the same content gives the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=level, mtime=0) as stream:
        stream.write(content)
    return buffer.getvalue()
