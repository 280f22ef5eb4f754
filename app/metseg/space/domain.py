"""The nouns that cross module borders. Arrays are indexed (x, y, z) in the order of the file they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Modality = Literal["t1n", "t1c", "t2w", "t2f", "ct"]

OWN_GRID: Final[frozenset[Modality]] = frozenset({"ct"})
"""Modalities of another scanner: their grid is their own, and registration brings them to the reference's."""

Affine = NDArray[np.float64]
"""Shape (4, 4): voxel indices to RAS+ millimetres."""

FloatVolume = NDArray[np.float32]
"""Shape (x, y, z)."""


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Where the images of one case lie; nothing has been read yet.

    Attributes:
        case_id: name of the case's folder, opaque; the label map is called `<case_id>.nii.gz`.
        folder: the case's folder.
        images: file of each modality that is present once.
        rivals: files of each modality that is present more than once (`.nii` beside `.nii.gz`): none is preferred,
            reading such a modality is an error.
    """

    case_id: str
    folder: Path
    images: Mapping[Modality, Path]
    rivals: Mapping[Modality, tuple[Path, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grid:
    """A voxel grid in space.

    Attributes:
        shape: voxels along each axis.
        affine: voxel indices to RAS+ millimetres.
    """

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each axis, in millimetres."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, in cubic millimetres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


def sides_in_words(sides_mm: tuple[float, ...]) -> str:
    """Voxel sides for people: `0.6x0.6x2`."""
    return "x".join(f"{side:.4g}" for side in sides_mm)


def spacing_in_words(sides_mm: tuple[float, float, float]) -> str:
    """The same, but one number where all sides are the same: `2`."""
    return sides_in_words(sides_mm[:1] if len(set(sides_mm)) == 1 else sides_mm)


@dataclass(frozen=True, slots=True)
class Scan:
    """An image on a grid of its own.

    Attributes:
        voxels: shape `grid.shape`, finite.
        grid: where they lie.
        header: its NIfTI header as bytes; a label map on this grid copies it.
    """

    voxels: FloatVolume
    grid: Grid
    header: bytes


@dataclass(frozen=True, slots=True)
class Case:
    """One case as read from disk: all modalities on the grid of the reference modality (t1c), but those of OWN_GRID.

    Attributes:
        case_id: see CaseFiles.
        grid: the source grid, that of the reference modality.
        images: shape (x, y, z) each, on `grid`, finite.
        reference_header: the reference modality's NIfTI header as bytes; a written label map copies it.
        warnings: what was odd about the input but did not prevent reading it; a sentence each.
        scans: the images of OWN_GRID.
    """

    case_id: str
    grid: Grid
    images: Mapping[Modality, FloatVolume]
    reference_header: bytes
    warnings: tuple[str, ...] = ()
    scans: Mapping[Modality, Scan] = field(default_factory=dict)
