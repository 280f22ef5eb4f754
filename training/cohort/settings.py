"""Every number of the synthetic cohort, with its source: one frozen model that a YAML file can override.

Intensities are in units of the scaled image (percentiles 0.1 and 99.9 of the whole volume become 0 and 1),
so that they compare directly with what the network reads. "Measured" means: read off eleven public BraTS
cases (ten gliomas of BraTS 2021, one metastasis case of BraTS-METS 2023), tissue by tissue, after that scaling;
docs/cohort.md compares both.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from metseg.errors import UsageError
from metseg.plan.document import Section, YamlFileError, read_yaml, validate_document
from training.cohort.ct_settings import CtSettings
from training.cohort.head_settings import HeadSettings
from training.cohort.operation_settings import OperationSettings
from training.cohort.ranges import Probability, Range

Modality = Literal["t1n", "t1c", "t2w", "t2f"]
MODALITIES: Final[tuple[Modality, ...]] = ("t1n", "t1c", "t2w", "t2f")
SizeName = Literal["full", "tiny"]
HINT: Final = "docs/cohort.md lists the fields."


class GridSettings(Section):
    """The grid on disk and the size of the anatomy on it."""

    shape: tuple[int, int, int] = Field((240, 240, 155), description="voxels; BraTS, SRI24 space")
    anatomy_scale: float = Field(1.0, gt=0, le=1, description="1 for the real size; 0.4 makes a brain fit 96x96x64")
    lesion_scale: float = Field(1.0, gt=0, le=1, description="factor on every lesion's diameter and oedema")


class AnatomySettings(Section):
    """Deformation of the ICBM152 template and individual tissue."""

    scale: Range = Field((0.90, 1.0), description="SRI24 brains are 0.90 to 1.0 of MNI's length; measured (boxes)")
    axis_scale_std: float = Field(0.025, description="per axis, on top; measured (boxes)")
    rotation_deg_std: float = Field(3.0, description="residue of rigid registration to the atlas; chosen, generous")
    shear_std: float = Field(0.02, description="chosen")
    shift_mm_std: float = Field(3.0, description="brain centre on the grid; measured (boxes)")
    warp_spacings_mm: tuple[float, ...] = Field((45.0, 20.0, 9.0), description="B-spline control points")
    warp_std_mm: tuple[float, ...] = Field(
        (3.0, 1.6, 0.8),
        description="per axis and scale; about inter-subject residue after affine registration (Klein et al. 2009)",
    )
    warp_strength: Range = Field((0.5, 1.3), description="factor on warp_std_mm per case; chosen")
    ventricle_growth_mm: Range = Field((-1.0, 6.0), description="outward shift of the ventricle wall (atrophy)")
    sharpness: Range = Field((1.5, 4.0), description="power on tissue probabilities; undoes the template's averaging")
    csf_log_gain: tuple[float, float] = Field((0.3, 0.5), description="mean, std of log factor on CSF (sulci)")
    tissue_log_noise: float = Field(0.9, description="std of smooth log noise on the tissue maps (cortex thickness)")
    tissue_noise_spacing_mm: float = Field(4.0, description="its control points")
    strip_level: Range = Field((0.25, 0.75), description="level of the smoothed mask where stripping cuts; chosen")


class TissueSettings(Section):
    """Mean levels of one modality, drawn uniformly."""

    wm: Range
    gm_to_wm: Range
    csf: Range = Field(description="absolute for t2w, t2f; a fraction of white matter for t1n, t1c")
    csf_relative: bool


class ContrastSettings(Section):
    """Tissue contrasts: ranges a little wider than measured (WM, GM/WM, CSF per modality)."""

    t1n: TissueSettings = TissueSettings(wm=(0.50, 0.92), gm_to_wm=(0.68, 1.00), csf=(0.25, 0.70), csf_relative=True)
    t1c: TissueSettings = TissueSettings(wm=(0.18, 0.50), gm_to_wm=(0.72, 1.02), csf=(0.20, 0.60), csf_relative=True)
    t2w: TissueSettings = TissueSettings(wm=(0.07, 0.25), gm_to_wm=(1.00, 1.65), csf=(0.65, 1.05), csf_relative=False)
    t2f: TissueSettings = TissueSettings(wm=(0.32, 0.62), gm_to_wm=(0.94, 1.45), csf=(0.01, 0.20), csf_relative=False)
    log_jitter_std: float = Field(0.06, description="log-normal factor on every level, so that the ranges have tails")
    t1_detail: Range = Field((0.3, 1.0), description="share of the template's T1 detail carried over (nuclei)")
    texture: Range = Field((0.03, 0.11), description="relative std of smooth texture; measured 0.06 with noise")
    gamma_log_std: float = Field(0.14, description="log std of a per-modality gamma on [0, 1]; chosen")


class DistractorSettings(Section):
    """What enhances or is bright without being a metastasis; never labelled."""

    cortical_vessels: tuple[int, int] = Field((120, 380), description="number; chosen by looking at t1c slices")
    medullary_vessels: tuple[int, int] = Field((0, 40), description="thin veins through white matter; chosen")
    basal_vessels: tuple[int, int] = Field((8, 24), description="circle of Willis and its branches; chosen")
    vessel_level: Range = Field((0.75, 1.6), description="t1c, absolute; 99.9th percentile is 1 by definition")
    dura_share: Range = Field((0.05, 0.6), description="share of the surface that enhances; chosen")
    sinus_probability: Probability = 0.85
    choroid_probability: Probability = 0.9
    falx_probability: Probability = 0.6
    hyperintensity_grade: Range = Field(
        (0.0, 1.0), description="0 none to 1 confluent, squared: most adults have few (Fazekas scale)"
    )
    remnant_probability: Probability = Field(0.55, description="skull-strip remnants; seen in 4 of 11 cases")
    remnant_level: Range = Field(
        (0.2, 2.8), description="over the brighter tissue: fat and eyes set the scale of some measured images"
    )


class LesionSettings(Section):
    """Metastases: how many, how large, where, how they look."""

    none_probability: Probability = Field(0.04, description="cases without lesion; legitimate in the challenge")
    count_median: float = Field(4.6, description="log-normal; mean 6.9 within the cap; 3076 / 402 = 7.65")
    count_log_std: float = Field(1.05, description="heavy tail: 30 and more in one patient (BraTS-METS 2023)")
    count_max: int = Field(30, description="as specified, 0 to 30")
    diameter_median_mm: float = Field(5.5, description="most under 10 mm (BraTS-METS 2023)")
    diameter_log_std: float = Field(0.65, description="95 % within 1.5 to 20 mm")
    dominant_median_mm: float = Field(14.0, description="what brought the patient; 760 mm3 is 11 mm (Hu 2019)")
    dominant_log_std: float = Field(0.45, description="as above")
    dominant_probability: Probability = 0.7
    diameter_range_mm: Range = Field((1.0, 30.0), description="specified: 1 to 25 mm; wider")
    giant_probability: Probability = Field(0.20, description="cases with one 22 to 55 mm tumour (110,000 mm3, Hu 2019)")
    giant_diameter_mm: Range = (22.0, 55.0)
    cerebellum_share: Probability = Field(0.15, description="Delattre et al. 1988: 80 % hemispheres, 15 % cerebellum")
    brainstem_share: Probability = Field(0.04, description="Delattre et al. 1988: 5 % brain stem")
    irregularity: Range = Field((0.05, 0.30), description="std of the radius, relative, on top of an ellipsoid; chosen")
    necrosis_midpoint_mm: float = Field(11.0, description="half of the lesions of this diameter have a necrotic core")
    necrosis_slope_mm: float = 2.5
    rim_mm: Range = Field((1.3, 5.0), description="thickness of the enhancing rim; gliomas measured similar")
    nonenhancing_probability: Probability = Field(
        0.0, description="tumours without enhancement but for specks; none unless asked for, as gliomas 00012, 00009"
    )
    speck_share: Range = Field((0.0, 0.15), description="of such a tumour's core that enhances; measured 0.001 to 0.8")
    patchy_probability: Probability = Field(0.40, description="large tumours with islands of NETC instead of one core")
    open_rim_probability: Probability = Field(0.3, description="necrotic tumours whose rim has gaps; seen in gliomas")
    faint_probability: Probability = Field(0.15, description="contrast set by contrast-to-noise instead")
    faint_cnr: Range = Field((1.0, 5.0), description="as specified, down to 1")
    enhancement: Range = Field((1.2, 2.5), description="t1c of ET / white matter; measured 1.07 to 2.06 (means)")
    haemorrhage_probability: Probability = Field(0.10, description="melanoma, renal, lung: about a tenth bleed")
    oedema_midpoint_mm: float = Field(8.0, description="half of the lesions of this diameter have oedema")
    oedema_slope_mm: float = 2.0
    oedema_floor: Probability = Field(0.08, description="small lesions with oedema")
    oedema_extent: tuple[float, float] = Field((0.65, 0.6), description="median, log std of extent over radius + 3 mm")
    oedema_extent_max_mm: float = 34.0
    oedema_t2f: Range = Field((1.15, 2.1), description="over the brighter of GM, WM; measured 1.0 to 2.4")
    oedema_t2w: Range = Field((0.06, 0.55), description="share of the way from GM to CSF; measured")
    unevenness: Range = Field(
        (0.05, 0.25), description="relative std inside oedema and tumour, coarse part; measured 0.1 to 0.2 with noise"
    )
    mass_effect: Range = Field((0.0, 0.7), description="outward push at the edge, in radii, of lesions > 12 mm")


class ArtefactSettings(Section):
    """What the scanner and the preprocessing do to the images."""

    bias_std: Range = Field((0.0, 0.18), description="log std of the bias field; chosen")
    bias_spacing_mm: float = 70.0
    noise_std: Range = Field((0.006, 0.030), description="measured 0.006 to 0.031 in white matter, log-uniform")
    noise_smoothness_mm: Range = Field((0.35, 0.65), description="neighbour correlation 0.2 to 0.5, measured")
    thick_probability: dict[Modality, Probability] = Field(
        default={"t1n": 0.75, "t1c": 0.5, "t2w": 0.5, "t2f": 0.7},
        description="share of modalities with correlation > 0.6 along one axis; measured",
    )
    thickness_mm: Range = Field((2.0, 6.0), description="5 to 6 mm slices are usual in clinical protocols")
    blur_mm: Range = Field((0.25, 0.8), description="std of in-plane blur (acquisition and two resamplings)")
    misregistration_mm_std: float = Field(0.3, description="shift between modalities; chosen")
    ghost_probability: Probability = Field(0.12, description="motion ghosts; chosen")
    ghost_level: Range = (0.01, 0.06)
    scale_log10: Range = Field((2.5, 3.75), description="maximum of the file, 300 to 5600; measured 600 to 5500")
    float_probability: Probability = Field(0.05, description="float32 instead of int16 files")
    tail_probability: dict[Modality, Probability] = Field(
        default_factory=dict, description="share of images with a long intensity tail; none unless asked for"
    )
    tail_share: Range = Field((0.006, 0.02), description="of the brain's voxels that are its tail; chosen")
    tail_gain: Range = Field((1.3, 2.5), description="how much brighter these are; chosen, so that WM falls to a half")


class VariantSettings(Section):
    """Some cases of a cohort that are unlike the others: sections whose fields replace the cohort's, level by level."""

    share: Probability = Field(description="of the cases")
    contrast: dict[str, Any] = Field(default_factory=dict)
    distractors: dict[str, Any] = Field(default_factory=dict)
    lesions: dict[str, Any] = Field(default_factory=dict)
    artefacts: dict[str, Any] = Field(default_factory=dict)


