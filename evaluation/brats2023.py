"""The lesion-wise scores of BraTS 2023, the protocol that Erdur et al. report (docs/scores.md)."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.components import Components, count_pairs, find_components, group_by_dilation
from evaluation.distances import ComponentSurfaces, area_weighted_hd95, find_surfels
from evaluation.results import LesionScore
from evaluation.window import IntArray, MapPair, Spacing, Window, pair_maps
from metseg.labels import REGION_LABELS, REGIONS

HD95_PENALTY_MM: Final = 374.0
"""HD95 of a lesion or region without counterpart: the diagonal of a 240 x 240 x 155 mm head, as officially rounded."""


@dataclass(frozen=True, slots=True)
class ChallengeParameters:
    """What differs between the challenges of BraTS 2023.

    Attributes:
        dilation: passes of the 18-neighbour dilation that groups reference lesions and reaches for predictions.
        ignored_volume_mm3: reference lesions up to this volume enter neither the counts nor the lesion-wise scores.
    """

    dilation: int
    ignored_volume_mm3: float


CHALLENGES: Final[Mapping[str, ChallengeParameters]] = {
    "METS": ChallengeParameters(dilation=1, ignored_volume_mm3=2),
    "GLI": ChallengeParameters(dilation=3, ignored_volume_mm3=50),
    "SSA": ChallengeParameters(dilation=3, ignored_volume_mm3=50),
    "MEN": ChallengeParameters(dilation=1, ignored_volume_mm3=50),
    "PED": ChallengeParameters(dilation=3, ignored_volume_mm3=50),
}
"""Parameters of the official script per challenge."""

COLUMNS: Final[Mapping[str, str]] = {
    "Num_TP": "tp",
    "Num_FP": "fp",
    "Num_FN": "fn",
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "Legacy_Dice": "legacy_dice",
    "Legacy_HD95": "legacy_hd95_mm",
    "GT_Complete_Volume": "reference_volume_mm3",
    "LesionWise_Score_Dice": "lesion_wise_dice",
    "LesionWise_Score_HD95": "lesion_wise_hd95_mm",
}
"""Official name to attribute, in the official order."""

HEADLINE: Final[Mapping[str, str]] = {
    "LesionWise_Score_Dice": "lesion-wise Dice",
    "LesionWise_Score_HD95": "lesion-wise HD95 (mm)",
    "Legacy_Dice": "legacy Dice",
    "Legacy_HD95": "legacy HD95 (mm)",
    "Sensitivity": "sensitivity",
    "Num_FP": "false positives",
    "Num_FN": "missed lesions",
}


@dataclass(frozen=True, slots=True)
class Brats2023Region:
    """Scores of one region.

    Attributes:
        region: WT, TC or ET.
        tp: reference lesions that some predicted component touches, of counted size.
        fp: predicted components that touch no reference lesion, of any size.
        fn: reference lesions that none touches, of counted size.
        sensitivity: per voxel; 1 when both maps are empty, 0 when only the reference is.
        specificity: per voxel of the whole grid.
        legacy_dice: of the whole masks; 1 when both are empty.
        legacy_hd95_mm: of the whole masks; 0 when both are empty, 374 when one is.
        reference_volume_mm3: volume of the reference mask, lesions of any size.
        lesion_wise_dice: sum over counted lesions / (counted lesions + fp); 1 when there is neither.
        lesion_wise_hd95_mm: likewise with 374 per miss and false positive; 0 when there is neither.
        lesions: reference lesions, then false positives.
    """

    region: str
    tp: int
    fp: int
    fn: int
    sensitivity: float
    specificity: float
    legacy_dice: float
    legacy_hd95_mm: float
    reference_volume_mm3: float
    lesion_wise_dice: float
    lesion_wise_hd95_mm: float
    lesions: tuple[LesionScore, ...]

    def columns(self) -> dict[str, float]:
        """The scores under their official names."""
        return {column: float(getattr(self, attribute)) for column, attribute in COLUMNS.items()}


@dataclass(frozen=True, slots=True)
class Brats2023Scores:
    """Scores of one case: regions WT, TC, ET."""

    regions: tuple[Brats2023Region, ...]

    def region(self, name: str) -> Brats2023Region:
        """The scores of WT, TC or ET."""
        return {scores.region: scores for scores in self.regions}[name]

    def to_json(self) -> dict[str, Any]:
        """Region to official name to value."""
        return {scores.region: scores.columns() for scores in self.regions}


@dataclass(frozen=True, slots=True)
class Brats2023:
    """The protocol with the parameters of one challenge."""

    parameters: ChallengeParameters = CHALLENGES["METS"]

    name: Literal["brats2023"] = "brats2023"

    @property
    def headline(self) -> Mapping[str, str]:
        """Columns for the terminal."""
        return HEADLINE

    def score(self, reference: NDArray[Any], prediction: NDArray[Any], spacing_mm: Spacing) -> Brats2023Scores:
        """Scores a prediction.

        Args:
            reference: shape (x, y, z), labels 0..4 (4 belongs to no region of this protocol).
            prediction: the same grid.
            spacing_mm: voxel size, (x, y, z).

        Raises:
            InputError: see `evaluation.window.pair_maps`.
        """
        # The dilation grows the reference by `dilation`, and every neighbour of that must still lie in the window.
        pair = pair_maps(reference, prediction, spacing_mm, margin=self.parameters.dilation + 1)
        return Brats2023Scores(tuple(_score_region(region, pair, self.parameters) for region in REGIONS))

    def score_missing(self, reference: NDArray[Any], spacing_mm: Spacing) -> Brats2023Scores:
        """The worst scores: no file is not the same as a map that says "no tumour".

        The official evaluator refuses a submission that lacks a case, so the figures are ours: every counted lesion
        missed, 0 and 374 even where the reference is empty.
        """
        blank = self.score(reference, np.zeros_like(reference), spacing_mm)
        return Brats2023Scores(
            tuple(
                replace(
                    region,
                    sensitivity=0.0,
                    specificity=0.0,
                    legacy_dice=0.0,
                    legacy_hd95_mm=HD95_PENALTY_MM,
                    lesion_wise_dice=0.0,
                    lesion_wise_hd95_mm=HD95_PENALTY_MM,
                )
                for region in blank.regions
            )
        )

    def regions_of_json(self, entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Region to column to value, from a written entry."""
        return {region: {column: float(entry[region][column]) for column in COLUMNS} for region in REGIONS}


