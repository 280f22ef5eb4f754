"""What a NIfTI header says: shape, number type, where the voxels lie in the file and in space; and what it must say.

nibabel interprets the fields. Nothing here reads voxels or allocates by what a header claims.
"""

import logging
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from metseg.errors import InputError
from metseg.findings import Finding, FindingCode, printable, sides_in_words, warning
from metseg.space.grid import Grid, corner_shift_mm, times

MAX_VOXELS: Final = 512**3
"""Larger images are refused: the largest seen in the challenge's data has 512x512x176, a third of this. Bounds the
source grid and, as cubic millimetres, the 1 mm network grid: a case can never need more than 0.5 GiB a channel."""

SPACING_RANGE_MM: Final = (0.05, 20.0)
"""Voxel sides that can be a brain MRI; a header in metres or micrometres falls outside."""

MAX_COORDINATE_MM: Final = 1e6
"""No scanner's coordinates reach a kilometre; beyond, sums lose the voxel's place."""

MIN_DETERMINANT: Final = 0.1
"""Volume of a voxel over the product of its sides: 1 for right angles, 0 for axes that coincide."""

MAX_FORM_SHIFT_VOXELS: Final = 0.5
"""How far qform and sform may disagree: beyond it, programs that read the other form than this one move the labels."""

SHEAR_TOLERANCE: Final = 1e-4
"""Cosine of the angle between two axes: beyond it they are not at right angles (a CT with a tilted gantry)."""

MAX_EXTENSION_BYTES: Final = 64 * 2**20
"""Header extensions are skipped, up to this."""

MAX_ITEM_BYTES: Final = 8
"""float128 is not portable: refused."""

N_AXES: Final = 3

MAX_DIMENSIONS: Final = 7
"""Of NIfTI itself."""

START_BYTES: Final = 4
"""The first field, sizeof_hdr, tells version and byte order."""

DEFAULT_HINTS: Final[dict[FindingCode, str]] = {
    "corrupt": "Copy, download or convert the file again.",
    "unreadable": "Give a file that exists and can be read.",
}

_VERSIONS: Final[dict[bytes, tuple[Literal["nifti1", "nifti2"], Literal["<", ">"]]]] = {
    (348).to_bytes(START_BYTES, "little"): ("nifti1", "<"),
    (348).to_bytes(START_BYTES, "big"): ("nifti1", ">"),
    (540).to_bytes(START_BYTES, "little"): ("nifti2", "<"),
    (540).to_bytes(START_BYTES, "big"): ("nifti2", ">"),
}
_HEADER_BYTES: Final = {"nifti1": 348, "nifti2": 540}
_MAGIC: Final = {"nifti1": b"n+1", "nifti2": b"n+2"}

_silent = logging.getLogger("metseg.files.header.nibabel")  # what is wrong is said here, in our words
_silent.disabled = True


class ImageError(InputError):
    """An image file that can't be used.

    Attributes:
        code: what kind of problem it is.
    """

    def __init__(self, code: FindingCode, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint or DEFAULT_HINTS.get(code, ""))
        self.code: FindingCode = code