class CohortSettings(Section):
    """All distributions of the synthetic cohort."""

    grid: GridSettings = GridSettings()
    anatomy: AnatomySettings = AnatomySettings()
    contrast: ContrastSettings = ContrastSettings()
    distractors: DistractorSettings = DistractorSettings()
    lesions: LesionSettings = LesionSettings()
    artefacts: ArtefactSettings = ArtefactSettings()
    ct: CtSettings = CtSettings()
    head: HeadSettings = HeadSettings()
    operation: OperationSettings = OperationSettings()
    variants: dict[str, VariantSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _variants_fit(self) -> Self:
        together = sum(variant.share for variant in self.variants.values())
        if together > 1:
            raise ValueError(f"shares of the variants must not exceed 1 together, found {together:g}")
        for name in self.variants:
            self.vary(name)
        return self

    def vary(self, name: str) -> "CohortSettings":
        """The settings of the cases of a variant."""
        changes = self.variants[name].model_dump(exclude={"share"})
        content = _join_levels(self.model_dump(exclude={"variants"}), changes)
        return CohortSettings.model_validate(content)

    def draw_variant(self, rng: np.random.Generator) -> "CohortSettings":
        """The settings of one case: a variant's, or these."""
        drawn = rng.random()
        for name, variant in self.variants.items():
            drawn -= variant.share
            if drawn < 0:
                return self.vary(name)
        return self


def _join_levels(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(below)
    for key, value in above.items():
        old = joined.get(key)
        joined[key] = _join_levels(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return joined


TINY_GRID: Final = GridSettings(shape=(96, 96, 64), anatomy_scale=0.4, lesion_scale=0.45)


def load_settings(
    path: Path | None = None, *, size: SizeName = "full", defaults: Mapping[str, Mapping[str, Any]] | None = None
) -> CohortSettings:
    """Reads settings from a YAML file on top of the defaults.

    Args:
        path: YAML with any subset of the fields; None for the defaults.
        size: "tiny" replaces the grid by 96x96x64 with a brain of 0.4 times its size (tests, tables).
        defaults: sections with the values that a system's cohort begins with (`TrainingSystem.cohort_defaults`).

    Raises:
        UsageError: the file is missing, not YAML, or names an unknown or impossible value.
    """
    what = f"cohort settings {path}"
    try:
        values = (read_yaml(path) or {}) if path is not None else {}
    except YamlFileError as error:
        raise UsageError(f"{what}: {error}", hint=HINT) from error
    stated = validate_document(values, CohortSettings, what=what, hint=HINT).model_dump(exclude_unset=True)
    joined = stated | {section: {**own, **stated.get(section, {})} for section, own in (defaults or {}).items()}
    settings = validate_document(joined, CohortSettings, what=what, hint=HINT)
    return settings.model_copy(update={"grid": TINY_GRID}) if size == "tiny" else settings
