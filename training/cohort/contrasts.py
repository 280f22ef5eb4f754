"""Second stage: four contrasts of a healthy brain, and the levels that lesions are painted relative to."""

from dataclasses import dataclass

import numpy as np

from training.cohort.anatomy import Anatomy
from training.cohort.fields import Volume, smooth_field, uniform
from training.cohort.settings import MODALITIES, ContrastSettings, Modality, TissueSettings


@dataclass(frozen=True, slots=True)
class TissueLevels:
    """Mean intensities of healthy tissue in one modality, in units of the scaled image (0..1)."""

    gm: float
    wm: float
    csf: float


@dataclass(frozen=True, slots=True)
class Background:
    """What lesions are placed into: simulated, or a real patient's images with estimated tissue maps.

    Attributes:
        images: modality -> shape (x, y, z), 0..about 1 (percentile-scaled), any subset of the modalities.
        levels: healthy tissue's levels in each of them.
        noise_std: the noise that the final image will have (or has), same units: sets faint lesions' contrast.
        mask: where the brain is.
        gm: grey-matter share 0..1.
        wm: white-matter share 0..1.
        ventricles: share of ventricle 0..1; lesions never enter.
        free: where a lesion's centre may lie; a real patient's own tumour is excluded here.
        fossa: 1 cerebellum, 2 brain stem, 0 elsewhere (all 0 where unknown).
        depth: distance to the surface in voxels.
    """

    images: dict[Modality, Volume]
    levels: dict[Modality, TissueLevels]
    noise_std: dict[Modality, float]
    mask: np.ndarray
    gm: Volume
    wm: Volume
    ventricles: Volume
    free: np.ndarray
    fossa: np.ndarray
    depth: Volume


def _draw_levels(tissue: TissueSettings, jitter_std: float, rng: np.random.Generator) -> TissueLevels:
    jitter = np.exp(jitter_std * rng.standard_normal(3))
    wm = uniform(rng, tissue.wm) * jitter[0]
    gm = wm * uniform(rng, tissue.gm_to_wm)
    csf = uniform(rng, tissue.csf) * jitter[2] * (wm if tissue.csf_relative else 1)
    return TissueLevels(gm=float(gm), wm=float(wm), csf=float(csf))


def draw_levels(settings: ContrastSettings, rng: np.random.Generator) -> dict[Modality, TissueLevels]:
    """Draws the tissue levels of one case; t1n and t1c apart, since protocols differ."""
    return {m: _draw_levels(getattr(settings, m), settings.log_jitter_std, rng) for m in MODALITIES}


def paint_healthy(
    anatomy: Anatomy, levels: dict[Modality, TissueLevels], settings: ContrastSettings, rng: np.random.Generator
) -> dict[Modality, Volume]:
    """Images of the healthy brain: tissue shares times levels, with texture and the template's T1 detail."""
    shape, scale = anatomy.mask.shape, anatomy.scale
    # Broad shading and, half as strong, a fine one.
    textures = [share * smooth_field(rng, shape, spacing * scale) for spacing, share in ((30.0, 1.0), (6.0, 0.5))]
    detail_share = uniform(rng, settings.t1_detail)
    images: dict[Modality, Volume] = {}
    for modality in MODALITIES:
        own = levels[modality]
        strength = uniform(rng, settings.texture) * rng.standard_normal(2) / np.sqrt(2)
        image = own.gm * anatomy.gm + own.wm * anatomy.wm
        image *= 1 + np.float32(strength[0]) * textures[0] + np.float32(strength[1]) * textures[1]
        # Nuclei, brain stem and tracts: bright on T1 where myelin is, hence opposite and weaker on T2.
        difference = own.wm - own.gm
        share = detail_share * uniform(rng, (0.5, 1.0)) if modality in ("t1n", "t1c") else detail_share * 0.5
        image += np.float32(share * difference) * anatomy.detail * (1 - anatomy.csf)
        image += own.csf * anatomy.csf
        images[modality] = np.maximum(image, 0)
    return images
