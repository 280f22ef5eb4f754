"""What the report calls things: the two systems' label maps hold different things under the same numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from metseg.systems import SYSTEMS, SystemName


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one system.

    Attributes:
        labels: what each number of a label map means.
        whole: a lesion with all its parts.
        whole_short: the same as a column's heading.
        has_parts: whether a lesion has a core, enhancement and oedema that are told apart.
    """

    labels: dict[int, str]
    whole: str
    whole_short: str
    has_parts: bool


WORDS: Final[dict[SystemName, Words]] = {
    "brats": Words(SYSTEMS["brats"].label_names, "whole tumour", "Whole", has_parts=True),
    "radiosurgery": Words(SYSTEMS["radiosurgery"].label_names, "metastases", "Volume", has_parts=False),
}


class OfSystem(Protocol):
    """Something of one of the two systems."""

    @property
    def system(self) -> SystemName: ...  # noqa: D102 - the class says it


def common_system(items: Sequence[OfSystem]) -> SystemName:
    """The system of all; the first one, whose words have room for both, where they differ or there are none."""
    return "radiosurgery" if items and all(item.system == "radiosurgery" for item in items) else "brats"
