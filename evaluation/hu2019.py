"""The scores of Hu et al. 2019: voxels, and metastases of which at least one voxel was found (docs/radiosurgery.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.components import count_pairs, find_centroids, split_region
from evaluation.edge_cases import EdgeCase, EdgeCases, divide
from evaluation.joint_box import JointBox, MapPair, Spacing, pair_maps
from evaluation.lesions import LesionScore, as_centroid, list_false_positives
from metseg.labels import BRATS_REGIONS, METASTASIS_REGIONS, RC, Region
from metseg.space.components import Components

LARGE_VOLUME_MM3: Final = 1500.0
"""Metastases of at least this volume are large (Hu et al. 2019, Table 2)."""

REGION: Final = Region(METASTASIS_REGIONS.whole.name, (*BRATS_REGIONS.labels, RC))
"""Any label counts as metastasis: the radiosurgery system has one."""

EDGE_CASES: Final = EdgeCases.from_rows(  # the paper says nothing of them
    EdgeCase("nothing in the reference", {"recall": np.nan, "lesion_recall": np.nan}, "this project"),
    EdgeCase("nothing in the prediction", {"precision": np.nan}, "this project"),
    EdgeCase("nothing on both sides", {"dsc": 1.0}, "this project"),
    EdgeCase("no small lesion", {"small_recall": np.nan, "small_lesion_recall": np.nan}, "this project"),
    EdgeCase("no large lesion", {"large_recall": np.nan, "large_lesion_recall": np.nan}, "this project"),
    EdgeCase("unmatched lesion", {"dice": 0.0, "hd95_mm": np.nan}, "this project"),
    EdgeCase("false positive", {"dice": 0.0, "hd95_mm": np.nan}, "this project"),
    # No file is not the same as a map without metastasis. Where the reference is empty, no prediction has a recall.
    EdgeCase("missing prediction", {"dsc": 0.0, "precision": 0.0}, "this project"),
)
"""Scores are those of `Hu2019Columns`; of a metastasis or false positive, those of `LesionScore`."""

HEADLINE: Final[Mapping[str, str]] = {
    "dsc": "DSC",
    "precision": "precision",
    "recall": "recall",
    "lesion_recall": "metastases found",
    "small_lesion_recall": "small ones found",
    "large_lesion_recall": "large ones found",
}


@dataclass(frozen=True, slots=True)
class Hu2019Columns:
    """The figures of one case; EDGE_CASES says what they are where there is nothing to divide by.

    Attributes:
        dsc: Dice of all voxels.
        precision: share of the predicted voxels that are right.
        recall: share of the reference's voxels that are found.
        lesion_recall: share of the reference's metastases of which a voxel is found.
        lesions: how many the reference has.
        small_recall: as `recall`, over metastases under 1500 mm3.
        small_lesion_recall: as `lesion_recall`, over these.
        small_lesions: how many these are.
        large_recall: over the others.
        large_lesion_recall: over these.
        large_lesions: how many these are.
        false_positives: predicted components that touch no metastasis.
    """

    dsc: float
    precision: float
    recall: float
    lesion_recall: float
    lesions: float
    small_recall: float
    small_lesion_recall: float
    small_lesions: float
    large_recall: float
    large_lesion_recall: float
    large_lesions: float
    false_positives: float


@dataclass(frozen=True, slots=True)
class Hu2019RegionScores:
    """Scores of the one region.

    Attributes:
        figures: see there.
        lesions: the reference's metastases, then the false positives.
    """

    figures: Hu2019Columns
    lesions: tuple[LesionScore, ...]

    @property
    def region(self) -> str:
        """Its name."""
        return REGION.name

    def columns(self) -> dict[str, float]:
        """The figures by name."""
        return {field.name: float(getattr(self.figures, field.name)) for field in fields(Hu2019Columns)}


@dataclass(frozen=True, slots=True)
class Hu2019Scores:
    """Scores of one case."""

    regions: tuple[Hu2019RegionScores, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures by name."""
        return dict(self.regions[0].columns())


