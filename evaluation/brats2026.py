"""The instance-wise scores of BraTS 2026, the current official protocol (docs/scores.md)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from evaluation.components import Components, count_pairs, find_components
from evaluation.distances import find_surface_voxels, measure_agreement
from evaluation.results import LesionScore
from evaluation.window import MapPair, Spacing, Window, pair_maps
from metseg.labels import RC, REGION_LABELS

LARGE_VOLUME_MM3: Final = 27.0
"""Reference instances of at least this volume are large (official METS configuration)."""

OVERLAP_THRESHOLD: Final = 0.2
"""A matched instance counts as found from this Dice on (official METS configuration)."""

MATCHING_DICE: Final = 1e-6
"""Pairs up to this Dice never match."""

HD95_PENALTY_MM: Final = 373.0
"""HD95 of an instance without counterpart: the diagonal of a 240 x 240 x 155 mm head, rounded down."""

LABELS_OF_REGION: Final[Mapping[str, tuple[int, ...]]] = {
    "ET": REGION_LABELS["ET"],
    "RC": (RC,),
    "TC": REGION_LABELS["TC"],
    "WT": REGION_LABELS["WT"],
}
"""In the order of the official columns."""

COLUMNS: Final[Mapping[str, Callable[["Brats2026Region"], float]]] = {
    "all_instance_tp": attrgetter("all_instances.tp"),
    "all_instance_fp": attrgetter("all_instances.fp"),
    "all_instance_fn": attrgetter("all_instances.fn"),
    "all_instance_f1": attrgetter("all_instances.f1"),
    "large_instance_tp": attrgetter("large_instances.tp"),
    "large_instance_fp": attrgetter("large_instances.fp"),
    "large_instance_fn": attrgetter("large_instances.fn"),
    "large_instance_f1": attrgetter("large_instances.f1"),
    "lesionwise_dsc_mean": attrgetter("dsc.mean"),
    "lesionwise_dsc_std": attrgetter("dsc.std"),
    "lesionwise_hd95_mean": attrgetter("hd95_mm.mean"),
    "lesionwise_hd95_std": attrgetter("hd95_mm.std"),
    "lesionwise_nsd_mean": attrgetter("nsd.mean"),
    "lesionwise_nsd_std": attrgetter("nsd.std"),
    "small_instance_tp": attrgetter("small_instances.tp"),
    "small_instance_fn": attrgetter("small_instances.fn"),
    "small_instance_fp": attrgetter("small_instances.fp"),
    "small_instance_f1": attrgetter("small_instances.f1"),
}
"""Official name, without the region's suffix, to what it reads; in the official order."""

HEADLINE: Final[Mapping[str, str]] = {
    "lesionwise_dsc_mean": "lesion-wise DSC",
    "lesionwise_nsd_mean": "lesion-wise NSD",
    "lesionwise_hd95_mean": "lesion-wise HD95 (mm)",
    "all_instance_f1": "F1, all",
    "large_instance_f1": "F1, large",
    "small_instance_f1": "F1, small",
    "all_instance_fp": "false positives",
    "all_instance_fn": "missed instances",
}


@dataclass(frozen=True, slots=True)
class Detection:
    """Counts of instances and their F1; floats, because a class without instances has no counts (NaN)."""

    tp: float
    fp: float
    fn: float
    f1: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and population deviation over instances; NaN when the case has no large reference instance."""

    mean: float
    std: float


NO_DETECTION: Final = Detection(np.nan, np.nan, np.nan, np.nan)
NO_SPREAD: Final = Spread(np.nan, np.nan)


@dataclass(frozen=True, slots=True)
class Brats2026Region:
    """Scores of one region.

    Attributes:
        region: ET, RC, TC or WT.
        all_instances: matched, surplus and missed instances of any size; F1 is NaN when there are none at all.
        large_instances: of the large reference instances those found and missed, and all false positives of any size;
            F1 is 0 when there is nothing to count.
        small_instances: likewise for the small ones; all NaN when the reference has none.
        dsc: over matched large instances, with 0 for each missed one and each false positive of any size.
        hd95_mm: likewise, with 373.
        nsd: likewise, with 0.
        lesions: reference instances, then false positives.
    """

    region: str
    all_instances: Detection
    large_instances: Detection
    small_instances: Detection
    dsc: Spread
    hd95_mm: Spread
    nsd: Spread
    lesions: tuple[LesionScore, ...]

    def columns(self) -> dict[str, float]:
        """The scores under their official names, without the region's suffix."""
        return {column: float(read(self)) for column, read in COLUMNS.items()}


