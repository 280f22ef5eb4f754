"""Simulated metastases and cavities in real patients' images: real vessels, dura, noise and resampling around them.

Tissue maps are estimated from t1n (three Gaussian classes), so that lesions sit where the simulated ones do, at the
grey-white junction. The patient's own labels stay, and win where a new lesion's oedema reaches them.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.read import read_case, refuse_unusable
from metseg.findings import printable
from metseg.labels import BRATS_REGIONS, LabelMap
from metseg.plan.plan import IntensityPlan
from metseg.prepare.prepare import prepare_case
from training.cohort.case import SyntheticCase
from training.cohort.contrasts import Background, TissueLevels
from training.cohort.fields import Volume
from training.cohort.lesions import place_lesions
from training.cohort.operation import Operation, operate
from training.cohort.settings import MODALITIES, CohortSettings, Modality
from training.cohort.writing import write_case
from training.patients import find_patient
from training.references import read_reference

FIRST_TIMEPOINT: Final = 101
"""Variants are numbered as timepoints of the patient, far from real ones, so that no split tears them apart."""

KEEP_OUT_VOXELS: Final = 4
"""No new centre so close to the patient's own lesions."""

EDGE_BLUR_VOXELS: Final = 0.6
"""Standard deviation; the images' own blur, which painted edges lack."""

NOISE_SMOOTHNESS_VOXELS: Final = 0.5
CLASS_ITERATIONS: Final = 30
VENTRICLE_DEPTH_VOXELS: Final = 18
"""Fluid that lies deeper is ventricle; sulci are shallower."""

SULCUS_DEPTH_VOXELS: Final = 3
"""Deeper than this, the brain's edge changes no intensity."""

SKULL_BASE_SHARE: Final = 0.3
"""Of the brain's height, from below: brain stem and skull base, where no cavity has its centre."""

PURE: Final = 0.8
LEAST_PURE: Final = 0.03
"""Share of a tissue from which a voxel is it alone, and what share of the tissue such voxels are at least."""

INT16_UNITS: Final = 2000.0


@dataclass(frozen=True, slots=True)
class RealBackground:
    """A patient to put lesions into.

    Attributes:
        case_id: of the patient's case.
        background: images scaled to [0, 1] on the 1 mm RAS grid, with estimated tissue.
        labels: the patient's own, on the same grid.
        affine: of the grid.
    """

    case_id: str
    background: Background
    labels: LabelMap
    affine: NDArray[np.float64]


def read_background(files: CaseFiles) -> RealBackground:
    """Reads a case with its reference and estimates its tissues.

    Raises:
        InputError: it lacks a modality or its reference, can't be read, or its reference lies on another grid.
    """
    refuse_unusable(files, MODALITIES)
    missing = [name for name in MODALITIES if name not in files.images]
    if missing:
        raise InputError(
            f"case {printable(files.case_id)}: {', '.join(missing)} missing", hint="Lesions are painted into all four."
        )
    prepared = prepare_case(read_case(files, modalities=MODALITIES), IntensityPlan())
    labels = read_reference(files, prepared.resampling, BRATS_REGIONS)
    images: dict[Modality, Volume] = {name: np.asarray(prepared.channels[name], np.float32) for name in MODALITIES}
    mask = ndimage.binary_fill_holes(np.logical_or.reduce([image > 0 for image in images.values()]))
    return RealBackground(
        files.case_id, estimate_background(images, mask, labels), labels, np.asarray(prepared.resampling.network.affine)
    )


