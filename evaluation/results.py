"""What scoring one case returns, whatever the protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from evaluation.window import Spacing

SizeClass = Literal["counted", "ignored", "large", "small"]


@dataclass(frozen=True, slots=True)
class LesionScore:
    """One lesion of the reference, or one predicted component that matches none (a false positive).

    Attributes:
        region: WT, TC, ET or RC.
        kind: which of the two.
        number: the lesion's number in the region, from 1; of a false positive the predicted component's number.
        volume_mm3: volume of the lesion, or of the false positive.
        size_class: brats2023: `ignored` when the lesion is too small to enter the scores, else `counted`;
            brats2026: `large` or `small`. False positives count at any size: `counted`.
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
    centroid_voxel: tuple[float, float, float]


class RegionScores(Protocol):
    """Scores of one region: each protocol has its own dataclass."""

    @property
    def region(self) -> str:
        """WT, TC, ET or RC."""
        ...

    @property
    def lesions(self) -> tuple[LesionScore, ...]:
        """Every lesion, then every false positive."""
        ...

    def columns(self) -> dict[str, float]:
        """The scores under the official program's names; a score that is not a number is NaN."""
        ...


class CaseScores(Protocol):
    """Scores of one case."""

    @property
    def regions(self) -> tuple[RegionScores, ...]:
        """One entry per region, in the protocol's order."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The scores as the official program's entry of a case; NaN where it has no number."""
        ...


class ScoringProtocol(Protocol):
    """A way to score: pure functions of arrays. New ones are entered in `evaluation.protocols`."""

    @property
    def name(self) -> str:
        """What the command line calls it."""
        ...

    @property
    def headline(self) -> Mapping[str, str]:
        """Columns that the terminal's tables show: official name to short heading."""
        ...

    def score(self, reference: NDArray[Any], prediction: NDArray[Any], spacing_mm: Spacing) -> CaseScores:
        """Scores a prediction; arrays (x, y, z), labels 0..4."""
        ...

    def score_missing(self, reference: NDArray[Any], spacing_mm: Spacing) -> CaseScores:
        """Scores a case that has no prediction."""
        ...

    def regions_of_json(self, entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Region to column to value, from what `to_json` gave (None read as NaN).

        Raises:
            KeyError, TypeError, AttributeError: the entry is another protocol's.
        """
        ...