@dataclass(frozen=True, slots=True)
class _Region:
    """One region's masks, taken apart once for all its scores."""

    name: str
    window: Window
    lesions: Components
    predicted: Components
    overlap: dict[tuple[int, int], int]
    matches: dict[int, tuple[int, ...]]
    lesion_surfels: ComponentSurfaces
    predicted_surfels: ComponentSurfaces


def _take_apart(name: str, pair: MapPair, dilation: int) -> _Region:
    labels = REGION_LABELS[name]
    window = pair.window
    lesions, reach = group_by_dilation(pair.reference.of_region(labels), window, dilation)
    predicted = find_components(pair.prediction.of_region(labels), window)
    lesion_at_prediction: IntArray = lesions.number_volume(window)[predicted.indices]
    matches: dict[int, tuple[int, ...]] = {}
    for lesion, component in count_pairs(reach[predicted.indices], predicted.numbers):
        matches[lesion] = (*matches.get(lesion, ()), component)
    return _Region(
        name=name,
        window=window,
        lesions=lesions,
        predicted=predicted,
        overlap=count_pairs(lesion_at_prediction, predicted.numbers),
        matches=matches,
        lesion_surfels=find_surfels(lesions, window),
        predicted_surfels=find_surfels(predicted, window),
    )


def _score_region(name: str, pair: MapPair, parameters: ChallengeParameters) -> Brats2023Region:
    region = _take_apart(name, pair, parameters.dilation)
    lesions = _score_lesions(region, parameters.ignored_volume_mm3)
    strays = _list_false_positives(region)
    counted = [lesion for lesion in lesions if lesion.size_class == "counted"]
    tp = sum(bool(lesion.matched_components) for lesion in counted)
    entries = len(counted) + len(strays)
    dice_sum = sum(lesion.dice for lesion in counted)
    hd95_sum = sum(lesion.hd95_mm for lesion in counted) + HD95_PENALTY_MM * len(strays)
    legacy = _score_whole_masks(region)
    return Brats2023Region(
        region=name,
        tp=tp,
        fp=len(strays),
        fn=len(counted) - tp,
        **legacy,
        reference_volume_mm3=len(region.lesions.indices) * pair.window.voxel_volume_mm3,
        lesion_wise_dice=dice_sum / entries if entries else 1.0,
        lesion_wise_hd95_mm=hd95_sum / entries if entries else 0.0,
        lesions=(*lesions, *strays),
    )