@dataclass(frozen=True, slots=True)
class Hu2019:
    """The protocol; every label counts as metastasis.

    Attributes:
        large_volume_mm3: see LARGE_VOLUME_MM3.
    """

    large_volume_mm3: float = LARGE_VOLUME_MM3

    name: Literal["hu2019"] = "hu2019"

    @property
    def scored_regions(self) -> tuple[Region, ...]:
        """The one region."""
        return (REGION,)

    @property
    def headline(self) -> Mapping[str, str]:
        """Columns for the terminal."""
        return HEADLINE

    def score(self, reference: NDArray[Any], prediction: NDArray[Any], spacing_mm: Spacing) -> Hu2019Scores:
        """Scores a prediction.

        Args:
            reference: shape (x, y, z), labels 0..4.
            prediction: the same grid.
            spacing_mm: voxel size, (x, y, z).

        Raises:
            InputError: see `evaluation.joint_box.pair_maps`.
        """
        return Hu2019Scores((self._score(pair_maps(reference, prediction, spacing_mm, margin=1)),))

    def score_missing(self, reference: NDArray[Any], spacing_mm: Spacing) -> Hu2019Scores:
        """The scores of a case without prediction: every metastasis missed, and the table's worst figures."""
        (blank,) = self.score(reference, np.zeros_like(reference), spacing_mm).regions
        worst = EDGE_CASES.find("missing prediction")
        return Hu2019Scores((replace(blank, figures=replace(blank.figures, **worst)),))

    def parse_json(self, entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Region to column to value, from a written entry."""
        names = [field.name for field in fields(Hu2019Columns)]
        return {REGION.name: {name: np.nan if entry[name] is None else float(entry[name]) for name in names}}

    def _score(self, pair: MapPair) -> Hu2019RegionScores:
        box = pair.box
        lesions = split_region(pair.reference.select(REGION), box)
        predicted = split_region(pair.prediction.select(REGION), box)
        is_right = box.mark(lesions.voxels)[predicted.voxels]
        touching = count_pairs(lesions.to_volume().ravel()[predicted.voxels], predicted.component_of)
        is_large = lesions.sizes * box.voxel_volume_mm3 >= self.large_volume_mm3
        false_positives = list_false_positives(
            REGION.name, predicted, box, {component for _, component in touching}, EDGE_CASES.find("false positive")
        )
        right, own, found = int(is_right.sum()), lesions.voxels.size, predicted.voxels.size
        scores = EDGE_CASES.settle(
            {
                "dsc": divide(2 * right, own + found),
                "precision": divide(right, found),
                **_measure_recalls(lesions, touching, is_large),
                "false_positives": float(len(false_positives)),
            },
            {
                "nothing in the reference": not own,
                "nothing in the prediction": not found,
                "nothing on both sides": not own and not found,
                "no small lesion": bool(is_large.all()),
                "no large lesion": not is_large.any(),
            },
        )
        listed = _list_lesions(lesions, box, touching, is_large)
        return Hu2019RegionScores(Hu2019Columns(**scores), (*listed, *false_positives))


def _measure_recalls(
    lesions: Components, touching: Mapping[tuple[int, int], int], is_large: NDArray[np.bool_]
) -> dict[str, float]:
    """Recalls of voxels and of lesions, and how many these are: of all, the small and the large ones."""
    voxels_found = np.zeros(lesions.count)
    for (lesion, _), common in touching.items():
        voxels_found[lesion - 1] += common
    figures = {}
    for prefix, chosen in (("", np.ones_like(is_large)), ("small_", ~is_large), ("large_", is_large)):
        count = int(chosen.sum())
        figures[f"{prefix}recall"] = divide(float(voxels_found[chosen].sum()), int(lesions.sizes[chosen].sum()))
        figures[f"{prefix}lesion_recall"] = divide(int((voxels_found[chosen] > 0).sum()), count)
        figures[f"{prefix}lesions"] = float(count)
    return figures


def _list_lesions(
    lesions: Components, box: JointBox, touching: Mapping[tuple[int, int], int], is_large: NDArray[np.bool_]
) -> list[LesionScore]:
    """Every metastasis. The protocol compares none by itself: Dice is 1 when a voxel was found, and HD95 no number."""
    centroids = find_centroids(lesions, box)
    found, missed = {"dice": 1.0, "hd95_mm": np.nan}, EDGE_CASES.find("unmatched lesion")
    matches: dict[int, tuple[int, ...]] = {}
    for lesion, component in touching:
        matches[lesion] = (*matches.get(lesion, ()), component)
    return [
        LesionScore(
            region=REGION.name,
            kind="lesion",
            number=number,
            volume_mm3=float(size * box.voxel_volume_mm3),
            size_class="large" if is_large[number - 1] else "small",
            nsd=None,
            matched_components=matches.get(number, ()),
            centroid_voxel=as_centroid(centroids[number - 1]),
            **(found if number in matches else missed),
        )
        for number, size in enumerate(lesions.sizes, start=1)
    ]
