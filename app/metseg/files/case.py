"""The nouns of a case on disk and in memory. Arrays are indexed (x, y, z) in the order of the file they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metseg.findings import Finding, printable
from metseg.labels import LabelConvention
from metseg.space.grid import FloatVolume, Grid
from metseg.systems import Modality


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Where the images of one case lie; nothing has been read yet.

    Attributes:
        case_id: name of the case's folder, opaque, or what its files' names begin with where many cases lie in one
            folder; the label map is called `<case_id>.nii.gz`.
        folder: where its files lie.
        images: file of each modality that is present once.
        rivals: files of each modality that is present more than once (`.nii` beside `.nii.gz`): none is preferred,
            reading such a modality is an error.
        convention: what label 4 of its reference means, where the user says it (`metseg.files.label_sets`).
        others: images in a folder of the case's own whose names tell nothing.
        findings: what the names alone say: an error where the case can't be used at all.
    """

    case_id: str
    folder: Path
    images: Mapping[Modality, Path]
    rivals: Mapping[Modality, tuple[Path, ...]] = field(default_factory=dict)
    convention: LabelConvention | None = None
    others: tuple[Path, ...] = ()
    findings: tuple[Finding, ...] = ()


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
    """One case as read from disk: all modalities on the grid of the source image (t1c), but those of OWN_GRID.

    Attributes:
        case_id: see CaseFiles.
        grid: the source grid, that of the source image.
        images: shape (x, y, z) each, on `grid`, finite.
        source_header: the source image's NIfTI header as bytes; a written label map copies it.
        warnings: about the images; they did not prevent reading them.
        scans: the images of OWN_GRID.
    """

    case_id: str
    grid: Grid
    images: Mapping[Modality, FloatVolume]
    source_header: bytes
    warnings: tuple[Finding, ...] = ()
    scans: Mapping[Modality, Scan] = field(default_factory=dict)

    @property
    def shown_id(self) -> str:
        """The ID as any terminal or log can show it."""
        return printable(self.case_id)
