"""The scores of Hu et al. 2019: voxels, and metastases of which at least one voxel was found (docs/radiosurgery.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.components import Components, count_pairs, find_components
from evaluation.results import LesionScore
from evaluation.window import IntArray, MapPair, Spacing, pair_maps

LARGE_VOLUME_MM3: Final = 1500.0
"""Metastases of at least this volume are large (Hu et al. 2019, Table 2)."""

REGION: Final = "metastasis"
FOREGROUND: Final = (1, 2, 3, 4)
"""Any label: the radiosurgery system has one."""

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
    """The figures of one case; NaN where there is nothing to divide by.

    Attributes:
        dsc: Dice of all voxels; 1 when both maps are empty.
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
class Hu2019Region:
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
        return REGION

    def columns(self) -> dict[str, float]:
        """The figures by name."""
        return {field.name: float(getattr(self.figures, field.name)) for field in fields(Hu2019Columns)}


@dataclass(frozen=True, slots=True)
class Hu2019Scores:
    """Scores of one case."""

    regions: tuple[Hu2019Region, ...]

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
            InputError: see `evaluation.window.pair_maps`.
        """
        return Hu2019Scores((self._score(pair_maps(reference, prediction, spacing_mm, margin=1)),))

    def score_missing(self, reference: NDArray[Any], spacing_mm: Spacing) -> Hu2019Scores:
        """The worst scores: no file is not the same as a map that says "no metastasis".

        Every metastasis missed, DSC and precision 0 even where the reference is empty; the recalls of what it has not
        stay NaN, as of any prediction.
        """
        (blank,) = self.score(reference, np.zeros_like(reference), spacing_mm).regions
        return Hu2019Scores((replace(blank, figures=replace(blank.figures, dsc=0.0, precision=0.0)),))

    def regions_of_json(self, entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Region to column to value, from a written entry."""
        names = [field.name for field in fields(Hu2019Columns)]
        return {REGION: {name: np.nan if entry[name] is None else float(entry[name]) for name in names}}

    def _score(self, pair: MapPair) -> Hu2019Region:
        window = pair.window
        own, found = pair.reference.of_region(FOREGROUND), pair.prediction.of_region(FOREGROUND)
        lesions = find_components(own, window)
        hit = _marked(window.size, found)[own]
        voxels_found = np.bincount(lesions.numbers, weights=hit, minlength=lesions.count + 1)[1:].astype(np.float64)
        is_large = lesions.sizes * window.voxel_volume_mm3 >= self.large_volume_mm3
        everything = np.ones(lesions.count, dtype=np.bool_)
        predicted = find_components(found, window)
        touched = np.bincount(
            predicted.numbers, weights=_marked(window.size, own)[found], minlength=predicted.count + 1
        )
        right = int(hit.sum())
        all_of, small, large = (_recalls(lesions, voxels_found, chosen) for chosen in (everything, ~is_large, is_large))
        figures = Hu2019Columns(
            dsc=2 * right / (own.size + found.size) if own.size + found.size else 1.0,
            precision=right / found.size if found.size else np.nan,
            recall=all_of[0],
            lesion_recall=all_of[1],
            lesions=all_of[2],
            small_recall=small[0],
            small_lesion_recall=small[1],
            small_lesions=small[2],
            large_recall=large[0],
            large_lesion_recall=large[1],
            large_lesions=large[2],
            false_positives=float((touched[1:] == 0).sum()),
        )
        touching = count_pairs(lesions.number_volume(window)[predicted.indices], predicted.numbers)
        scored = [
            _as_row(
                pair,
                lesions,
                index,
                "large" if is_large[index] else "small",
                matched=tuple(component for number, component in touching if number == index + 1),
            )
            for index in range(lesions.count)
        ]
        strays = [_as_row(pair, predicted, int(index)) for index in np.flatnonzero(touched[1:] == 0)]
        return Hu2019Region(figures, (*scored, *strays))


def _marked(size: int, indices: IntArray) -> NDArray[np.bool_]:
    marked = np.zeros(size, dtype=np.bool_)
    marked[indices] = True
    return marked


def _recalls(
    lesions: Components, voxels_found: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Share of the chosen lesions' voxels, share of the lesions, and how many they are."""
    count = int(chosen.sum())
    if not count:
        return np.nan, np.nan, 0.0
    voxels = float(voxels_found[chosen].sum() / lesions.sizes[chosen].sum())
    return voxels, float((voxels_found[chosen] > 0).mean()), float(count)


def _as_row(
    pair: MapPair,
    components: Components,
    index: int,
    size_class: Literal["small", "large", "counted"] = "counted",
    *,
    matched: tuple[int, ...] = (),
) -> LesionScore:
    """A metastasis, or a false positive, as a row of the table of lesions.

    This protocol has no Dice or distance of a single one: Dice is 1 when a voxel was found, else 0.
    """
    centroid = components.centroids(pair.window)[index]
    return LesionScore(
        region=REGION,
        kind="false_positive" if size_class == "counted" else "lesion",
        number=index + 1,
        volume_mm3=float(components.sizes[index] * pair.window.voxel_volume_mm3),
        size_class=size_class,
        dice=1.0 if matched else 0.0,
        hd95_mm=np.nan,
        nsd=None,
        matched_components=matched,
        centroid_voxel=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
    )