@dataclass(frozen=True, slots=True)
class VoxelLayout:
    """Where the voxels lie in the file and how to read them."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float | None
    intercept: float

    @property
    def n_bytes(self) -> int:
        """How many bytes the header promises."""
        x, y, z = self.shape
        return x * y * z * self.dtype.itemsize


def header_size(start: bytes) -> int | None:
    """Length of the header that starts with these START_BYTES bytes; None where they start none."""
    return _HEADER_BYTES[_VERSIONS[start][0]] if start in _VERSIONS else None


def parse_header(block: bytes) -> Any:
    """The header as nibabel understands it, unchecked.

    Raises:
        ImageError: it is not that of a single file.
    """
    from nibabel import Nifti1Header, Nifti2Header  # noqa: PLC0415 - half a second that `--help` and `info` do without

    version, byte_order = _VERSIONS[block[:START_BYTES]]
    header_class: Any = {"nifti1": Nifti1Header, "nifti2": Nifti2Header}[version]
    header = header_class(block, endianness=byte_order, check=False)
    magic = bytes(header["magic"])[:3]
    if magic != _MAGIC[version]:
        raise ImageError(
            "corrupt",
            f"not a single-file NIfTI: magic {printable(magic.decode('latin-1'))!r}, "
            f"expected {_MAGIC[version].decode()!r}",
            hint="Convert .hdr/.img pairs and ANALYZE files to .nii.gz.",
        )
    return header


def voxel_layout(header: Any) -> VoxelLayout:
    """Where the voxels lie in the file and how to read them.

    Raises:
        ImageError: not 3-D, too large, not of a real number type, or an impossible offset.
    """
    shape = image_shape(header)
    dtype, slope, intercept = _number_type(header)
    offset = float(header["vox_offset"])
    data_start = int(header["sizeof_hdr"]) + 4  # the extension flag
    if offset == 0:
        offset = data_start
    if not data_start <= offset <= MAX_EXTENSION_BYTES:  # also catches NaN
        raise ImageError("corrupt", f"vox_offset is {offset:g}, expected {data_start} to {MAX_EXTENSION_BYTES}")
    return VoxelLayout(shape, dtype, int(offset), slope, intercept)


def image_shape(header: Any) -> tuple[int, int, int]:
    """Voxels along x, y and z; at most MAX_VOXELS in all. Further dimensions of one element don't count.

    Raises:
        ImageError: not 3-D, or too large.
    """
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= MAX_DIMENSIONS:
        raise ImageError("corrupt", f"the header claims {dim[0]} dimensions, expected 3")
    sides = dim[1 : dim[0] + 1]
    if len(sides) < N_AXES or any(side != 1 for side in sides[N_AXES:]):
        raise ImageError(
            "not-3d",
            f"not 3-D: {len(sides)}-D with {times(sides)} voxels",
            hint="Give one 3-D volume for each modality.",
        )
    if any(side < 1 for side in sides):
        raise ImageError("corrupt", f"the header claims {times(sides)} voxels")
    x, y, z = sides[:N_AXES]
    if x * y * z > MAX_VOXELS:
        raise ImageError(
            "too-large",
            f"the header claims {times(sides)} voxels, more than {MAX_VOXELS} (512x512x512) are refused",
            hint="Check the header; crop the image if it is right.",
        )
    return x, y, z


def _number_type(header: Any) -> tuple[np.dtype[Any], float | None, float]:
    """The stored type, and the slope and intercept, the slope None where the header asks for no scaling."""
    from nibabel.spatialimages import HeaderDataError  # noqa: PLC0415

    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
        name = dtype.name
    except (HeaderDataError, KeyError):
        dtype, name = np.dtype("V1"), "unknown"
    if dtype.kind not in "iuf" or dtype.itemsize > MAX_ITEM_BYTES:
        raise ImageError(
            "data-type",
            f"data type {name} (code {code}) can't be used, expected integers or floats of 8 to 64 bits",
            hint="Convert the image to int16 or float32.",
        )
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise ImageError("corrupt", f"scaling can't be read: {error}") from None
    return dtype, slope, 0.0 if intercept is None else float(intercept)


def image_grid(header: Any) -> tuple[Grid, tuple[Finding, ...]]:
    """Where the voxels lie in space, from the sform, else the qform, else the voxel sizes alone; and warnings.

    Raises:
        ImageError: that is nowhere: no finite affine, impossible voxel sizes, axes that coincide, too large an extent.
    """
    from nibabel.spatialimages import HeaderDataError  # noqa: PLC0415

    fixed = header.copy()
    what = ""
    try:
        with np.errstate(all="ignore"):  # whatever comes out is checked below
            fixed.check_fix(logger=_silent)  # what nibabel mends by itself when it loads a file: qfac 0 counts as 1
            affine = np.asarray(fixed.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
        raise ImageError("affine", f"no usable affine: {error}", hint="Repair the header's qform or sform.") from None
    grid = Grid(image_shape(header), affine)
    _check_affine(grid)
    if not states_orientation(fixed):
        what = "the header states no orientation (qform and sform codes are 0): left and right are a guess"
    elif fixed["qform_code"] > 0 and fixed["sform_code"] > 0:
        shift = _disagreement_voxels(fixed, grid)
        if shift > MAX_FORM_SHIFT_VOXELS:
            what = f"qform and sform disagree by {shift:.1f} voxels: the sform is used"
    return grid, (warning("orientation", what),) if what else ()


def states_orientation(header: Any) -> bool:
    """Whether the header says where the image lies in space at all."""
    return int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0


def _check_affine(grid: Grid) -> None:
    hint = "Repair the header's qform or sform; the unit must be millimetres."
    if not np.isfinite(grid.affine).all():
        raise ImageError("affine", "the affine holds NaN or infinity", hint=hint)
    largest = float(np.abs(grid.affine).max())
    if largest > MAX_COORDINATE_MM:
        raise ImageError(
            "affine", f"the affine holds {largest:g} mm, at most {MAX_COORDINATE_MM:g} is expected", hint=hint
        )
    spacing = grid.spacing_mm
    low, high = SPACING_RANGE_MM
    sides = sides_in_words(spacing)
    if not all(low <= side <= high for side in spacing):
        raise ImageError("affine", f"voxels of {sides} mm, expected sides of {low:g} to {high:g} mm", hint=hint)
    if grid.voxel_volume_mm3 < MIN_DETERMINANT * float(np.prod(spacing)):
        raise ImageError("affine", "the affine's axes (nearly) coincide", hint=hint)
    if float(np.prod(spacing)) * float(np.prod(grid.shape, dtype=np.float64)) > MAX_VOXELS:
        raise ImageError(
            "too-large",
            f"{times(grid.shape)} voxels of {sides} mm are more than {MAX_VOXELS} mm3 (512 mm cubed)",
            hint="Check the header; crop the image if it is right.",
        )


def _disagreement_voxels(header: Any, grid: Grid) -> float:
    """How far apart qform and sform put the image's corners, in units of the smallest voxel side; inf when unusable."""
    from nibabel.spatialimages import HeaderDataError  # noqa: PLC0415

    try:
        with np.errstate(all="ignore"):
            other = np.asarray(header.get_qform(), dtype=np.float64)
            shift = corner_shift_mm(grid, Grid(grid.shape, other)) / min(grid.spacing_mm)
    except (HeaderDataError, ValueError):
        return float("inf")
    return shift if np.isfinite(shift) else float("inf")


