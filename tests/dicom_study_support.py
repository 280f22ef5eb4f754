"""Whole DICOM studies of a synthetic head: each sequence on an oblique grid of its own, moved, with a CT."""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks.dicom_series import LPS_TO_RAS, make_images, short
from dicom_support import start_dataset
from metseg.space.grid import Grid
from training.cohort.case import simulate_background
from training.cohort.head import build_head
from training.cohort.lesions import place_lesions
from training.cohort.settings import load_settings

VOXEL_MM = 2.5
"""Of the head: a tiny one of the cohort, at 0.4 of its length, in voxels that bring it to full size."""


@dataclass(frozen=True)
class Head:
    """A head, its contrasts on one grid."""

    grid: Grid
    brain: np.ndarray
    images: dict[str, np.ndarray]


@cache
def make_head(seed: int = 3) -> Head:
    """One head of full size; `ct` is in Hounsfield units."""
    settings = load_settings(size="tiny")
    *early, lesion_seed, head_seed = np.random.SeedSequence([seed, 0]).spawn(6)
    anatomy, background, _ = simulate_background(settings, early)
    images, labels, _ = place_lesions(
        background, settings.lesions, np.random.default_rng(lesion_seed), lesion_scale=settings.grid.lesion_scale
    )
    made = {
        name: build_head(
            anatomy,
            image,
            labels,
            settings.ct,
            np.random.default_rng(head_seed),
            white_t1c=background.levels[name].wm,
        )
        for name, image in images.items()
    }
    one = made["t1c"]
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = -VOXEL_MM * (np.array(one.brain.shape) - 1) / 2
    contrasts = {name: 1000 * head.t1c / float(np.percentile(head.t1c, 99)) for name, head in made.items()}
    return Head(Grid(one.brain.shape, affine), one.brain, {**contrasts, "ct": one.hounsfield})


@dataclass(frozen=True)
class Sequence:
    """How a series is acquired.

    Attributes:
        image: contrast of the head.
        tags: of every image.
        spacing_mm: along columns, rows and slices.
        shape: columns, rows, slices.
        turn: of the slices, degrees about x, y, z.
        motion: of the patient, RAS millimetres: a point of the head to where it was.
        noise: standard deviation.
        drop: slices that are missing.
        shear: gantry tilt: shift along rows for each slice, millimetres.
    """

    image: str
    tags: dict[str, Any]
    spacing_mm: tuple[float, float, float] = (1.2, 1.2, 3.0)
    shape: tuple[int, int, int] = (190, 200, 62)
    turn: tuple[float, float, float] = (0, 0, 0)
    motion: np.ndarray = field(default_factory=lambda: np.eye(4))
    noise: float = 8.0
    drop: tuple[int, ...] = ()
    shear: float = 0.0

    def but(self, **tags: Any) -> "Sequence":
        """The same with other tags; None takes one away."""
        return replace(self, tags={**self.tags, **tags})


def times(te, tr, ti=None, *, kind="SE", acquired="2D", **more):
    """The tags of an MR sequence."""
    tags = {"EchoTime": te, "RepetitionTime": tr, "ScanningSequence": kind, "MRAcquisitionType": acquired, **more}
    return tags if ti is None else {**tags, "InversionTime": ti}


def motion(shift_mm=(0, 0, 0), degrees=(0, 0, 0)):
    """A rigid motion about the origin, which is the head's middle."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


T1C = Sequence(
    "t1c",
    times(
        2.9, 2000, 900, kind=["GR", "IR"], acquired="3D", SeriesDescription="t1_mprage_sag_KM", ContrastBolusAgent="Gd"
    ),
    spacing_mm=(1.3, 1.3, 1.3),
    shape=(176, 176, 150),
)
T1N = Sequence(
    "t1n",
    times(12, 550, SeriesDescription="T1 SE tra nativ"),
    turn=(8, -3, 4),
    motion=motion((4, -5, 3), (3, -2, 5)),
)
T2W = Sequence(
    "t2w",
    times(95, 4500, SeriesDescription="T2 TSE ax"),
    turn=(-6, 2, 0),
    motion=motion((-6, 3, 4), (-4, 3, 2)),
)
T2F = Sequence(
    "t2f",
    times(120, 9000, 2500, kind=["SE", "IR"], SeriesDescription="Tra FLAIR"),
    spacing_mm=(1.0, 1.0, 5.0),
    shape=(220, 230, 36),
    turn=(5, 5, -3),
    motion=motion((5, 6, -4), (2, -5, -6)),
)
CT = Sequence(
    "ct",
    {"Modality": "CT", "SeriesDescription": "Planning head", "ConvolutionKernel": "H30s"},
    spacing_mm=(1.0, 1.0, 2.0),
    shape=(230, 240, 90),
    motion=motion((-7, 4, 5), (4, 3, -5)),
)
LOCALISER = replace(
    T1N,
    tags=times(5, 20, kind="GR", SeriesDescription="localizer", ImageType=["ORIGINAL", "PRIMARY"]),
    shape=(64, 64, 3),
)


def acquire(sequence: Sequence, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of the series (column, row, slice) and their affine, RAS."""
    direction = Rotation.from_euler("xyz", sequence.turn, degrees=True).as_matrix()
    lps = np.eye(4)
    lps[:3, :3] = direction * sequence.spacing_mm
    lps[:3, 2] += sequence.shear * direction[:, 1]
    lps[:3, 3] = -lps[:3, :3] @ ((np.array(sequence.shape) - 1) / 2)
    affine = LPS_TO_RAS @ lps
    index = np.linalg.inv(head.grid.affine) @ np.linalg.inv(sequence.motion) @ affine
    outside = -1000.0 if sequence.image == "ct" else 0.0
    voxels = ndimage.affine_transform(
        head.images[sequence.image], index[:3, :3], index[:3, 3], sequence.shape, order=1, cval=outside
    )
    return voxels + sequence.noise * np.random.default_rng(5).standard_normal(sequence.shape), affine


