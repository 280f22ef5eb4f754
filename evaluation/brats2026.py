"""The instance-wise scores of BraTS 2026, the current official protocol (docs/scores.md)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from evaluation.components import count_pairs, find_centroids, split_region
from evaluation.distances import ComponentSurfaces, find_surface_voxels, measure_agreement
from evaluation.edge_cases import UNDEFINED, EdgeCase, EdgeCases, divide
from evaluation.joint_box import JointBox, MapPair, Spacing, pair_maps
from evaluation.lesions import LesionScore, as_centroid, list_false_positives
from metseg.labels import BRATS_REGIONS, RC, Region, Regions
from metseg.space.components import Components

LARGE_VOLUME_MM3: Final = 27.0
"""Reference instances of at least this volume are large (official METS configuration)."""

OVERLAP_THRESHOLD: Final = 0.2
"""A matched instance counts as found from this Dice on (official METS configuration)."""

MATCHING_DICE: Final = 1e-6
"""Pairs up to this Dice never match."""

HD95_PENALTY_MM: Final = 373.0
"""HD95 of an instance without counterpart: the diagonal of a 240 x 240 x 155 mm head, rounded down."""

REGIONS: Final = Regions((*BRATS_REGIONS.listed, Region("RC", (RC,))))
"""WT, TC and ET, and beside them the resection cavity."""

COLUMNS: Final[Mapping[str, Callable[["Brats2026RegionScores"], float]]] = {
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
    """Mean and population deviation over instances."""

    mean: float
    std: float


NO_SPREAD: Final = Spread(UNDEFINED, UNDEFINED)

EDGE_CASES: Final = EdgeCases.from_rows(
    EdgeCase("nothing on both sides", {"all_instances": Detection(tp=0, fp=0, fn=0, f1=np.nan)}, "official program"),
    EdgeCase("no large lesion", {"dsc": NO_SPREAD, "hd95_mm": NO_SPREAD, "nsd": NO_SPREAD}, "official program"),
    EdgeCase(
        "no large lesion, no false positive",
        {"large_instances": Detection(tp=0, fp=0, fn=0, f1=0.0)},
        "official program",
    ),
    EdgeCase("no small lesion", {"small_instances": Detection(np.nan, np.nan, np.nan, np.nan)}, "official program"),
    EdgeCase("unmatched lesion", {"dice": 0.0, "hd95_mm": HD95_PENALTY_MM, "nsd": 0.0}, "official program"),
    EdgeCase("false positive", {"dice": 0.0, "hd95_mm": HD95_PENALTY_MM, "nsd": 0.0}, "official program"),
    EdgeCase(
        "missing prediction",
        {
            "all_instances": Detection(0, 0, 0, 0.0),
            "large_instances": Detection(0, 0, 0, 0.0),
            "small_instances": Detection(0, 0, 0, 0.0),
            "dsc": Spread(0.0, 0.0),
            "hd95_mm": Spread(HD95_PENALTY_MM, HD95_PENALTY_MM),
            "nsd": Spread(0.0, 0.0),
        },
        "official program",
    ),
)
"""Scores are those of `Brats2026RegionScores`; of a lesion or false positive, those of `LesionScore`."""


@dataclass(frozen=True, slots=True)
class Brats2026RegionScores:
    """Scores of one region; EDGE_CASES says what they are where instances of a kind are lacking.

    Attributes:
        region: ET, RC, TC or WT.
        all_instances: matched, surplus and missed instances of any size.
        large_instances: of the large reference instances those found and missed, and all false positives of any size.
        small_instances: likewise for the small ones.
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

    regions: tuple[Brats2026RegionScores, ...]

    def region(self, name: str) -> Brats2026RegionScores:
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
    def scored_regions(self) -> tuple[Region, ...]:
        """ET, RC, TC and WT: the official columns come in alphabetical order."""
        return tuple(sorted(REGIONS, key=attrgetter("name")))

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
            InputError: see `evaluation.joint_box.pair_maps`.
        """
        pair = pair_maps(reference, prediction, spacing_mm, margin=1)
        return Brats2026Scores(tuple(self._score_region(region, pair) for region in self.scored_regions))

    def score_missing(self, reference: NDArray[Any], spacing_mm: Spacing) -> Brats2026Scores:
        """The official figures of a missing case; every lesion missed."""
        blank = self.score(reference, np.zeros_like(reference), spacing_mm)
        worst = EDGE_CASES.find("missing prediction")
        return Brats2026Scores(tuple(replace(scores, **worst) for scores in blank.regions))

    def parse_json(self, entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Region to column to value, from a written entry."""
        return {
            region.name: {column: _read_number(entry[f"{column}_{region.name.lower()}"]) for column in COLUMNS}
            for region in self.scored_regions
        }

    def _score_region(self, region: Region, pair: MapPair) -> Brats2026RegionScores:
        reference = split_region(pair.reference.select(region), pair.box)
        predicted = split_region(pair.prediction.select(region), pair.box)
        matches = match_instances(reference, predicted)
        instances = self._score_instances(region.name, pair.box, reference, predicted, matches)
        false_positives = list_false_positives(
            region.name,
            predicted,
            pair.box,
            {component for component, _ in matches.values()},
            EDGE_CASES.find("false positive"),
        )
        large = [instance for instance in instances if instance.size_class == "large"]
        small = [instance for instance in instances if instance.size_class == "small"]
        fp = len(false_positives)
        entries = [*large, *false_positives]
        scores = EDGE_CASES.settle(
            {
                "all_instances": _count_detections(len(matches), fp, len(instances) - len(matches)),
                "large_instances": self._count_found(large, fp),
                "small_instances": self._count_found(small, fp),
                "dsc": _spread([entry.dice for entry in entries]),
                "hd95_mm": _spread([entry.hd95_mm for entry in entries]),
                "nsd": _spread([entry.nsd or 0.0 for entry in entries]),
            },
            {
                "nothing on both sides": not instances and not false_positives,
                "no large lesion": not large,
                "no large lesion, no false positive": not large and not false_positives,
                "no small lesion": not small,
            },
        )
        return Brats2026RegionScores(region=region.name, lesions=(*instances, *false_positives), **scores)

    def _count_found(self, instances: Sequence[LesionScore], fp: int) -> Detection:
        tp = sum(instance.dice >= self.overlap_threshold for instance in instances)
        return _count_detections(tp, fp, len(instances) - tp)

    def _score_instances(
        self,
        region: str,
        box: JointBox,
        reference: Components,
        predicted: Components,
        matches: Mapping[int, tuple[int, float]],
    ) -> list[LesionScore]:
        spacing = box.spacing_mm if self.true_millimetres else _reverse(box.spacing_mm)
        reference_surfaces = find_surface_voxels(reference, box)
        predicted_surfaces = find_surface_voxels(predicted, box)
        centroids = find_centroids(reference, box)
        instances = []
        for number, size in enumerate(reference.sizes, start=1):
            volume_mm3 = int(size) * box.voxel_volume_mm3
            matched: tuple[int, ...] = ()
            scores = EDGE_CASES.find("unmatched lesion")
            if number in matches:
                component, dice = matches[number]
                matched = (component,)
                scores = {"dice": dice, **_compare(reference_surfaces, number, predicted_surfaces, component, spacing)}
            instances.append(
                LesionScore(
                    region=region,
                    kind="lesion",
                    number=number,
                    volume_mm3=volume_mm3,
                    size_class="large" if volume_mm3 >= self.large_volume_mm3 else "small",
                    dice=scores["dice"],
                    hd95_mm=scores["hd95_mm"],
                    nsd=scores["nsd"],
                    matched_components=matched,
                    centroid_voxel=as_centroid(centroids[number - 1]),
                )
            )
        return instances


def _compare(
    reference: ComponentSurfaces, number: int, predicted: ComponentSurfaces, component: int, spacing_mm: Spacing
) -> dict[str, float]:
    """HD95 and NSD of a matched pair; the tolerance is the smallest voxel side."""
    agreement = measure_agreement(reference.join([number]), predicted.join([component]), spacing_mm, min(spacing_mm))
    return {"hd95_mm": agreement.hd95_mm, "nsd": agreement.nsd}


def match_instances(reference: Components, predicted: Components) -> dict[int, tuple[int, float]]:
    """One-to-one matching that minimises the summed 1 - Dice.

    Returns:
        Reference instance to (predicted instance, Dice of the pair), numbered from 1.
    """
    overlap = count_pairs(reference.to_volume().ravel()[predicted.voxels], predicted.component_of)
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


def _reverse(spacing_mm: Spacing) -> Spacing:
    x, y, z = spacing_mm
    return z, y, x


def _count_detections(tp: int, fp: int, fn: int) -> Detection:
    return Detection(tp, fp, fn, divide(2 * tp, 2 * tp + fp + fn))


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values))) if values else NO_SPREAD


def _read_number(value: float | None) -> float:
    return np.nan if value is None else float(value)
