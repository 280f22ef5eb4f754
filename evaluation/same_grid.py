"""Whether two label maps can be scored voxel by voxel, told from their headers alone.

The official scorers compare arrays and the voxel sizes of the headers; they never look at the origin. So an origin
elsewhere is a warning here. The app's `grid_difference` asks another question: whether two images lie in one place.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from evaluation.joint_box import Spacing
from metseg.errors import InputError
from metseg.files.header import ImageError, image_grid, parse_header, voxel_layout, voxel_sizes
from metseg.files.image import read_shape
from metseg.space.grid import Grid

SPACING_TOLERANCE: Final = 1e-3
"""Voxel sides may differ by this share: headers store them as rounded 32-bit floats."""

DIRECTION_TOLERANCE: Final = 1e-2
"""Direction cosines may differ by this much (about half a degree): qform and sform round differently."""

ORIGIN_TOLERANCE_VOXELS: Final = 0.1
"""Origins further apart than this are worth a warning."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MapGrid:
    """Where a label map lies.

    Attributes:
        path: its file.
        grid: its voxels in space.
        spacing_mm: voxel size as the header stores it, see `read_spacing`.
    """

    path: Path
    grid: Grid
    spacing_mm: Spacing

    @property
    def orientation(self) -> str:
        """Where the axes point: LPS, RAS, ..."""
        return "".join(code or "?" for code in nib.aff2axcodes(self.grid.affine))

    @property
    def directions(self) -> NDArray[np.float64]:
        """Shape (3, 3): a column of length 1 for each axis."""
        directions: NDArray[np.float64] = self.grid.affine[:3, :3] / np.asarray(self.grid.spacing_mm)
        return directions


def read_grid(path: Path) -> MapGrid:
    """Reads a label map's header alone.

    Raises:
        InputError: not a NIfTI file that `metseg.files.read.read_label_map` reads, or no usable voxel size.
    """
    try:
        _, block = read_shape(path)
        header = parse_header(block)
        voxel_layout(header)
        grid, _ = image_grid(header)
    except ImageError as error:
        raise ImageError(error.code, f"label map {path}: {error}", hint=error.hint) from None
    return MapGrid(path, grid, read_spacing(block, path))


def read_spacing(header: bytes, path: Path) -> Spacing:
    """The voxel size that the header states, which is what the official scorers multiply by.

    A side of 0 counts as 1 mm and a negative one without its sign, as the official scorers' reader mends them.

    Args:
        header: a NIfTI header's bytes.
        path: its file, for the message.

    Raises:
        InputError: a side is not finite.
    """
    x, y, z = (abs(side) or 1.0 for side in voxel_sizes(header))
    if not np.isfinite([x, y, z]).all():
        raise InputError(f"{path}: the header's voxel size must be positive millimetres: found {x:g} x {y:g} x {z:g}")
    return x, y, z


def check_same_grid(reference: MapGrid, prediction: MapGrid) -> None:
    """Makes sure that two maps can be compared voxel by voxel.

    Raises:
        InputError: names both files and each thing that differs: shape, spacing, orientation.
    """
    differences = []
    if reference.grid.shape != prediction.grid.shape:
        differences.append(f"shape {reference.grid.shape} against {prediction.grid.shape}")
    if not np.allclose(reference.spacing_mm, prediction.spacing_mm, rtol=SPACING_TOLERANCE, atol=0):
        differences.append(f"spacing {_show_sides(reference)} against {_show_sides(prediction)}")
    if reference.orientation != prediction.orientation:
        differences.append(f"orientation {reference.orientation} against {prediction.orientation}")
    elif not np.allclose(reference.directions, prediction.directions, rtol=0, atol=DIRECTION_TOLERANCE):
        differences.append(f"orientation {reference.orientation} in both, but the axes point in different directions")
    if differences:
        raise InputError(
            f"the grids of {reference.path} (reference) and {prediction.path} (prediction) differ: "
            + "; ".join(differences),
            hint="write the prediction on the grid of the case's own images, with their header",
        )
    _warn_of_small_differences(reference, prediction)


def _warn_of_small_differences(reference: MapGrid, prediction: MapGrid) -> None:
    if reference.spacing_mm != prediction.spacing_mm:
        _log.warning(
            "%s: voxel size %s is not bit for bit that of %s, %s: the official 2026 scorer refuses it",
            prediction.path, prediction.spacing_mm, reference.path, reference.spacing_mm,
        )  # fmt: skip
    offset = np.abs(reference.grid.affine[:3, 3] - prediction.grid.affine[:3, 3]) / min(reference.spacing_mm)
    if offset.max() > ORIGIN_TOLERANCE_VOXELS:
        _log.warning(
            "%s: origin %.1f voxels away from that of %s; scored voxel by voxel, as the official scorers do",
            prediction.path, offset.max(), reference.path,
        )  # fmt: skip


def _show_sides(found: MapGrid) -> str:
    return " x ".join(f"{side:g}" for side in found.spacing_mm) + " mm"