@dataclass(frozen=True, slots=True)
class Brats2026Scores:
    """Scores of one case: regions ET, RC, TC, WT."""

    regions: tuple[Brats2026Region, ...]

    def region(self, name: str) -> Brats2026Region:
        """The scores of ET, RC, TC or WT."""
        return {scores.region: scores for scores in self.regions}[name]

    def to_json(self) -> dict[str, Any]:
        """Official column, with the region as suffix, to value."""
        return {
            f"{column}_{scores.region.lower()}": value
            for scores in self.regions
            for column, value in scores.columns().items()
        }


@dataclass(frozen=True, slots=True)
class Brats2026:
    """The protocol and its options.

    Attributes:
        large_volume_mm3: see LARGE_VOLUME_MM3.
        overlap_threshold: see OVERLAP_THRESHOLD.
        true_millimetres: measure distances in true millimetres. The official program applies the voxel size in the
            order (x, y, z) to axes in the order (z, y, x); kept by default, so that figures are equal. On isotropic
            grids both are the same.
    """

    large_volume_mm3: float = LARGE_VOLUME_MM3
    overlap_threshold: float = OVERLAP_THRESHOLD
    true_millimetres: bool = False

    name: Literal["brats2026"] = "brats2026"

    @property
    def headline(self) -> Mapping[str, str]:
        """Columns for the terminal."""
        return HEADLINE

    def score(self, reference: NDArray[Any], prediction: NDArray[Any], spacing_mm: Spacing) -> Brats2026Scores:
        """Scores a prediction.

        Args:
            reference: shape (x, y, z), labels 0..4.
            prediction: the same grid.
            spacing_mm: voxel size, (x, y, z).

        Raises:
            InputError: see `evaluation.window.pair_maps`.
        """
        pair = pair_maps(reference, prediction, spacing_mm, margin=1)
        return Brats2026Scores(tuple(self._score_region(region, pair) for region in LABELS_OF_REGION))

    def score_missing(self, reference: NDArray[Any], spacing_mm: Spacing) -> Brats2026Scores:
        """The official figures of a missing case: 0 in every column, 373 in the HD95 columns; every lesion missed."""
        blank = self.score(reference, np.zeros_like(reference), spacing_mm)
        nothing, penalty = Spread(0.0, 0.0), Spread(HD95_PENALTY_MM, HD95_PENALTY_MM)
        none_found = Detection(0, 0, 0, 0.0)
        return Brats2026Scores(
            tuple(
                Brats2026Region(
                    scores.region, none_found, none_found, none_found, nothing, penalty, nothing, scores.lesions
                )
                for scores in blank.regions
            )
        )

    def regions_of_json(self, entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Region to column to value, from a written entry."""
        return {
            region: {column: _number(entry[f"{column}_{region.lower()}"]) for column in COLUMNS}
            for region in LABELS_OF_REGION
        }

    def _score_region(self, name: str, pair: MapPair) -> Brats2026Region:
        labels = LABELS_OF_REGION[name]
        reference = find_components(pair.reference.of_region(labels), pair.window)
        predicted = find_components(pair.prediction.of_region(labels), pair.window)
        matches = match_instances(reference, predicted, pair.window)
        instances = self._score_instances(name, pair.window, reference, predicted, matches)
        strays = _list_false_positives(name, pair.window, predicted, matches)
        matched, fp = len(matches), len(strays)
        large = [instance for instance in instances if instance.size_class == "large"]
        small = [instance for instance in instances if instance.size_class == "small"]
        entries = [*large, *strays] if large else []
        return Brats2026Region(
            region=name,
            all_instances=_detect(matched, fp, reference.count - matched, f1_of_nothing=np.nan),
            large_instances=self._detect_among(large, fp),
            small_instances=self._detect_among(small, fp) if small else NO_DETECTION,
            dsc=_spread([entry.dice for entry in entries]),
            hd95_mm=_spread([entry.hd95_mm for entry in entries]),
            nsd=_spread([entry.nsd or 0.0 for entry in entries]),
            lesions=(*instances, *strays),
        )

    def _detect_among(self, instances: Sequence[LesionScore], fp: int) -> Detection:
        tp = sum(instance.dice >= self.overlap_threshold for instance in instances)
        return _detect(tp, fp, len(instances) - tp, f1_of_nothing=0.0)

    def _score_instances(
        self,
        name: str,
        window: Window,
        reference: Components,
        predicted: Components,
        matches: Mapping[int, tuple[int, float]],
    ) -> list[LesionScore]:
        spacing = window.spacing_mm if self.true_millimetres else _reversed_spacing(window.spacing_mm)
        reference_surface = find_surface_voxels(reference, window)
        predicted_surface = find_surface_voxels(predicted, window)
        centroids = reference.centroids(window)
        instances = []
        for number, size in enumerate(reference.sizes, start=1):
            component, dice, hd95_mm, nsd = 0, 0.0, HD95_PENALTY_MM, 0.0
            if number in matches:
                component, dice = matches[number]
                agreement = measure_agreement(
                    reference_surface.of([number]), predicted_surface.of([component]), spacing, min(spacing)
                )
                hd95_mm, nsd = agreement.hd95_mm, agreement.nsd
            volume_mm3 = int(size) * window.voxel_volume_mm3
            instances.append(
                LesionScore(
                    region=name,
                    kind="lesion",
                    number=number,
                    volume_mm3=volume_mm3,
                    size_class="large" if volume_mm3 >= self.large_volume_mm3 else "small",
                    dice=dice,
                    hd95_mm=hd95_mm,
                    nsd=nsd,
                    matched_components=(component,) if component else (),
                    centroid_voxel=tuple(map(float, centroids[number - 1])),  # type: ignore[arg-type]
                )
            )
        return instances


def match_instances(reference: Components, predicted: Components, window: Window) -> dict[int, tuple[int, float]]:
    """One-to-one matching that minimises the summed 1 - Dice.

    Returns:
        Reference instance to (predicted instance, Dice of the pair), numbered from 1.
    """
    overlap = count_pairs(reference.number_volume(window)[predicted.indices], predicted.numbers)
    if not overlap:
        return {}
    dice = np.zeros((reference.count, predicted.count))
    for (row, column), common in overlap.items():
        dice[row - 1, column - 1] = 2 * common / (reference.sizes[row - 1] + predicted.sizes[column - 1])
    allowed = dice > MATCHING_DICE
    # The full matrix, also where nothing overlaps: which of two equally good matchings wins depends on it.
    rows, columns = linear_sum_assignment(np.where(allowed, 1 - dice, 1 + MATCHING_DICE))
    return {
        int(row) + 1: (int(column) + 1, float(dice[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if allowed[row, column]
    }


def _list_false_positives(
    name: str, window: Window, predicted: Components, matches: Mapping[int, tuple[int, float]]
) -> list[LesionScore]:
    matched = {component for component, _ in matches.values()}
    centroids = predicted.centroids(window)
    return [
        LesionScore(
            region=name,
            kind="false_positive",
            number=number,
            volume_mm3=int(size) * window.voxel_volume_mm3,
            size_class="counted",
            dice=0.0,
            hd95_mm=HD95_PENALTY_MM,
            nsd=0.0,
            matched_components=(),
            centroid_voxel=tuple(map(float, centroids[number - 1])),  # type: ignore[arg-type]
        )
        for number, size in enumerate(predicted.sizes, start=1)
        if number not in matched
    ]


def _reversed_spacing(spacing_mm: Spacing) -> Spacing:
    x, y, z = spacing_mm
    return z, y, x


def _detect(tp: int, fp: int, fn: int, f1_of_nothing: float) -> Detection:
    total = 2 * tp + fp + fn
    return Detection(tp, fp, fn, 2 * tp / total if total else f1_of_nothing)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values))) if values else NO_SPREAD


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
