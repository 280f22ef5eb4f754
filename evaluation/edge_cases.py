"""Edge cases: what a protocol scores where there is nothing to compute a score from.

Each protocol declares them as one table, a row per situation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Situation = Literal[
    "nothing in the reference",
    "nothing in the prediction",
    "nothing on both sides",
    "no background",
    "no counted lesion, no false positive",
    "no large lesion",
    "no small lesion",
    "no large lesion, no false positive",
    "unmatched lesion",
    "false positive",
    "missing prediction",
]
"""Lesions are those of the reference, in one region."""

Source = Literal["official program", "this project"]
"""Whose value it is. The official programs' are in tests/golden; this project speaks where the others are silent."""

UNDEFINED: Final = float("nan")
"""What a quotient is without denominator, until the table says what is scored."""


@dataclass(frozen=True, slots=True)
class EdgeCase:
    """A row of the table.

    Attributes:
        situation: when it applies.
        values: score to value, by the names of the protocol's dataclasses. Scores that are not named are computed.
        source: whose value it is.
    """

    situation: Situation
    values: Mapping[str, Any]
    source: Source


@dataclass(frozen=True, slots=True)
class EdgeCases:
    """The table of one protocol.

    Attributes:
        rows: in ascending order of rank: where several situations hold, the last row that names a score wins.
    """

    rows: tuple[EdgeCase, ...]

    @classmethod
    def from_rows(cls, *rows: EdgeCase) -> "EdgeCases":
        """The table of these rows."""
        return cls(rows)

    def find(self, situation: Situation) -> Mapping[str, Any]:
        """The values of one row.

        Raises:
            KeyError: the protocol has no such row.
        """
        return {row.situation: row.values for row in self.rows}[situation]

    def settle(self, computed: Mapping[str, Any], holds: Mapping[Situation, bool]) -> dict[str, Any]:
        """Scores with the table's values in place of the computed ones.

        Args:
            computed: score to value; UNDEFINED where there was nothing to divide by.
            holds: which situations the region is in.

        Raises:
            KeyError: the protocol has no row for one of the situations.
        """
        for situation in holds:
            self.find(situation)
        settled = dict(computed)
        for row in self.rows:
            if holds.get(row.situation, False):
                settled.update(row.values)
        return settled


def divide(numerator: float, denominator: float) -> float:
    """The quotient; UNDEFINED where the denominator is 0."""
    return numerator / denominator if denominator else UNDEFINED
