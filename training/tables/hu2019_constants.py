"""The constants of the volume-aware loss, brought to a cohort whose tumours have other sizes than the paper's.

For one tumour of V voxels the best constant prediction is under a half if V exceeds 16 lambda (docs/radiosurgery.md).
What a constant does depends on the share of tumours beyond that; each is scaled to keep its share.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from metseg.files.atomic import write_atomically
from metseg.files.case import CaseFiles
from metseg.space.components import find_components
from training.references import read_reference_map
from training.tables.hu2019_published import CONSTANTS, MEAN_MM3, MEDIAN_MM3, VOXEL_MM3, Loss

COLLAPSE_FACTOR: Final = 16
"""Tumours of more voxels than this times lambda are best predicted by less than a half."""


@dataclass(frozen=True, slots=True)
class ScaledConstant:
    """One constant.

    Attributes:
        ours: lambda in voxels of the networks' grid.
        published_share: of the paper's tumours above 16 times its constant.
        share: of the training tumours above 16 times ours.
    """

    ours: int
    published_share: float
    share: float


def published_share(constant_voxels: float) -> float:
    """Share of the paper's tumours above 16 lambda: sizes log-normal with the paper's median and mean."""
    spread = math.sqrt(2 * math.log(MEAN_MM3 / MEDIAN_MM3))
    above = math.log(COLLAPSE_FACTOR * constant_voxels * VOXEL_MM3 / MEDIAN_MM3) / spread
    return 0.5 * math.erfc(above / math.sqrt(2))


def settle_constants(tumour_voxels: Sequence[float], file: Path) -> dict[Loss, ScaledConstant]:
    """The constants that `file` has, else `scale_constants`, which it then keeps.

    Another processor may round a simulated image otherwise; a constant that moved by a voxel would make other recipes.
    """
    if file.exists():
        return scale_constants(tumour_voxels, json.loads(file.read_text(encoding="utf-8")))
    scaled = scale_constants(tumour_voxels)
    write_atomically(file, json.dumps({loss: item.ours for loss, item in scaled.items()}).encode())
    return scaled


def scale_constants(
    tumour_voxels: Sequence[float], known: Mapping[str, int] | None = None
) -> dict[Loss, ScaledConstant]:
    """Brings each of the paper's constants to a cohort.

    Args:
        tumour_voxels: volume of every training tumour in voxels of the networks' grid; at least one.
        known: constants that stand already, by the paper's.
    """
    volumes = np.asarray(tumour_voxels)
    scaled = {}
    for loss in CONSTANTS:
        wanted = published_share(float(loss))
        ours = (known or {}).get(loss) or max(1, round(float(np.quantile(volumes, 1 - wanted)) / COLLAPSE_FACTOR))
        scaled[loss] = ScaledConstant(ours, wanted, float((volumes > COLLAPSE_FACTOR * ours).mean()))
    return scaled


def count_tumour_voxels(cases: Iterable[CaseFiles], voxel_mm3: float) -> list[float]:
    """Volume of every tumour of the cases' references, in voxels of so many mm3; 26-connected."""
    counts: list[float] = []
    for files in cases:
        reference = read_reference_map(files)
        factor = reference.grid.voxel_volume_mm3 / voxel_mm3
        counts += (find_components(reference.labels > 0).sizes * factor).tolist()
    return counts


def show_constants(scaled: Mapping[Loss, ScaledConstant]) -> list[str]:
    """The constants as Markdown."""
    lines = ["### Constants of the volume-aware loss", ""]
    lines += [
        (
            f"Each is scaled so that the same share of tumours exceeds {COLLAPSE_FACTOR} lambda as in the paper, whose "
            f"sizes are taken as log-normal with its median ({MEDIAN_MM3:g} mm3) and mean ({MEAN_MM3:,g} mm3)."
        ),
        "",
        "| the paper's | here, voxels | the paper's tumours above 16 lambda | training tumours above it |",
        "|---|---|---|---|",
    ]
    for loss, item in scaled.items():
        lines.append(f"| {loss} | {item.ours} | {item.published_share:.1%} | {item.share:.1%} |")
    return [*lines, ""]
