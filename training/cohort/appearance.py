"""How bright each part of a metastasis is in each modality, relative to the healthy tissue around it."""

from dataclasses import dataclass

import numpy as np

from training.cohort.contrasts import Background, TissueLevels
from training.cohort.fields import uniform
from training.cohort.settings import LesionSettings, Modality

# Below this diameter a lesion may be drawn faint by contrast-to-noise; large faint ones are rare.
_FAINT_BELOW_MM = 16.0
# Share of the enhanced level that the contrast must reach for full texture.
_FULL_TEXTURE_AT = 0.4
# Share of cores that are non-enhancing tumour rather than a cavity.
_SOLID_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class PartLevels:
    """Levels of the three parts in one modality, units of the scaled image."""

    et: float
    netc: float
    snfh: float


@dataclass(frozen=True, slots=True)
class LesionLevels:
    """Levels of one lesion.

    Attributes:
        of: its levels in every modality.
        contrast: t1c of ET minus white matter.
        cnr: that over the noise's standard deviation.
        texture: factor on the roughness of its enhancement, 0..1: a faint lesion would otherwise be seen by it.
    """

    of: dict[Modality, PartLevels]
    contrast: float
    cnr: float
    texture: float


def _mix(start: float, end: float, share: float) -> float:
    return start + share * (end - start)


def _draw_enhancement(
    background: Background, settings: LesionSettings, diameter_mm: float, rng: np.random.Generator
) -> float:
    levels, noise = background.levels["t1c"], background.noise_std["t1c"]
    if diameter_mm < _FAINT_BELOW_MM and rng.random() < settings.faint_probability:
        return levels.wm + uniform(rng, settings.faint_cnr) * noise
    return float(min(levels.wm * uniform(rng, settings.enhancement), 1.25))


def draw_lesion_levels(
    background: Background,
    settings: LesionSettings,
    diameter_mm: float,
    rng: np.random.Generator,
    *,
    solid: bool = False,
) -> LesionLevels:
    """Draws one lesion's appearance.

    Args:
        background: gives the healthy levels and the noise; modalities it lacks are left out.
        settings: distributions.
        diameter_mm: only small lesions are drawn faint.
        rng: source of randomness.
        solid: whether its core is non-enhancing tumour for certain; else it is drawn.
    """
    fluid, water, swelling = rng.uniform(0.15, 1.0), rng.uniform(-0.05, 0.45), uniform(rng, settings.oedema_t2w)
    t1_swelling = rng.uniform(0.08, 0.5) * np.sqrt(swelling / 0.35)
    flair = uniform(rng, settings.oedema_t2f)
    flair_tumour, flair_cavity = rng.uniform(0.9, 1.7), rng.uniform(-0.7, 0.9)
    bleeds = rng.random() < settings.haemorrhage_probability
    blood, dark = rng.uniform(1.1, 1.6), rng.uniform(0.3, 0.9)
    solid_core = rng.random() < _SOLID_SHARE or solid
    et_t1c = _draw_enhancement(background, settings, diameter_mm, rng) if "t1c" in background.levels else 0.0

    def t1(levels: TissueLevels, et: float | None) -> PartLevels:
        dark_core = _mix(levels.gm, levels.csf, 0.25 * fluid if solid_core else 0.2 + 0.8 * fluid)
        own = _mix(levels.gm, levels.csf, rng.uniform(-0.1, 0.4)) * (blood if bleeds else 1)
        core = dark_core * (blood if bleeds and et is None else 1)
        return PartLevels(et=own if et is None else et, netc=core, snfh=_mix(levels.wm, levels.csf, t1_swelling))

    of: dict[Modality, PartLevels] = {}
    for modality, levels in background.levels.items():
        if modality == "t1n":
            of[modality] = t1(levels, None)
        elif modality == "t1c":
            of[modality] = t1(levels, et_t1c)
        elif modality == "t2w":
            factor = dark if bleeds else 1.0
            of[modality] = PartLevels(
                et=_mix(levels.gm, levels.csf, water) * factor,
                netc=_mix(levels.gm, levels.csf, 0.4 * fluid if solid_core else 0.2 + 0.8 * fluid) * factor,
                snfh=_mix(levels.gm, levels.csf, swelling),
            )
        else:
            bright = max(levels.gm, levels.wm)
            oedema = bright * flair
            cavity = _mix(bright, oedema if flair_cavity > 0 else levels.csf, abs(flair_cavity))
            core = oedema * 0.9 if solid_core else cavity
            of[modality] = PartLevels(et=bright * flair_tumour, netc=core, snfh=oedema)
    contrast = et_t1c - background.levels["t1c"].wm if "t1c" in background.levels else 0.0
    noise = background.noise_std.get("t1c", np.inf)
    return LesionLevels(
        of=of,
        contrast=float(contrast),
        cnr=float(contrast / noise),
        texture=float(np.clip(contrast / (_FULL_TEXTURE_AT * max(et_t1c, 1e-3)), 0, 1)),
    )
