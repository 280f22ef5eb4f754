"""Lesions and false positives, one by one: what every protocol lists beside its scores."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.components import find_centroids
from evaluation.joint_box import FloatArray, JointBox
from metseg.space.components import Components

SizeClass = Literal["counted", "ignored", "large", "small"]

Centroid = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class LesionScore:
    """One lesion of the reference, or one predicted component that matches none (a false positive).

    Attributes:
        region: WT, TC, ET or RC.
        kind: which of the two.
        number: the lesion's number in the region, from 1; of a false positive the predicted component's number.
        volume_mm3: volume of the lesion, or of the false positive.
        size_class: brats2023: `ignored` when the lesion is too small to enter the scores, else `counted`;
            brats2026, hu2019: `large` or `small`. False positives count at any size: `counted`.
        dice: against all matched components together; 0 without a match.
        hd95_mm: likewise; the protocol's penalty without a match.
        nsd: normalised surface distance, 0..1; None where the protocol has none.
        matched_components: numbers of the predicted components matched to the lesion, ascending.
        centroid_voxel: mean voxel index (x, y, z) on the case's grid.
    """

    region: str
    kind: Literal["lesion", "false_positive"]
    number: int
    volume_mm3: float
    size_class: SizeClass
    dice: float
    hd95_mm: float
    nsd: float | None
    matched_components: tuple[int, ...]
    centroid_voxel: Centroid


def list_false_positives(
    region: str, predicted: Components, box: JointBox, matched: Collection[int], scores: Mapping[str, float]
) -> list[LesionScore]:
    """The predicted components that match no lesion, in the order of their numbers.

    Args:
        region: name of the region.
        predicted: all its predicted components.
        box: where they lie.
        matched: numbers of the components that match a lesion.
        scores: what the protocol scores for a false positive: `dice`, `hd95_mm` and, where it has one, `nsd`.
    """
    centroids = find_centroids(predicted, box)
    return [
        LesionScore(
            region=region,
            kind="false_positive",
            number=number,
            volume_mm3=int(size) * box.voxel_volume_mm3,
            size_class="counted",
            dice=scores["dice"],
            hd95_mm=scores["hd95_mm"],
            nsd=scores.get("nsd"),
            matched_components=(),
            centroid_voxel=as_centroid(centroids[number - 1]),
        )
        for number, size in enumerate(predicted.sizes, start=1)
        if number not in matched
    ]


def as_centroid(row: FloatArray) -> Centroid:
    """Three numbers of an array as a tuple."""
    x, y, z = row
    return float(x), float(y), float(z)
