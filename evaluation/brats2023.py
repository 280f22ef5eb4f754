"""The lesion-wise scores of BraTS 2023, the protocol that Erdur et al. report (docs/scores.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.components import count_pairs, find_centroids, group_by_dilation, split_region
from evaluation.distances import ComponentSurfaces, find_surfels, measure_area_weighted_hd95
from evaluation.edge_cases import EdgeCase, EdgeCases, divide
from evaluation.joint_box import IntArray, JointBox, MapPair, Spacing, pair_maps
from evaluation.lesions import LesionScore, as_centroid, list_false_positives
from metseg.labels import BRATS_REGIONS, Region
from metseg.space.components import Components

HD95_PENALTY_MM: Final = 374.0
"""HD95 of a lesion or region without counterpart: the diagonal of a 240 x 240 x 155 mm head, as officially rounded."""

EDGE_CASES: Final = EdgeCases.from_rows(
    EdgeCase(
        "nothing in the reference",
        {"sensitivity": 0.0, "legacy_dice": 0.0, "legacy_hd95_mm": HD95_PENALTY_MM},
        "official program",
    ),
    EdgeCase(
        "nothing in the prediction",
        {"sensitivity": 0.0, "specificity": 1.0, "legacy_dice": 0.0, "legacy_hd95_mm": HD95_PENALTY_MM},
        "official program",
    ),
    EdgeCase(
        "nothing on both sides",
        {"sensitivity": 1.0, "specificity": 1.0, "legacy_dice": 1.0, "legacy_hd95_mm": 0.0},
        "official program",
    ),
    EdgeCase("no background", {"specificity": 0.0}, "official program"),
    EdgeCase(
        "no counted lesion, no false positive",
        {"lesion_wise_dice": 1.0, "lesion_wise_hd95_mm": 0.0},
        "official program",
    ),
    EdgeCase("unmatched lesion", {"dice": 0.0, "hd95_mm": HD95_PENALTY_MM}, "official program"),
    EdgeCase("false positive", {"dice": 0.0, "hd95_mm": HD95_PENALTY_MM}, "official program"),
    # The official evaluator refuses a submission that lacks a case. No file is not the same as a map without tumour.
    EdgeCase(
        "missing prediction",
        {
            "sensitivity": 0.0,
            "specificity": 0.0,
            "legacy_dice": 0.0,
            "legacy_hd95_mm": HD95_PENALTY_MM,
            "lesion_wise_dice": 0.0,
            "lesion_wise_hd95_mm": HD95_PENALTY_MM,
        },
        "this project",
    ),
)
"""Scores are those of `Brats2023RegionScores`; of a lesion or false positive, those of `LesionScore`."""


@dataclass(frozen=True, slots=True)
class ChallengeParameters:
    """What differs between the challenges of BraTS 2023.

    Attributes:
        dilation: passes of the 18-neighbour dilation that groups reference lesions and reaches for predictions.
        ignored_volume_mm3: reference lesions up to this volume enter neither the counts nor the lesion-wise scores.
    """

    dilation: int
    ignored_volume_mm3: float


ChallengeName = Literal["METS", "GLI", "SSA", "MEN", "PED"]

CHALLENGES: Final[Mapping[ChallengeName, ChallengeParameters]] = {
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
class Brats2023RegionScores:
    """Scores of one region; EDGE_CASES says what they are where a mask is empty.

    Attributes:
        region: WT, TC or ET.
        tp: reference lesions that some predicted component touches, of counted size.
        fp: predicted components that touch no reference lesion, of any size.
        fn: reference lesions that none touches, of counted size.
        sensitivity: share of the reference's voxels that are predicted.
        specificity: share of the other voxels of the whole grid that are not.
        legacy_dice: of the whole masks.
        legacy_hd95_mm: of the whole masks.
        reference_volume_mm3: volume of the reference mask, lesions of any size.
        lesion_wise_dice: sum over counted lesions / (counted lesions + fp).
        lesion_wise_hd95_mm: likewise with 374 per miss and false positive.
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

    regions: tuple[Brats2023RegionScores, ...]

    def region(self, name: str) -> Brats2023RegionScores:
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
    def scored_regions(self) -> tuple[Region, ...]:
        """WT, TC and ET."""
        return BRATS_REGIONS.listed

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
            InputError: see `evaluation.joint_box.pair_maps`.
        """
        # The dilation grows the reference by `dilation`, and every neighbour of that must still lie in the box.
        pair = pair_maps(reference, prediction, spacing_mm, margin=self.parameters.dilation + 1)
        return Brats2023Scores(tuple(_score_region(region, pair, self.parameters) for region in self.scored_regions))

    def score_missing(self, reference: NDArray[Any], spacing_mm: Spacing) -> Brats2023Scores:
        """The scores of a case without prediction: every counted lesion missed, and the table's worst figures."""
        blank = self.score(reference, np.zeros_like(reference), spacing_mm)
        worst = EDGE_CASES.find("missing prediction")
        return Brats2023Scores(tuple(replace(scores, **worst) for scores in blank.regions))

    def parse_json(self, entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Region to column to value, from a written entry."""
        return {
            region.name: {column: float(entry[region.name][column]) for column in COLUMNS}
            for region in self.scored_regions
        }


@dataclass(frozen=True, slots=True)
class _RegionParts:
    """One region's masks, taken apart once for all its scores.

    Attributes:
        region: its name.
        box: where all voxels lie.
        lesions: of the reference, grouped by dilation.
        predicted: components of the prediction.
        overlap: lesion and predicted component to their common voxels.
        matches: lesion to the predicted components that touch it dilated, ascending.
        lesion_surfels: surface of each lesion.
        predicted_surfels: surface of each predicted component.
    """

    region: str
    box: JointBox
    lesions: Components
    predicted: Components
    overlap: Mapping[tuple[int, int], int]
    matches: Mapping[int, tuple[int, ...]]
    lesion_surfels: ComponentSurfaces
    predicted_surfels: ComponentSurfaces


def _take_apart(region: Region, pair: MapPair, dilation: int) -> _RegionParts:
    box = pair.box
    lesions, lesion_at = group_by_dilation(pair.reference.select(region), box, dilation)
    predicted = split_region(pair.prediction.select(region), box)
    undilated_at: IntArray = lesions.to_volume().ravel()
    matches: dict[int, tuple[int, ...]] = {}
    for lesion, component in count_pairs(lesion_at[predicted.voxels], predicted.component_of):
        matches[lesion] = (*matches.get(lesion, ()), component)
    return _RegionParts(
        region=region.name,
        box=box,
        lesions=lesions,
        predicted=predicted,
        overlap=count_pairs(undilated_at[predicted.voxels], predicted.component_of),
        matches=matches,
        lesion_surfels=find_surfels(lesions, box),
        predicted_surfels=find_surfels(predicted, box),
    )


def _score_region(region: Region, pair: MapPair, parameters: ChallengeParameters) -> Brats2023RegionScores:
    parts = _take_apart(region, pair, parameters.dilation)
    lesions = _score_lesions(parts, parameters.ignored_volume_mm3)
    matched = {component for components in parts.matches.values() for component in components}
    false_positives = list_false_positives(
        region.name, parts.predicted, parts.box, matched, EDGE_CASES.find("false positive")
    )
    counted = [lesion for lesion in lesions if lesion.size_class == "counted"]
    tp = sum(bool(lesion.matched_components) for lesion in counted)
    reference, predicted = len(parts.lesions.voxels), len(parts.predicted.voxels)
    scores = EDGE_CASES.settle(
        {**_measure_masks(parts), **_average(counted, len(false_positives))},
        {
            "nothing in the reference": not reference,
            "nothing in the prediction": not predicted,
            "nothing on both sides": not reference and not predicted,
            "no background": reference == parts.box.grid_voxels,
            "no counted lesion, no false positive": not counted and not false_positives,
        },
    )
    return Brats2023RegionScores(
        region=region.name,
        tp=tp,
        fp=len(false_positives),
        fn=len(counted) - tp,
        reference_volume_mm3=reference * parts.box.voxel_volume_mm3,
        lesions=(*lesions, *false_positives),
        **scores,
    )


def _measure_masks(parts: _RegionParts) -> dict[str, float]:
    """Legacy Dice and HD95, sensitivity, specificity, of masks that are not empty."""
    reference, predicted = len(parts.lesions.voxels), len(parts.predicted.voxels)
    common = sum(parts.overlap.values())
    background = parts.box.grid_voxels - reference
    return {
        "sensitivity": divide(common, reference),
        "specificity": divide(background - (predicted - common), background),
        "legacy_dice": divide(2 * common, reference + predicted),
        "legacy_hd95_mm": measure_area_weighted_hd95(
            parts.lesion_surfels.whole, parts.predicted_surfels.whole, parts.box.spacing_mm
        ),
    }


def _average(counted: Sequence[LesionScore], false_positives: int) -> dict[str, float]:
    """Lesion-wise Dice and HD95."""
    each = EDGE_CASES.find("false positive")
    entries = len(counted) + false_positives
    dice_sum = sum(lesion.dice for lesion in counted) + each["dice"] * false_positives
    hd95_sum = sum(lesion.hd95_mm for lesion in counted) + each["hd95_mm"] * false_positives
    return {"lesion_wise_dice": divide(dice_sum, entries), "lesion_wise_hd95_mm": divide(hd95_sum, entries)}


def _score_lesions(parts: _RegionParts, ignored_volume_mm3: float) -> list[LesionScore]:
    centroids = find_centroids(parts.lesions, parts.box)
    scores = []
    for number, size in enumerate(parts.lesions.sizes, start=1):
        volume_mm3 = int(size) * parts.box.voxel_volume_mm3
        matched = parts.matches.get(number, ())
        agreement = _compare_lesion(parts, number, matched) if matched else EDGE_CASES.find("unmatched lesion")
        scores.append(
            LesionScore(
                region=parts.region,
                kind="lesion",
                number=number,
                volume_mm3=volume_mm3,
                size_class="ignored" if volume_mm3 <= ignored_volume_mm3 else "counted",
                dice=agreement["dice"],
                hd95_mm=agreement["hd95_mm"],
                nsd=None,
                matched_components=matched,
                centroid_voxel=as_centroid(centroids[number - 1]),
            )
        )
    return scores


def _compare_lesion(parts: _RegionParts, number: int, matched: tuple[int, ...]) -> dict[str, float]:
    """Dice and HD95 of a lesion against all of its matched components together."""
    common = sum(parts.overlap.get((number, component), 0) for component in matched)
    voxels = int(parts.lesions.sizes[number - 1])
    voxels += sum(int(parts.predicted.sizes[component - 1]) for component in matched)
    hd95_mm = measure_area_weighted_hd95(
        parts.lesion_surfels.join([number]), parts.predicted_surfels.join(matched), parts.box.spacing_mm
    )
    return {"dice": 2 * common / voxels, "hd95_mm": hd95_mm}
