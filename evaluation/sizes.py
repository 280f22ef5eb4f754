"""Lesions found and false positives by volume: the tiny lesions are those that people miss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from evaluation.batch import ScoredCase
from evaluation.joint_box import FloatArray
from evaluation.lesions import LesionScore
from evaluation.summary import BOOTSTRAP_SAMPLES, BOOTSTRAP_SEED, INTERVAL_PERCENT, Interval
from metseg.errors import UsageError

EDGES_MM3: Final = (27.0, 100.0, 1000.0)
"""27 mm3 is the small instance of the 2026 protocol, 1000 mm3 the paper's small lesion (Erdur et al. 2023, 2.5)."""


@dataclass(frozen=True, slots=True)
class SizeBand:
    """Lesions and false positives of one region whose volume is above `over_mm3` and at most `to_mm3`.

    Attributes:
        region: WT, TC, ET or RC.
        over_mm3: lower end, outside.
        to_mm3: upper end, inside; infinite for the last band.
        lesions: of the reference, over all cases.
        found: those that a predicted component matches.
        sensitivity: found / lesions; NaN without lesions.
        sensitivity_interval: 95 %, over resampled cases, so that the lesions of one patient stay together.
        mean_dice: over the lesions, 0 for those that were missed; NaN without lesions.
        false_positives_per_case: predicted components of this size that match no lesion.
        false_positives_interval: 95 %, over resampled cases.
    """

    region: str
    over_mm3: float
    to_mm3: float
    lesions: int
    found: int
    sensitivity: float
    sensitivity_interval: Interval
    mean_dice: float
    false_positives_per_case: float
    false_positives_interval: Interval

    @property
    def name(self) -> str:
        """Such as `<= 27`, `27-100`, `> 1000`."""
        if self.over_mm3 == 0:
            return f"<= {self.to_mm3:g}"
        return f"> {self.over_mm3:g}" if self.to_mm3 == math.inf else f"{self.over_mm3:g}-{self.to_mm3:g}"


def sort_by_size(cases: Sequence[ScoredCase], edges_mm3: Sequence[float] = EDGES_MM3) -> tuple[SizeBand, ...]:
    """Sorts every lesion and false positive of a cohort into bands of volume, region by region.

    Args:
        cases: scored with one protocol. A case without lesions still counts as a case.
        edges_mm3: ascending ends of the bands.
    """
    limits = list(zip((0.0, *edges_mm3), (*edges_mm3, math.inf), strict=True))
    regions = [region.region for region in cases[0].scores.regions] if cases else []
    return tuple(
        _count_band(region, limit, [_select(case, region) for case in cases]) for region in regions for limit in limits
    )


def check_picture(path: Path) -> None:
    """Fails early where a picture's name has no ending that says a format.

    Raises:
        UsageError: it has none, or one that matplotlib does not know.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - heavy

    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in known:
        raise UsageError(
            f"--size-plot {path}: expected a name that ends in a format's, found {path.suffix or 'no ending'}",
            hint=f"end it in one of {', '.join(f'.{name}' for name in sorted(known))}",
        )


def plot_sizes(bands: Sequence[SizeBand], path: Path) -> None:
    """Draws sensitivity and false positives by size, a line per region; the file's name says the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - heavy
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    regions = list(dict.fromkeys(band.region for band in bands))
    for offset, (region, marker) in enumerate(zip(regions, "osD^", strict=False)):
        own = [band for band in bands if band.region == region]
        places = np.arange(len(own)) + 0.12 * (offset - (len(regions) - 1) / 2)
        _draw(left, places, own, region, marker, "sensitivity", "sensitivity_interval")
        _draw(right, places, own, region, marker, "false_positives_per_case", "false_positives_interval")
    names = [band.name for band in bands if band.region == regions[0]]
    counts = [band.lesions for band in bands if band.region == regions[0]]
    left.set_xticks(range(len(names)), [f"{name}\nn = {count}" for name, count in zip(names, counts, strict=True)])
    right.set_xticks(range(len(names)), names)
    left.set(ylabel="share of lesions found", xlabel=f"lesion volume (mm³; n: {regions[0]})", ylim=(0, 1.02))
    right.set(ylabel="false positives per case", xlabel="volume of the false positive (mm³)")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _draw(axes, places, bands, region, marker, value, interval) -> None:  # type: ignore[no-untyped-def]  # noqa: PLR0917, ANN001 - axes of matplotlib
    middle = np.array([getattr(band, value) for band in bands])
    ends = np.array([[getattr(band, interval).low, getattr(band, interval).high] for band in bands])
    spread = np.abs(ends.T - middle)
    axes.errorbar(places, middle, yerr=np.nan_to_num(spread), marker=marker, capsize=3, label=region, markersize=5)


def _select(case: ScoredCase, region: str) -> tuple[LesionScore, ...]:
    return next(scores.lesions for scores in case.scores.regions if scores.region == region)


def _count_band(region: str, limit: tuple[float, float], cases: Sequence[Sequence[LesionScore]]) -> SizeBand:
    over, to = limit
    inside = [[item for item in case if over < item.volume_mm3 <= to] for case in cases]
    lesions = np.array([sum(item.kind == "lesion" for item in case) for case in inside], dtype=np.float64)
    found = np.array([sum(_is_found(item) for item in case) for case in inside], dtype=np.float64)
    invented = np.array([sum(item.kind == "false_positive" for item in case) for case in inside], dtype=np.float64)
    dices = [item.dice for case in inside for item in case if item.kind == "lesion"]
    total = float(lesions.sum())
    return SizeBand(
        region=region,
        over_mm3=over,
        to_mm3=to,
        lesions=int(total),
        found=int(found.sum()),
        sensitivity=float(found.sum()) / total if total else np.nan,
        sensitivity_interval=_resample_ratio(found, lesions),
        mean_dice=float(np.mean(dices)) if dices else np.nan,
        false_positives_per_case=float(invented.mean()),
        false_positives_interval=_resample_ratio(invented, np.ones_like(invented)),
    )


def _is_found(item: LesionScore) -> bool:
    return item.kind == "lesion" and bool(item.matched_components)


def _resample_ratio(counts: FloatArray, totals: FloatArray) -> Interval:
    """Percentile interval of sum(counts) / sum(totals) over resampled cases; seeded. NaN where it has no meaning."""
    if len(counts) < 2 or not totals.any():  # noqa: PLR2004 - one case has no spread
        return Interval(np.nan, np.nan)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=BOOTSTRAP_SAMPLES)
    below = drawn @ totals
    ratios = (drawn @ counts)[below > 0] / below[below > 0]
    low, high = np.percentile(ratios, INTERVAL_PERCENT)
    return Interval(float(low), float(high))
