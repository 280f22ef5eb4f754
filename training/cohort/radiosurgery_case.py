"""One synthetic radiosurgery case: a contrast T1 of the whole head, a planning CT elsewhere, one label."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metseg.labels import METASTASIS, SNFH, LabelMap
from metseg.space.grid import Grid
from training.cohort.anatomy import Anatomy
from training.cohort.artefacts import acquire, quantise
from training.cohort.case import ras_to_lps, simulate_background
from training.cohort.case_ids import HEAD_PREFIX, format_case_id
from training.cohort.fields import uniform
from training.cohort.head import Head, build_head, find_cupping, pad_to_head
from training.cohort.lesions import Lesion, place_lesions
from training.cohort.planning_ct import PlanningCt, acquire_ct
from training.cohort.settings import CohortSettings
from training.cohort.simulated import StoredVolume


@dataclass(frozen=True, slots=True)
class RadiosurgeryCase:
    """A complete case.

    Attributes:
        case_id: SYN-SRS-<number>-000.
        t1c: shape `grid.shape`, LPS on disk, int16 or float32, arbitrary units, the whole head.
        labels: same shape, 0 or METASTASIS: what enhances and what it encloses; oedema is not part of it.
        grid: of both.
        brain: same shape: where the brain is, for measuring registration errors; not written.
        ct: the planning CT.
        lesions: what was placed; centres are voxels of the brain's working box.
    """

    case_id: str
    t1c: NDArray[Any]
    labels: LabelMap
    grid: Grid
    brain: NDArray[np.bool_]
    ct: PlanningCt
    lesions: tuple[Lesion, ...]

    @property
    def volumes(self) -> dict[str, StoredVolume]:
        """Both images and the reference."""
        return {
            "ct": StoredVolume(self.ct.voxels, self.ct.grid.affine),
            "t1c": StoredVolume(self.t1c, self.grid.affine),
            "seg": StoredVolume(self.labels, self.grid.affine),
        }

    @property
    def matrices(self) -> dict[str, NDArray[np.float64]]:
        """The known motion, RAS millimetres: what registration has to find."""
        return {"mr-to-ct": self.ct.mr_to_ct}


def generate_radiosurgery_case(settings: CohortSettings, seed: int, index: int) -> RadiosurgeryCase:
    """Simulates one case; the same settings, seed and index give the same case, bit for bit.

    Args:
        settings: the cohort's distributions.
        seed: of the cohort.
        index: number of the case within the cohort, from 0.
    """
    *early, lesion_seed, head_seed, mr_seed, ct_seed = np.random.SeedSequence([seed, index]).spawn(8)
    anatomy, background, acquisitions = simulate_background(settings, early)
    rng = np.random.default_rng(lesion_seed)
    images, labels, lesions = place_lesions(background, settings.lesions, rng, lesion_scale=settings.grid.lesion_scale)
    white = background.levels["t1c"].wm
    head_rng = np.random.default_rng(head_seed)
    head = build_head(anatomy, images["t1c"], labels, settings.ct, head_rng, white_t1c=white)

    rng = np.random.default_rng(mr_seed)
    bias_spacing = settings.artefacts.bias_spacing_mm * anatomy.scale
    image = acquire(head.t1c, head.mask, acquisitions["t1c"], bias_spacing=bias_spacing, rng=rng)
    as_float = bool(rng.random() < settings.artefacts.float_probability)
    t1c = quantise(image, 10 ** uniform(rng, settings.artefacts.scale_log10), as_float=as_float)

    marked = pad_to_head(np.where((labels != 0) & (labels != SNFH), METASTASIS, 0).astype(np.uint8), head)
    grid = lps_grid(head.brain.shape)
    ct = scan_head(head, anatomy, grid, settings, np.random.default_rng(ct_seed))
    return RadiosurgeryCase(
        case_id=format_case_id(HEAD_PREFIX, index),
        t1c=ras_to_lps(t1c),
        labels=ras_to_lps(marked),
        grid=grid,
        brain=ras_to_lps(head.brain),
        ct=ct,
        lesions=lesions,
    )


def scan_head(
    head: Head, anatomy: Anatomy, grid: Grid, settings: CohortSettings, rng: np.random.Generator
) -> PlanningCt:
    """The planning CT of a head.

    Args:
        head: see `build_head`.
        anatomy: of its brain.
        grid: of the head's MR images on disk.
        settings: the cohort's distributions.
        rng: source of randomness.
    """
    shade = find_cupping(head, anatomy.depth, anatomy.scale)
    return acquire_ct(ras_to_lps(head.hounsfield), ras_to_lps(shade), grid, settings.ct, rng, scale=anatomy.scale)


def lps_grid(shape: tuple[int, ...]) -> Grid:
    """1 mm, x to the left, y to the back, the world's origin in the head's middle."""
    x, y, z = shape
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = ((x - 1) / 2, (y - 1) / 2, -(z - 1) / 2)
    return Grid((x, y, z), affine)
