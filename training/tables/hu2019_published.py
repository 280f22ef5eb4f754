"""What Hu et al. 2019 (arXiv 1908.05418) published; its figures are means of two test sets."""

from typing import Final, Literal, get_args

Loss = Literal["dice", "batch", "500", "1000", "2500", "5000"]
LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
"""Of the U-Net: Dice; volume-aware Dice reweighted by the batch's largest tumour; by a constant in voxels."""

LOSS_TITLES: Final[dict[Loss, str]] = {
    "dice": "Dice",
    "batch": "volume-aware, batch",
    "500": "volume-aware, 500",
    "1000": "volume-aware, 1000",
    "2500": "volume-aware, 2500",
    "5000": "volume-aware, 5000",
}

CONSTANTS: Final[tuple[Loss, ...]] = ("500", "1000", "2500", "5000")
"""The losses that are named by their lambda, in voxels."""

VOXEL_MM3: Final = 0.6 * 0.6 * 2
"""Of the paper's images."""

MEDIAN_MM3: Final = 760.0
MEAN_MM3: Final = 3400.0
"""Of its metastases, which reach 110,000 mm3."""

VOXEL_COLUMNS: Final = ("dsc", "precision", "recall")
"""Columns of the protocol `hu2019` that Tables 1 and 3 have."""

Triple = tuple[float, float, float]
"""DSC, precision, recall."""

DICE_FIGURES: Final[Triple] = (0.669, 0.689, 0.700)

TABLE_1: Final[dict[Loss, Triple]] = {
    "batch": (8.57, 2.62, 24.14),
    "500": (-52.11, 2.78, -70.08),
    "1000": (-7.67, 13.15, -18.83),
    "2500": (2.22, -5.55, 23.04),
    "5000": (-8.60, -31.68, 25.46),
}
"""Change in per cent of DSC, precision and recall over Dice."""

TABLE_2: Final[dict[Loss, dict[str, tuple[float, float]]]] = {
    "dice": {"small": (0.466, 0.619), "large": (0.826, 0.987)},
    "batch": {"small": (0.633, 0.672), "large": (0.828, 0.974)},
}
"""Small and large tumours: recall of voxels, share of tumours found."""

System = Literal["unet", "deepmedic", "both", "both_aware", "both_aware_mr"]
SYSTEMS: Final[tuple[System, ...]] = get_args(System)

SYSTEM_TITLES: Final[dict[System, str]] = {
    "unet": "U-Net, Dice",
    "deepmedic": "DeepMedic",
    "both": "both, Dice",
    "both_aware": "both, volume-aware Dice",
    "both_aware_mr": "both, volume-aware Dice, MR alone",
}

TABLE_3: Final[dict[System, Triple]] = {
    "unet": (0.669, 0.689, 0.700),
    "deepmedic": (0.625, 0.631, 0.734),
    "both": (0.719, 0.788, 0.713),
    "both_aware": (0.740, 0.779, 0.803),
}