def estimate_background(images: dict[Modality, Volume], mask: NDArray[np.bool_], labels: LabelMap) -> Background:
    """Tissue shares, levels, noise and depth of a brain that may hold a tumour.

    Args:
        images: shape (x, y, z) each, in [0, 1].
        mask: where the brain is.
        labels: the patient's own lesions, which belong to no tissue.
    """
    depth = ndimage.distance_transform_edt(mask).astype(np.float32)
    tumour = labels > 0
    near = ndimage.binary_dilation(tumour, iterations=KEEP_OUT_VOXELS) if tumour.any() else tumour
    healthy = mask & ~near
    shares = tissue_shares(ndimage.gaussian_filter(images["t1n"], 0.7), healthy)
    csf, gm, wm = (np.where(healthy, share, 0).astype(np.float32) for share in shares)
    levels = {
        name: TissueLevels(*(_find_level(image, share) for share in (gm, wm, csf))) for name, image in images.items()
    }
    return Background(
        images=images,
        levels=levels,
        noise_std={name: estimate_noise(image, wm > 0.9) for name, image in images.items()},  # noqa: PLR2004
        mask=mask,
        gm=gm,
        wm=wm,
        ventricles=np.where(depth > VENTRICLE_DEPTH_VOXELS, csf, 0).astype(np.float32),
        free=healthy,
        fossa=np.zeros(mask.shape, dtype=np.uint8),
        depth=depth,
    )


def _find_level(image: Volume, share: Volume) -> float:
    """Median of an image where a tissue is pure; its weighted mean where the tissue is pure nowhere."""
    pure = _find_pure(share)
    return float(np.average(image, weights=share * share) if pure is None else np.median(image[pure]))


def _find_pure(share: NDArray[np.floating[Any]]) -> NDArray[np.bool_] | None:
    """Where a tissue is alone; None where that is nowhere but at the ends of its distribution."""
    pure = share > PURE
    return pure if np.count_nonzero(pure) >= LEAST_PURE * share.sum() else None


