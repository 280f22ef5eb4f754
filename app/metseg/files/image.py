"""One NIfTI file: header, grid and voxels, read within bounded memory whatever the file claims.

nibabel interprets the header (header.py). The voxels are read here: memory is taken only for what the file holds, and
a damaged gzip stream is noticed, whose checksum nibabel skips (docs/decisions/056-own-nifti-reader.md).
"""

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.files.foreign import GZIP, SNIFFED_BYTES, name_format
from metseg.files.header import (
    START_BYTES,
    ImageError,
    VoxelLayout,
    header_size,
    image_grid,
    image_shape,
    parse_header,
    states_orientation,
    voxel_layout,
)
from metseg.findings import Finding
from metseg.space.grid import FloatVolume, Grid, times

__all__ = ["Image", "ImageError", "read_grid", "read_image", "read_shape"]

MAX_DEFLATE_RATIO: Final = 1032
"""Bytes that one byte of a deflate stream can become at most (zlib's technical details)."""

CHUNK_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Image:
    """A NIfTI file as read.

    Attributes:
        grid: its voxel grid, from the sform, else the qform, else the voxel sizes alone (as nibabel reads them).
        voxels: shape (x, y, z), Fortran order, scaling applied; may hold NaN and infinities.
        header: the header's 348 (NIfTI-1) or 540 (NIfTI-2) bytes as they are in the file.
        stored_type: number type in the file, such as int16.
        is_oriented: whether the header says where the image lies in space; else its grid is a guess.
        stored_dimensions: how many the file states; more than 3 where the further ones have one element.
        findings: warnings about the header, of no case yet.
    """

    grid: Grid
    voxels: FloatVolume
    header: bytes
    stored_type: str
    stored_dimensions: int
    is_oriented: bool
    findings: tuple[Finding, ...] = ()


def read_image(path: Path) -> Image:
    """Reads a NIfTI-1 or NIfTI-2 single file, compressed or not (told by its content, not by its name).

    Args:
        path: the file; a symbolic link is followed.

    Returns:
        The image; 4-D and higher files whose further sides are 1 count as 3-D.

    Raises:
        ImageError: not a regular file, not readable, not NIfTI, truncated, corrupt, not 3-D, not of a real number type,
            no usable affine, or larger than MAX_VOXELS. Memory beyond what the file really holds is never touched.
    """
    with _opened(path) as (stream, capacity_bytes):
        header_bytes = _read_header(stream)
        header = parse_header(header_bytes)
        layout = voxel_layout(header)
        grid, findings = image_grid(header)
        if layout.offset + layout.n_bytes > capacity_bytes:
            raise _truncated(layout, f"the file can't hold more than {capacity_bytes}")
        _skip(stream, layout.offset - len(header_bytes), layout)
        raw = _read_voxels(stream, layout)
        _finish(stream)
    return Image(
        grid=grid,
        voxels=_as_float(raw, layout),
        header=header_bytes,
        stored_type=layout.dtype.name,
        stored_dimensions=int(header["dim"][0]),
        is_oriented=states_orientation(header),
        findings=findings,
    )


def read_shape(path: Path) -> tuple[tuple[int, int, int], bytes]:
    """Reads only how large an image is, whatever else is wrong with it: for the blank map of a case that failed.

    Returns:
        Its shape, at most MAX_VOXELS, and its header's bytes.

    Raises:
        ImageError: there is no header, or it gives no such shape.
    """
    with _opened(path) as (stream, _):
        header_bytes = _read_header(stream)
    return image_shape(parse_header(header_bytes)), header_bytes


def read_grid(path: Path) -> Grid:
    """Reads only where an image lies, from its header.

    Raises:
        ImageError: there is no header, or it gives no place.
    """
    return image_grid(parse_header(read_shape(path)[1]))[0]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """The decompressed stream and an upper bound of its length; turns every way to fail into an ImageError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ImageError("unreadable", "not a regular file")
        with path.open("rb") as file:
            is_gzip = file.read(2) == GZIP
            file.seek(0)
            if is_gzip:
                with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                    yield stream, status.st_size * MAX_DEFLATE_RATIO
            else:
                yield file, status.st_size
    except FileNotFoundError:
        what = "a symbolic link to a file that does not exist" if path.is_symlink() else "the file does not exist"
        raise ImageError("unreadable", what) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImageError(
            "corrupt",
            f"truncated or corrupt gzip stream ({str(error).lower()})",
        ) from None
    except PermissionError as error:
        raise ImageError(
            "unreadable", f"can't be read: {error.strerror}", hint=f"Let user {os.getuid()} read it."
        ) from None
    except OSError as error:
        raise ImageError("unreadable", f"can't be read: {error.strerror or error}") from None


def _read_header(stream: io.BufferedIOBase) -> bytes:
    start = stream.read(START_BYTES)
    if not start:
        raise ImageError("corrupt", "the file is empty")
    size = header_size(start)
    if size is None:
        more = stream.read(SNIFFED_BYTES - len(start))
        raise _foreign(start + more, is_inside_gzip=isinstance(stream, gzip.GzipFile))
    block = start + stream.read(size - len(start))
    if len(block) < size:
        raise ImageError(
            "corrupt",
            f"truncated: ends after {len(block)} bytes, within the header of {size}",
        )
    return block


def _foreign(start: bytes, *, is_inside_gzip: bool) -> ImageError:
    unknown = f"starts with bytes {start[:START_BYTES].hex(' ')}", "Convert the image to NIfTI."
    what, hint = name_format(start, is_inside_gzip=is_inside_gzip) or unknown
    return ImageError("corrupt", f"not a NIfTI file: {what}", hint=hint)


def _skip(stream: io.BufferedIOBase, n_bytes: int, layout: VoxelLayout) -> None:
    while n_bytes > 0:
        chunk = stream.read(min(n_bytes, CHUNK_BYTES))
        if not chunk:
            raise _truncated(layout, "it ends before the voxels")
        n_bytes -= len(chunk)


def _read_voxels(stream: io.BufferedIOBase, layout: VoxelLayout) -> NDArray[np.uint8]:
    # Untouched pages cost nothing: a file that delivers little commits little, whatever its header claims.
    raw = np.empty(layout.n_bytes, dtype=np.uint8)
    view = raw.data
    done = 0
    while done < layout.n_bytes:
        got = stream.readinto(view[done : done + CHUNK_BYTES])
        if not got:
            raise _truncated(layout, f"it holds {done}")
        done += got
    return raw


def _finish(stream: io.BufferedIOBase) -> None:
    """Reads a little on, so that a compressed stream that ends with the voxels has its checksum compared."""
    stream.read(CHUNK_BYTES)


def _truncated(layout: VoxelLayout, found: str) -> ImageError:
    return ImageError(
        "corrupt",
        f"truncated: the header promises {times(layout.shape)} {layout.dtype.name} voxels in {layout.n_bytes} bytes, "
        f"{found}",
    )


def _as_float(raw: NDArray[np.uint8], layout: VoxelLayout) -> FloatVolume:
    stored = raw.view(layout.dtype).reshape(layout.shape, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 becomes infinite and is counted as such later
        if layout.slope is None or (layout.slope == 1 and layout.intercept == 0):
            return stored.astype(np.float32, order="F", copy=False)
        voxels = np.empty(layout.shape, dtype=np.float32, order="F")
        for z in range(layout.shape[2]):
            voxels[:, :, z] = stored[:, :, z] * np.float64(layout.slope) + layout.intercept
    return voxels
