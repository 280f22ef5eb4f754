"""What a reader should know before trusting a case: one vocabulary for the log, the tables and the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from metseg.space.domain import Grid, sides_in_words, spacing_in_words

FlagCode = Literal[
    "no-lesion", "many-lesions", "brain-edge", "low-agreement", "missing-modality", "resampled", "blank", "no-label-map"
]

MANY_LESIONS: Final = 50
"""More lesions than this are rare in patients and common in failures: someone should look."""

LOW_AGREEMENT: Final = 0.7
"""A lesion on whose voxels fewer than this share of the members' votes say tumour. Two of three members that agree to
the voxel reach 0.67; three that find the same lesion with slightly different borders lie above."""

WORDS: Final[dict[FlagCode, str]] = {
    "no-lesion": "no lesion found",
    "many-lesions": f"more than {MANY_LESIONS} lesions",
    "brain-edge": "lesion at the brain's edge",
    "low-agreement": "low agreement",
    "missing-modality": "missing",
    "resampled": "resampled grid",
    "blank": "blank because failed",
    "no-label-map": "no label map",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """One thing a reader should know about a case.

    Attributes:
        code: what kind; stable, for programs.
        words: the same few words in the log, the tables and the report.
        detail: what exactly; may be empty.
    """

    code: FlagCode
    words: str
    detail: str = ""

    @property
    def sentence(self) -> str:
        """Words and detail in one line."""
        return f"{self.words}: {self.detail}" if self.detail else self.words


def flag(code: FlagCode, detail: str = "") -> Flag:
    """A flag in the vocabulary's words."""
    return Flag(code, WORDS[code], detail)


def missing_flag(modalities: Sequence[str], detail: str = "") -> Flag:
    """Images that the case lacks: `missing t2w`."""
    return Flag("missing-modality", f"{WORDS['missing-modality']} {', '.join(modalities)}", detail)


def blank_flag() -> Flag:
    """An empty map stands for a case that could not be segmented."""
    return flag("blank", "an empty label map was written; it does not mean that there is no tumour")


def count_flags(lesions: int) -> tuple[Flag, ...]:
    """Whether a number of lesions is one to look at twice."""
    if lesions == 0:
        return (flag("no-lesion"),)
    return (flag("many-lesions", f"{lesions}"),) if lesions > MANY_LESIONS else ()


def is_low(vote_share: float | None) -> bool:
    """Whether the members agree too little on a lesion; False where the votes are not known."""
    return vote_share is not None and vote_share < LOW_AGREEMENT


class VotedUpon(Protocol):
    """A lesion with the members' mean vote; None where the votes are not known."""

    @property
    def vote_share(self) -> float | None: ...  # noqa: D102 - the class says it


def agreement_flags(lesions: Sequence[VotedUpon]) -> tuple[Flag, ...]:
    """How many of a case's lesions have little agreement."""
    low = sum(is_low(lesion.vote_share) for lesion in lesions)
    if not low:
        return ()
    return (flag("low-agreement", f"{low} of {len(lesions)} lesions have under {LOW_AGREEMENT:.0%} of the votes"),)


def edge_flags(at_edge: int, lesions: int) -> tuple[Flag, ...]:
    """How many lesions of a case touch the brain's edge, where remains of skull and meninges look like lesions."""
    return (flag("brain-edge", f"{at_edge} of {lesions} lesions"),) if at_edge else ()


def grid_flags(
    grid: Grid, network_mm: tuple[float, float, float] | None = None, *, resampled: bool
) -> tuple[Flag, ...]:
    """Whether the label map went from the network's grid to another one.

    Args:
        grid: of the label map.
        network_mm: sides of the network's voxels; None where nobody knows what made the label map.
        resampled: whether it did.
    """
    if not resampled:
        return ()
    network = "not of 1 mm" if network_mm is None else f"segmented at {spacing_in_words(network_mm)} mm"
    return (flag("resampled", f"voxels of {sides_in_words(grid.spacing_mm)} mm, {network}"),)
