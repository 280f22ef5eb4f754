"""One synthetic whole head in every image: t1n, t1c, t2w, t2f with skull and scalp, a planning CT, the brain's mask.

The brain and its lesions are those of the skull-stripped case of the same seed and number.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metseg.labels import LabelMap
from metseg.space.grid import Grid
from training.cohort.artefacts import Acquisition, acquire, quantise
from training.cohort.case import ras_to_lps, simulate_background
from training.cohort.case_ids import ALL_IMAGES_PREFIX, format_case_id
from training.cohort.contrasts import TissueLevels
from training.cohort.fields import Volume, uniform
from training.cohort.head import Head, SurroundingLevels, build_head, pad_to_head, paint_around
from training.cohort.head_settings import HeadSettings
from training.cohort.lesions import Lesion, place_lesions
from training.cohort.planning_ct import PlanningCt
from training.cohort.radiosurgery_case import lps_grid, scan_head
from training.cohort.ranges import Range
from training.cohort.settings import MODALITIES, CohortSettings, Modality
from training.cohort.simulated import StoredVolume


@dataclass(frozen=True, slots=True)
class HeadCase:
    """A complete case.

    Attributes:
        case_id: SYN-HEAD-<number>-000.
        images: modality -> shape `grid.shape`, LPS on disk, int16 or float32, arbitrary units, the whole head.
        labels: same shape, labels 0..3.
        brain: same shape: where the brain is, as skull-stripping would leave it.
        grid: of all of them.
        ct: the planning CT.
        lesions: what was placed; centres are voxels of the brain's working box.
    """

    case_id: str
    images: dict[Modality, NDArray[Any]]
    labels: LabelMap
    brain: NDArray[np.bool_]
    grid: Grid
    ct: PlanningCt
    lesions: tuple[Lesion, ...]

    @property
    def volumes(self) -> dict[str, StoredVolume]:
        """All images, the brain's mask and the reference."""
        found = {str(name): StoredVolume(values, self.grid.affine) for name, values in self.images.items()}
        return {
            "ct": StoredVolume(self.ct.voxels, self.ct.grid.affine),
            **found,
            "brain": StoredVolume(self.brain.astype(np.uint8), self.grid.affine),
            "seg": StoredVolume(self.labels, self.grid.affine),
        }

    @property
    def matrices(self) -> dict[str, NDArray[np.float64]]:
        """The known motion, RAS millimetres: what registration has to find."""
        return {"mr-to-ct": self.ct.mr_to_ct}


def generate_head_case(settings: CohortSettings, seed: int, index: int) -> HeadCase:
    """Simulates one case; the same settings, seed and index give the same case, bit for bit.

    Args:
        settings: the cohort's distributions.
        seed: of the cohort.
        index: number of the case within the cohort, from 0.
    """
    # The first eight as in `generate_case`; the fifth is for remnants of skull-stripping, which a head doesn't have.
    seeds = np.random.SeedSequence([seed, index]).spawn(11)
    anatomy, background, acquisitions = simulate_background(settings, seeds[:4])
    lesion_rng, artefact_rng, file_rng, head_rng, level_rng, ct_rng = map(np.random.default_rng, seeds[5:])
    scale = settings.grid.lesion_scale
    images, labels, lesions = place_lesions(background, settings.lesions, lesion_rng, lesion_scale=scale)
    white = background.levels["t1c"].wm
    head = build_head(anatomy, images["t1c"], labels, settings.ct, head_rng, white_t1c=white)
    whole = _paint_heads(images, head, background.levels, settings.head, level_rng)
    scanner = _Scanner(settings, acquisitions, settings.artefacts.bias_spacing_mm * anatomy.scale)
    grid = lps_grid(head.brain.shape)
    return HeadCase(
        case_id=format_case_id(ALL_IMAGES_PREFIX, index),
        images=scanner.scan(whole, head.mask, artefact_rng, file_rng),
        labels=ras_to_lps(pad_to_head(labels, head)),
        brain=ras_to_lps(head.brain),
        grid=grid,
        ct=scan_head(head, anatomy, grid, settings, ct_rng),
        lesions=lesions,
    )


def _paint_heads(
    images: dict[Modality, Volume],
    head: Head,
    levels: dict[Modality, TissueLevels],
    settings: HeadSettings,
    rng: np.random.Generator,
) -> dict[Modality, Volume]:
    """Ideal images of the whole head."""
    drawn: dict[Modality, tuple[Range, Range]] = {
        "t1n": (settings.marrow_t1n, settings.fat_t1n),
        "t2w": (settings.marrow_t2w, settings.fat_t2w),
        "t2f": (settings.marrow_t2f, settings.fat_t2f),
    }
    painted: dict[Modality, Volume] = {"t1c": head.t1c}
    for modality, (marrow, fat) in drawn.items():
        own = levels[modality]
        around = SurroundingLevels(own.csf, uniform(rng, marrow) * own.wm, uniform(rng, fat) * own.wm)
        painted[modality] = paint_around(pad_to_head(images[modality], head), head.around, around)
    return painted


@dataclass(frozen=True, slots=True)
class _Scanner:
    """What makes files of ideal images."""

    settings: CohortSettings
    acquisitions: dict[Modality, Acquisition]
    bias_spacing: float

    def scan(
        self,
        images: dict[Modality, Volume],
        mask: NDArray[np.bool_],
        artefact_rng: np.random.Generator,
        file_rng: np.random.Generator,
    ) -> dict[Modality, NDArray[Any]]:
        as_float = bool(file_rng.random() < self.settings.artefacts.float_probability)
        files: dict[Modality, NDArray[Any]] = {}
        for modality in MODALITIES:
            gamma = np.exp(self.settings.contrast.gamma_log_std * artefact_rng.standard_normal())
            image = np.power(np.maximum(images[modality], 1e-4), np.float32(gamma))
            acquisition = self.acquisitions[modality]
            image = acquire(image, mask, acquisition, bias_spacing=self.bias_spacing, rng=artefact_rng)
            maximum = 10 ** uniform(file_rng, self.settings.artefacts.scale_log10)
            files[modality] = ras_to_lps(quantise(image, maximum, as_float=as_float))
        return files