def write_sequence(
    folder: Path, sequence: Sequence, *, head: Head | None = None, study=None, number=1, patient="P1", write=None
) -> str:
    """Writes a series, one file per slice; `write(dataset, path)` saves them in another way. Returns its UID."""
    voxels, affine = acquire(sequence, head or make_head())
    uids = (study or pydicom.uid.generate_uid(), pydicom.uid.generate_uid(), pydicom.uid.generate_uid())
    tags = {"SeriesNumber": number, **sequence.tags}
    folder.mkdir(parents=True, exist_ok=True)
    is_ct = sequence.image == "ct"
    images = make_images(voxels.clip(None, 3071 if is_ct else 4095), affine, tags, uids, is_ct=is_ct, patient=patient)
    for index, data in enumerate(images):
        if index in sequence.drop:
            continue
        path = folder / f"IM{number:02d}{(index * 7919) % 10007:05d}"
        if write is None:
            data.save_as(path, enforce_file_format=True)
        else:
            write(data, path)
    return uids[1]


def write_enhanced_sequence(folder: Path, sequence: Sequence, *, shuffled=False) -> str:
    """Writes a series as one enhanced MR image, its times in functional groups."""
    voxels, affine = acquire(sequence, make_head())
    lps = LPS_TO_RAS @ affine
    columns, rows, thickness = sequence.spacing_mm
    order = np.arange(sequence.shape[2])
    if shuffled:
        np.random.default_rng(0).shuffle(order)

    def item(**tags):
        made = pydicom.Dataset()
        for keyword, value in tags.items():
            setattr(made, keyword, value)
        return made

    data = start_dataset(pydicom.uid.EnhancedMRImageStorage)
    data.Columns, data.Rows = sequence.shape[:2]
    data.NumberOfFrames, data.ImageType = len(order), ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    data.SeriesDescription, data.MRAcquisitionType = sequence.tags["SeriesDescription"], "3D"
    orientation = [*map(short, (*(lps[:3, 0] / columns), *(lps[:3, 1] / rows)))]
    data.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=orientation)],
            PixelMeasuresSequence=[item(PixelSpacing=[rows, columns], SliceThickness=thickness)],
            MRTimingAndRelatedParametersSequence=[item(RepetitionTime=sequence.tags["RepetitionTime"])],
            MREchoSequence=[item(EffectiveEchoTime=sequence.tags["EchoTime"])],
            MRModifierSequence=[item(InversionRecovery="YES", InversionTimes=sequence.tags["InversionTime"])],
        )
    ]
    data.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[*map(short, lps[:3, 3] + int(n) * lps[:3, 2])])],
            PixelValueTransformationSequence=[item(RescaleSlope=1 + int(n) % 2, RescaleIntercept=0)],
        )
        for n in order
    ]
    stored = np.rint(voxels).clip(0, 4095).astype(np.uint16)
    # Every second slice is stored at half its value: each frame has a slope of its own.
    frames = [stored[:, :, n].T // (1 + int(n) % 2) for n in order]
    data.PixelData = np.stack(frames).astype(np.uint16).tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    data.save_as(folder / "IM1", enforce_file_format=True)
    return str(data.SeriesInstanceUID)


USUAL = {"t1c": T1C, "t1n": T1N, "t2w": T2W, "t2f": T2F, "ct": CT}


def write_study(folder: Path, sequences: dict[str, Sequence] | None = None, **more: Any) -> dict[str, str]:
    """Writes series into one folder; returns their UIDs by the names given."""
    study = pydicom.uid.generate_uid()
    return {
        name: write_sequence(folder, sequence, study=study, number=number, **more)
        for number, (name, sequence) in enumerate((sequences or USUAL).items(), 1)
    }


def small(sequence: Sequence) -> Sequence:
    """The same in few voxels, for tests that look at headers."""
    side, slices = 12, min(sequence.shape[2], 40)
    few = (side, side, slices)
    spacing = [mm * now / then for mm, now, then in zip(sequence.spacing_mm, sequence.shape, few, strict=True)]
    return replace(sequence, spacing_mm=tuple(spacing), shape=few, noise=0.0)