def tissue_shares(image: Volume, inside: NDArray[np.bool_]) -> tuple[Volume, Volume, Volume]:
    """Three Gaussian classes by intensity, ascending (on t1n: CSF, grey, white matter); their posterior shares.

    Where contrast is low, a class of its own spread may take in what is brightest and darkest: then all have one.
    """
    values = image[inside].astype(np.float64)
    sample = values[:: max(len(values) // 200_000, 1)]
    posterior = _fit_classes(sample, values)
    pure = [_find_pure(share) for share in posterior]
    levels = [np.nan if where is None else np.median(values[where]) for where in pure]
    if not levels[0] < levels[1] < levels[2]:  # nor where one is not a number
        posterior = _fit_classes(sample, values, tied=True)
    shares = []
    for share in posterior:
        volume = np.zeros(image.shape, dtype=np.float32)
        volume[inside] = share
        shares.append(volume)
    return shares[0], shares[1], shares[2]


def _fit_classes(
    sample: NDArray[np.float64], values: NDArray[np.float64], *, tied: bool = False
) -> NDArray[np.float64]:
    """Fits the classes to a sample: the posterior shares of all values, shape (3, values), ascending by mean."""
    if tied:  # what is far brighter than the brain is none of it
        sample = np.clip(sample, *np.percentile(sample, [0.5, 99]))
    means = np.percentile(sample, [8, 45, 85])
    spreads, weights = np.full(3, sample.std() / 3), np.full(3, 1 / 3)
    for _ in range(CLASS_ITERATIONS):
        posterior = _posterior(sample, means, spreads, weights)
        total = posterior.sum(1) + 1e-9
        means = (posterior @ sample) / total
        spreads = np.maximum(np.sqrt((posterior * (sample - means[:, None]) ** 2).sum(1) / total), 1e-3)
        weights = total / total.sum()
        if tied:
            spreads = np.full(3, np.sqrt((weights * spreads**2).sum()))
    order = np.argsort(means)
    return _posterior(values, means[order], spreads[order], weights[order])


def _posterior(
    values: NDArray[np.float64], means: NDArray[np.float64], spreads: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    scaled = (values - means[:, None]) / spreads[:, None]
    density = weights[:, None] / spreads[:, None] * np.exp(-0.5 * scaled**2) + 1e-12
    return np.asarray(density / density.sum(0))


def estimate_noise(image: Volume, where: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise, from differences of neighbours along x inside white matter (robust)."""
    pairs = where[1:] & where[:-1]
    differences = np.diff(image, axis=0)[pairs]
    return float(np.median(np.abs(differences)) / 0.6745 / np.sqrt(2)) if differences.size else 0.01


def implant_lesions(patient: RealBackground, settings: CohortSettings, seed: int, variant: int) -> SyntheticCase:
    """One variant of a patient: simulated metastases beside what is there already; deterministic.

    Args:
        patient: the images.
        settings: of lesions, operations and variants; tissue is not pushed, because the patient's own labels would not
            move with it.
        seed: of the set.
        variant: from 0, over all the patient's cases.
    """
    placing, noising, varying, operating = np.random.SeedSequence([seed, variant, *patient.case_id.encode()]).spawn(4)
    settings = settings.draw_variant(np.random.default_rng(varying))
    still = settings.lesions.model_copy(update={"mass_effect": (0.0, 0.0), "none_probability": 0.0})
    own, background, operated = patient.labels > 0, patient.background, np.random.default_rng(operating)
    operation = _operate(patient, settings, operated)
    into = background if operation is None else operation.background
    painted, added, lesions = place_lesions(into, still, np.random.default_rng(placing))
    if operation is not None:
        lesions += operation.finish(painted, added, still, operated)
    rng = np.random.default_rng(noising)
    images: dict[Modality, NDArray[np.int16]] = {}
    for name, image in background.images.items():
        change = ndimage.gaussian_filter(painted[name] - image, EDGE_BLUR_VOXELS)
        touched = np.abs(change) > 1e-4  # noqa: PLR2004 - rounding
        noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), NOISE_SMOOTHNESS_VOXELS)
        noise *= np.float32(background.noise_std[name] / noise.std())
        changed = np.maximum(image + change + np.where(touched, noise, 0), 1 / INT16_UNITS)
        final = np.where(own | ~(background.mask | into.mask), image, np.where(into.mask, changed, 0))
        images[name] = np.round(final * INT16_UNITS).astype(np.int16)
    labels = np.where(own, patient.labels, np.where(into.mask, added, 0)).astype(np.uint8)
    case_id = f"{find_patient(patient.case_id)}-{FIRST_TIMEPOINT + variant}"
    return SyntheticCase(case_id, images, labels, patient.affine, lesions)


def _operate(patient: RealBackground, settings: CohortSettings, rng: np.random.Generator) -> Operation | None:
    """A cavity in the patient's brain, in some variants; it spares the patient's own tumour."""
    background = patient.background
    x = np.arange(background.mask.shape[0], dtype=np.float32)
    middle = float(np.average(x, weights=background.mask.sum((1, 2))))
    heights = np.flatnonzero(background.mask.any((0, 1)))
    free = background.free.copy()
    free[:, :, : int(np.quantile(heights, SKULL_BASE_SHARE))] = False
    kept = replace(
        background,
        free=free,
        ventricles=np.where(patient.labels > 0, np.float32(1), background.ventricles),
        levels=_with_fluid(background),
    )
    operation = operate(kept, np.abs(x - middle)[:, None, None], settings, rng)
    if operation is None:
        return None
    return replace(operation, scarred=operation.scarred & (patient.labels == 0))


def _with_fluid(background: Background) -> dict[Modality, TissueLevels]:
    """Levels with CSF as a cavity shows it, at an end of each image's scale: t1n's class takes in more than CSF."""
    inside = background.free & (background.depth > SULCUS_DEPTH_VOXELS)
    levels = {}
    for name, own in background.levels.items():
        end = float(np.percentile(background.images[name][inside], 98 if name == "t2w" else 2))
        levels[name] = replace(own, csf=max(end, own.csf) if name == "t2w" else min(end, own.csf))
    return levels


def write_implants(
    cases: tuple[CaseFiles, ...], settings: CohortSettings, *, variants: int, seed: int, output: Path
) -> Iterator[SyntheticCase]:
    """Writes `variants` of every case, yielding each as it is complete.

    Variants are numbered by patient: those of its second timepoint follow those of its first.

    Raises:
        InputError: a case can't be used.
    """
    numbers: defaultdict[str, count[int]] = defaultdict(count)
    for files in cases:
        patient = read_background(files)
        for variant in islice(numbers[find_patient(files.case_id)], variants):
            case = implant_lesions(patient, settings, seed, variant)
            write_case(case, output)
            yield case
