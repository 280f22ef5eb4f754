"""Heads made by code, the same to the last bit everywhere.

The arithmetic is addition, multiplication, division and square roots of float64, which IEEE 754 rounds alike on every
machine. The generator is the one whose stream numpy has frozen (RandomState). So a phantom needs no file, and its hash
can be compared.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.systems import Modality

CASE_ID: Final = "self-test"
GAP_MM: Final = 3.0
"""Between a cistern and a metastasis, at least."""

Volume = NDArray[np.float64]
Triple = tuple[float, float, float]
Levels = tuple[float, ...]
"""Intensities, one per modality of the phantom."""


@dataclass(frozen=True, slots=True)
class Part:
    """An ellipsoid of one tissue.

    Attributes:
        centre: millimetres from the first voxel's middle.
        half_axes: millimetres.
        levels: of the tissue.
    """

    centre: Triple
    half_axes: Triple
    levels: Levels


def ball(centre: Triple, radius: float, levels: Levels) -> Part:
    """A part with three equal half axes."""
    return Part(centre, (radius, radius, radius), levels)


@dataclass(frozen=True, slots=True)
class Cisterns:
    """Balls of fluid at random places within an ellipsoid, clear of the metastases.

    Attributes:
        count: how many.
        within: the ellipsoid.
        radii: smallest and largest, whole millimetres.
        levels: of the fluid.
    """

    count: int
    within: Part
    radii: tuple[int, int]
    levels: Levels

    def draw(self, generator: np.random.RandomState, metastases: Iterable[Part]) -> Iterator[Part]:
        """The balls, one by one."""
        left = self.count
        while left:
            offset = generator.randint(-1000, 1001, 3) / 1000.0
            radius = float(generator.randint(self.radii[0], self.radii[1] + 1))
            if (offset * offset).sum() > 1:
                continue
            x, y, z = (np.array(self.within.centre) + offset * self.within.half_axes).tolist()
            place = ball((x, y, z), radius, self.levels)
            if all(_gap_squared(place, other) > (other.half_axes[0] + radius + GAP_MM) ** 2 for other in metastases):
                left -= 1
                yield place


def _gap_squared(one: Part, other: Part) -> float:
    return sum((a - b) * (a - b) for a, b in zip(one.centre, other.centre, strict=True))


@dataclass(frozen=True)
class Phantom:
    """What a head is made of.

    Attributes:
        modalities: of its images.
        shape: of its images.
        spacing_mm: of its images.
        origin: where the first voxel's middle lies; the images are stored as LPS.
        seed: of the cisterns and the noise.
        around: levels before anything is painted.
        tissues: painted one over the other.
        metastases: each of concentric parts, from outside to inside.
        noise: half of the largest deviation.
        scale: what levels and noise are multiplied with to give a scanner's intensities.
        lowest: intensity of the images, at least.
        brain: the images are 0 outside of it; None for a head that is not skull-stripped.
        cisterns: painted over the tissues; None for none.
    """

    modalities: tuple[Modality, ...]
    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin: Triple
    seed: int
    around: Levels
    tissues: tuple[Part, ...]
    metastases: tuple[tuple[Part, ...], ...]
    noise: Levels
    scale: float
    lowest: Levels
    brain: Part | None = None
    cisterns: Cisterns | None = None

    @property
    def affine(self) -> NDArray[np.float64]:
        """Shape (4, 4)."""
        affine = np.diag([-self.spacing_mm[0], -self.spacing_mm[1], self.spacing_mm[2], 1.0])
        affine[:3, 3] = self.origin
        return affine

    @cached_property
    def images(self) -> Mapping[Modality, NDArray[np.int16]]:
        """Of all modalities, each of shape `shape`."""
        generator = np.random.RandomState(self.seed)  # the newer generators' streams may change
        outermost = [parts[0] for parts in self.metastases]
        cisterns = self.cisterns.draw(generator, outermost) if self.cisterns else ()
        painted = np.stack([np.full(self.shape, level) for level in self.around])
        for part in (*self.tissues, *cisterns, *chain(*self.metastases)):
            inside = self.cover(part)
            painted += inside * (np.reshape(part.levels, (-1, 1, 1, 1)) - painted)
        return {
            modality: self._digitise(image + noise * self._draw_noise(generator) / 1000.0, lowest)
            for modality, image, noise, lowest in zip(self.modalities, painted, self.noise, self.lowest, strict=True)
        }

    @cached_property
    def sha256(self) -> str:
        """Hash of the voxels."""
        digest = hashlib.sha256()
        for modality in sorted(self.images):
            digest.update(modality.encode() + np.ascontiguousarray(self.images[modality], dtype="<i2").tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> Path:
        """Writes the images as a case and returns the case's folder."""
        import nibabel as nib  # noqa: PLC0415 - slow to import

        case = folder / CASE_ID
        case.mkdir(parents=True)
        for modality, voxels in self.images.items():
            header = nib.Nifti1Header()
            header.set_xyzt_units("mm")
            nib.save(nib.Nifti1Image(voxels, self.affine, header), case / f"{CASE_ID}-{modality}.nii.gz")
        return case

    def cover(self, part: Part) -> Volume:
        """1 inside a part, 0 outside, falling over about a millimetre between them; shape `shape`."""
        squares = np.zeros(self.shape)
        for axis, (middle, half) in enumerate(zip(part.centre, part.half_axes, strict=True)):
            offset = (np.arange(self.shape[axis]) * self.spacing_mm[axis] - middle) / half
            along = [1, 1, 1]
            along[axis] = -1
            squares = squares + (offset * offset).reshape(along)
        distance = (1 - np.sqrt(squares)) * min(part.half_axes)
        return np.asarray(np.clip(distance + 0.5, 0, 1))

    def _draw_noise(self, generator: np.random.RandomState) -> NDArray[np.int_]:
        """The sum of two uniform numbers: from -2000 to 2000."""
        return np.asarray(generator.randint(-1000, 1001, self.shape) + generator.randint(-1000, 1001, self.shape))

    def _digitise(self, image: Volume, lowest: float) -> NDArray[np.int16]:
        voxels = np.maximum(np.rint(image * self.scale), lowest)
        return (voxels if self.brain is None else np.where(self.cover(self.brain) > 0, voxels, 0)).astype(np.int16)