def _score_lesions(region: _Region, ignored_volume_mm3: float) -> list[LesionScore]:
    sizes, predicted_sizes = region.lesions.sizes, region.predicted.sizes
    centroids = region.lesions.centroids(region.window)
    scores = []
    for number in range(1, region.lesions.count + 1):
        matched = region.matches.get(number, ())
        volume_mm3 = int(sizes[number - 1]) * region.window.voxel_volume_mm3
        common = sum(region.overlap.get((number, component), 0) for component in matched)
        voxels = int(sizes[number - 1]) + sum(int(predicted_sizes[component - 1]) for component in matched)
        hd95_mm = area_weighted_hd95(
            region.lesion_surfels.of([number]), region.predicted_surfels.of(matched), region.window.spacing_mm
        )
        scores.append(
            LesionScore(
                region=region.name,
                kind="lesion",
                number=number,
                volume_mm3=volume_mm3,
                size_class="ignored" if volume_mm3 <= ignored_volume_mm3 else "counted",
                dice=2 * common / voxels,
                hd95_mm=hd95_mm if np.isfinite(hd95_mm) else HD95_PENALTY_MM,
                nsd=None,
                matched_components=matched,
                centroid_voxel=tuple(map(float, centroids[number - 1])),  # type: ignore[arg-type]
            )
        )
    return scores


def _list_false_positives(region: _Region) -> list[LesionScore]:
    matched = {component for components in region.matches.values() for component in components}
    sizes = region.predicted.sizes
    centroids = region.predicted.centroids(region.window)
    return [
        LesionScore(
            region=region.name,
            kind="false_positive",
            number=number,
            volume_mm3=int(sizes[number - 1]) * region.window.voxel_volume_mm3,
            size_class="counted",
            dice=0.0,
            hd95_mm=HD95_PENALTY_MM,
            nsd=None,
            matched_components=(),
            centroid_voxel=tuple(map(float, centroids[number - 1])),  # type: ignore[arg-type]
        )
        for number in range(1, region.predicted.count + 1)
        if number not in matched
    ]


def _score_whole_masks(region: _Region) -> dict[str, float]:
    """Legacy Dice and HD95, sensitivity, specificity."""
    reference, predicted = len(region.lesions.indices), len(region.predicted.indices)
    if reference == 0 and predicted == 0:
        return {"sensitivity": 1.0, "specificity": 1.0, "legacy_dice": 1.0, "legacy_hd95_mm": 0.0}
    common = sum(region.overlap.values())
    background = region.window.grid_voxels - reference
    correct_background = background - (predicted - common)
    hd95_mm = area_weighted_hd95(region.lesion_surfels.whole, region.predicted_surfels.whole, region.window.spacing_mm)
    # The smallest float in the denominators is the official script's: an empty reference scores 0, not NaN.
    return {
        "sensitivity": common / (reference + sys.float_info.min),
        "specificity": correct_background / (background + sys.float_info.min),
        "legacy_dice": 2 * common / (reference + predicted),
        "legacy_hd95_mm": hd95_mm if np.isfinite(hd95_mm) else HD95_PENALTY_MM,
    }
