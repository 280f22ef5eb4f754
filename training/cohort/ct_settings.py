"""The radiosurgery cohort's own numbers: a head around the brain, a planning CT, and metastases of its sizes."""

from typing import Any, Final, Literal

from pydantic import Field

from metseg.plan.document import Section
from training.cohort.ranges import Probability, Range

Calcified = Literal["pineal", "choroid", "pallidum", "falx"]
"""What is often calcified in healthy brains."""


class CtSettings(Section):
    """Head, planning CT and misregistration. Lengths are at scale 1 and shrink with the anatomy."""

    gap_mm: Range = Field((1.5, 3.5), description="CSF between brain and skull; chosen")
    skull_mm: Range = Field((4.0, 8.0), description="mean thickness of the skull; adults have 5 to 8 mm")
    skull_unevenness: float = Field(0.25, description="relative std of the thickness from place to place; chosen")
    scalp_mm: Range = Field((4.0, 8.0), description="mean thickness of skin and fat; adults have about 5 mm")
    bone_hu: Range = Field((700.0, 1300.0), description="compact bone as a planning CT shows it")
    diploe_share: Range = Field((0.3, 0.7), description="of compact bone's Hounsfield units, in the skull's middle")
    scalp_hu: Range = Field((-40.0, 40.0), description="fat and muscle mixed")
    grey_hu: Range = Field((35.0, 40.0), description="textbook values of non-enhanced CT")
    white_below_grey_hu: Range = Field((5.0, 9.0), description="likewise")
    csf_hu: Range = Field((3.0, 12.0), description="likewise")
    tumour_hu: Range = Field(
        (-6.0, 14.0), description="over grey matter; metastases are iso- to hyperdense, or enhance"
    )
    necrosis_hu: Range = Field((-20.0, -8.0), description="over grey matter")
    oedema_hu: Range = Field((-14.0, -6.0), description="over white matter")
    calcification_probability: dict[Calcified, Probability] = Field(
        {"pineal": 0.6, "choroid": 0.6, "pallidum": 0.12, "falx": 0.15}, description="textbook values of adults on CT"
    )
    calcification_mm: Range = Field((2.0, 8.0), description="diameter; chosen")
    calcification_hu: Range = Field((80.0, 500.0), description="at its densest; chosen")
    noise_hu: Range = Field((4.0, 12.0), description="std per voxel of 2 mm slices at a head dose")
    cupping_hu: Range = Field((0.0, 12.0), description="beam hardening: brain under the skull looks denser")
    streaks_hu: Range = Field((0.0, 5.0), description="std of broad shades between dense bones")
    spacing_mm: tuple[float, float, float] = Field((0.6, 0.6, 2.0), description="Hu et al. 2019")
    field_mm: float = Field(270.0, description="side of the square field of view; 512 pixels of 0.6 mm are 307 mm")
    top_cut_mm: Range = Field((0.0, 0.0), description="missing of the head's top")
    bottom_cut_mm: Range = Field((0.0, 15.0), description="missing of its bottom, beyond what the MR misses")
    rotation_degrees: Range = Field((0.0, 10.0), description="about a random axis; the issue's limit")
    shift_mm: Range = Field((0.0, 10.0), description="in a random direction; the issue's limit; does not shrink")
    marrow_t1c: Range = Field((0.15, 0.5), description="the skull on the MR, over white matter")
    fat_t1c: Range = Field((0.8, 2.0), description="the scalp on the MR, over white matter")


RADIOSURGERY_ARTEFACTS: Final[dict[str, Any]] = {"misregistration_mm_std": 0.0}
"""The one MR is its own reference; the CT's motion is a setting of its own."""

RADIOSURGERY_LESIONS: Final[dict[str, Any]] = {
    "none_probability": 0.0,
    "count_median": 2.2,
    "count_log_std": 0.75,
    "count_max": 10,
    "diameter_median_mm": 11.3,
    "diameter_log_std": 0.62,
    "dominant_probability": 0.0,
    "diameter_range_mm": (1.8, 59.4),
    "giant_probability": 0.0,
    "faint_probability": 0.08,
}
"""Metastases that were irradiated (Hu et al. 2019): 3 to 110,000 mm3, which are spheres of 1.8 and 59.4 mm, with a
median of 760 mm3, a sphere of 11.3 mm; every case has one. The spread is chosen: about 1 % reach either end."""
