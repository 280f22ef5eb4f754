"""One synthetic case from its seed and number: anatomy, contrasts, distractors, lesions, artefacts."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metseg.labels import LabelMap
from training.cohort.anatomy import Anatomy, draw_anatomy
from training.cohort.artefacts import Acquisition, acquire, draw_acquisitions, quantise, stretch_tail
from training.cohort.case_ids import STRIPPED_PREFIX, format_case_id
from training.cohort.contrasts import Background, TissueLevels, draw_levels, paint_healthy
from training.cohort.distractors import add_distractors
from training.cohort.fields import Volume, smooth_field, uniform
from training.cohort.lesions import Lesion, place_lesions
from training.cohort.operation import operate
from training.cohort.settings import MODALITIES, CohortSettings, Modality
from training.cohort.simulated import StoredVolume


@dataclass(frozen=True, slots=True)
class SyntheticCase:
    """A complete case in the challenge's layout, LPS on disk like BraTS's SRI24 files.

    Attributes:
        case_id: SYN-MET-<number>-000.
        images: modality -> shape (x, y, z) as `affine` says, int16 or float32, arbitrary units, 0 outside the brain.
        labels: same shape, labels 0..3, and 4 in an operated brain.
        affine: 4x4, voxel to RAS millimetres.
        lesions: what was placed; centres are voxels of these arrays.
    """

    case_id: str
    images: dict[Modality, NDArray[Any]]
    labels: LabelMap
    affine: NDArray[np.float64]
    lesions: tuple[Lesion, ...]

    @property
    def volumes(self) -> dict[str, StoredVolume]:
        """The images and the reference."""
        found = {str(name): StoredVolume(values, self.affine) for name, values in self.images.items()}
        return {**found, "seg": StoredVolume(self.labels, self.affine)}

    @property
    def matrices(self) -> dict[str, NDArray[np.float64]]:
        """Its images lie on one grid."""
        return {}


def lps_affine(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """The affine of BraTS's SRI24 files: 1 mm, x to the left, y to the back, origin (0, 239, 0) for 240 rows."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = shape[1] - 1
    return affine


def ras_to_lps(volume: NDArray[Any]) -> NDArray[Any]:
    """Turns a volume around, as files mostly lie on disk."""
    return np.ascontiguousarray(volume[::-1, ::-1])


def simulate_background(
    settings: CohortSettings, seeds: list[np.random.SeedSequence]
) -> tuple[Anatomy, Background, dict[Modality, Acquisition]]:
    """The stages before the lesions: anatomy, contrasts and distractors, with the acquisition to come.

    Args:
        settings: the cohort's distributions.
        seeds: four independent seeds.
    """
    anatomy_rng, contrast_rng, distractor_rng, acquisition_rng = (np.random.default_rng(s) for s in seeds)
    anatomy = draw_anatomy(settings, anatomy_rng)
    levels = draw_levels(settings.contrast, contrast_rng)
    healthy = paint_healthy(anatomy, levels, settings.contrast, contrast_rng)
    images = add_distractors(healthy, levels, anatomy, settings.distractors, distractor_rng)
    acquisitions = draw_acquisitions(settings.artefacts, anatomy.scale, acquisition_rng)
    background = Background(
        images=images,
        levels=levels,
        noise_std={m: a.noise_std for m, a in acquisitions.items()},
        mask=anatomy.mask,
        gm=anatomy.gm,
        wm=anatomy.wm,
        ventricles=anatomy.ventricles,
        free=anatomy.mask,
        fossa=anatomy.fossa,
        depth=anatomy.depth,
    )
    return anatomy, background, acquisitions