def field_layout(header: bytes) -> np.dtype[np.void]:
    """Names and places of a NIfTI header's fields, in its byte order."""
    from nibabel import nifti1, nifti2  # noqa: PLC0415 - see parse_header

    version, byte_order = _VERSIONS[header[:START_BYTES]]
    layout: np.dtype[np.void] = {"nifti1": nifti1.header_dtype, "nifti2": nifti2.header_dtype}[version]
    return layout.newbyteorder(byte_order)


def voxel_sizes(header: bytes) -> tuple[float, float, float]:
    """The sides that the header states in `pixdim`, in its unit and exact: what the challenge's scorer compares.

    They may differ from the affine's in the last bits, or altogether where a program changed only the one.
    """
    x, y, z = np.frombuffer(header, dtype=field_layout(header))[0]["pixdim"][1:4]
    return float(x), float(y), float(z)


def make_header(grid: Grid) -> bytes:
    """A NIfTI-1 header for an image on a grid, in scanner coordinates; whoever writes voxels sets their type.

    A sheared grid has an sform alone: a quaternion can't say it.
    """
    from nibabel import Nifti1Header  # noqa: PLC0415 - heavy
    from nibabel.affines import voxel_sizes as sizes_of  # noqa: PLC0415

    header = Nifti1Header(endianness="<")
    header.set_data_shape(grid.shape)
    header.set_data_dtype(np.float32)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code="scanner")
    axes = grid.affine[:3, :3] / sizes_of(grid.affine)
    if np.abs(axes.T @ axes - np.eye(N_AXES)).max() < SHEAR_TOLERANCE:
        header.set_qform(grid.affine, code="scanner")
    else:
        header["pixdim"][1 : N_AXES + 1] = grid.spacing_mm
    header["magic"] = _MAGIC["nifti1"]
    block: bytes = header.binaryblock
    return block
