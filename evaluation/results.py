"""What scoring one case returns, whatever the protocol."""

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from evaluation.joint_box import Spacing
from evaluation.lesions import LesionScore
from metseg.labels import Region


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
    def scored_regions(self) -> tuple[Region, ...]:
        """What it scores, in the order of the official columns."""
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

    def parse_json(self, entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Region to column to value, from what `to_json` gave (None read as NaN).

        Raises:
            KeyError, TypeError, AttributeError: the entry is another protocol's.
        """
        ...