def _add_remnants(
    images: dict[Modality, Volume],
    mask: NDArray[np.bool_],
    levels: dict[Modality, TissueLevels],
    *,
    brightness: tuple[float, float],
    scale: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Leaves patches of skin, fat and dura outside the brain, in place; returns the wider mask."""
    grown = ndimage.binary_dilation(mask, iterations=max(1, round(rng.uniform(1.5, 5) * scale)))
    patches = smooth_field(rng, mask.shape, 22 * scale) > rng.uniform(0.7, 1.8)
    remnant = grown & ~mask & patches
    texture = 1 + 0.3 * smooth_field(rng, mask.shape, 3.0)[remnant]
    for modality, image in images.items():
        image[remnant] = uniform(rng, brightness) * max(levels[modality].wm, levels[modality].gm) * texture
    return np.asarray(mask | remnant)


def _to_grid(values: NDArray[Any], offset: tuple[int, int, int], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Puts the working box (RAS) on the whole grid, LPS."""
    grid = np.zeros(shape, dtype=values.dtype)
    grid[tuple(slice(o, o + n) for o, n in zip(offset, values.shape, strict=True))] = values
    return ras_to_lps(grid)


def generate_case(settings: CohortSettings, seed: int, index: int) -> SyntheticCase:
    """Simulates one case; the same settings, seed and index give the same case, bit for bit.

    Each stage draws from its own stream, so that other lesion settings leave the anatomy as it was.

    Args:
        settings: the cohort's distributions.
        seed: of the cohort.
        index: number of the case within the cohort, from 0.
    """
    *seeds, operation_seed, variant_seed, tail_seed = np.random.SeedSequence([seed, index]).spawn(11)
    *early, remnant_seed, lesion_seed, artefact_seed, file_seed = seeds
    settings = settings.draw_variant(np.random.default_rng(variant_seed))
    anatomy, background, acquisitions = simulate_background(settings, early)
    background, images, labels, lesions = _add_tumours(settings, anatomy, background, lesion_seed, operation_seed)
    mask, rng = background.mask, np.random.default_rng(remnant_seed)
    if rng.random() < settings.distractors.remnant_probability:
        mask = _add_remnants(
            images,
            mask,
            background.levels,
            brightness=settings.distractors.remnant_level,
            scale=anatomy.scale,
            rng=rng,
        )
    artefact_rng, file_rng = np.random.default_rng(artefact_seed), np.random.default_rng(file_seed)
    tail_rng = np.random.default_rng(tail_seed)
    shape, bias_spacing = settings.grid.shape, settings.artefacts.bias_spacing_mm * anatomy.scale
    as_float = bool(file_rng.random() < settings.artefacts.float_probability)
    files: dict[Modality, NDArray[Any]] = {}
    for modality in MODALITIES:
        gamma = np.exp(settings.contrast.gamma_log_std * artefact_rng.standard_normal())
        image = np.power(np.maximum(images[modality], 1e-4), np.float32(gamma))
        image = acquire(image, mask, acquisitions[modality], bias_spacing=bias_spacing, rng=artefact_rng)
        image = stretch_tail(image, anatomy.depth, settings.artefacts, modality, tail_rng)
        maximum = 10 ** uniform(file_rng, settings.artefacts.scale_log10)
        files[modality] = _to_grid(quantise(image, maximum, as_float=as_float), anatomy.offset, shape)
    return SyntheticCase(
        case_id=format_case_id(STRIPPED_PREFIX, index),
        images=files,
        labels=_to_grid(labels, anatomy.offset, shape),
        affine=lps_affine(shape),
        lesions=tuple(_on_disk(lesion, anatomy.offset, shape) for lesion in lesions),
    )


def _add_tumours(
    settings: CohortSettings,
    anatomy: Anatomy,
    background: Background,
    lesion_seed: np.random.SeedSequence,
    operation_seed: np.random.SeedSequence,
) -> tuple[Background, dict[Modality, Volume], LabelMap, tuple[Lesion, ...]]:
    """Operates on some brains and places metastases: background, its images with them, labels, what was placed."""
    rng, own, scale = np.random.default_rng(operation_seed), settings.lesions, settings.grid.lesion_scale
    operation = operate(background, np.abs(anatomy.midline) * np.float32(anatomy.scale), settings, rng)
    if operation is not None:
        background = operation.background
        own = own.model_copy(update={"mass_effect": (0.0, 0.0)})  # it moves images and no labels
    images, labels, lesions = place_lesions(background, own, np.random.default_rng(lesion_seed), lesion_scale=scale)
    if operation is not None:
        lesions += operation.finish(images, labels, own, rng)
    return background, images, labels, lesions


def _on_disk(lesion: Lesion, offset: tuple[int, int, int], shape: tuple[int, int, int]) -> Lesion:
    """A lesion of the working box (RAS) on the whole grid, LPS."""
    x, y, z = (c + o for c, o in zip(lesion.centre, offset, strict=True))
    return replace(lesion, centre=(shape[0] - 1 - x, shape[1] - 1 - y, z))
