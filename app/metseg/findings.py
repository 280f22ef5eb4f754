"""What a reader should know of an input, a case or a finished output folder: one type, one list of codes.

A finding is an error (the case can't be used), a warning, or a note (look at it before you trust the label map). The
log, the tables, the report and `run.json` show the same findings.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

SHOWN_NAMES: Final = 3
"""How many names or values a message lists before it only counts."""

Severity = Literal["error", "warning", "note"]

FindingCode = Literal[
    # Finding the cases (files/discovery.py, files/case_folders.py, files/misplaced.py).
    "no-case",
    "duplicate-id",
    "duplicate-file",
    "missing-modality",
    "file-name",
    "ignored-folder",
    "ignored-file",
    # One image file (files/header.py, files/image.py).
    "unreadable",
    "corrupt",
    "too-large",
    "not-3d",
    "data-type",
    "affine",
    "orientation",
    # The voxels and grids of a case (files/rules.py).
    "not-finite",
    "constant",
    "background",
    "no-background",
    "margin",
    "negative",
    "absurd",
    "same-image",
    "single-slice",
    "grid",
    # A DICOM study (dicom/).
    "thick-slices",
    "burnt-in",
    "left-out",
    "brain-mask",
    # The machine (predict/memory.py).
    "memory",
    # A finished output folder (files/submission.py).
    "foreign",
    "unknown",
    "missing",
    "duplicate",
    "shape",
    "spacing",
    "moved",
    "labels",
    # A segmented case (run/pipeline.py, report/).
    "no-lesion",
    "many-lesions",
    "brain-edge",
    "low-agreement",
    "resampled",
    "outside-grid",
    "blank",
    "no-label-map",
    "not-shown",
]

MANY_LESIONS: Final = 50
"""More lesions than this are rare in patients and common in failures: someone should look."""

LOW_AGREEMENT: Final = 0.7
"""A lesion on whose voxels fewer than this share of the members' votes say tumour. Two of three members that agree to
the voxel reach 0.67; three that find the same lesion with slightly different borders lie above."""

WORDS: Final[dict[FindingCode, str]] = {
    "no-lesion": "no lesion found",
    "many-lesions": f"more than {MANY_LESIONS} lesions",
    "brain-edge": "lesion at the brain's edge",
    "low-agreement": "low agreement",
    "missing-modality": "missing",
    "resampled": "resampled grid",
    "blank": "blank because failed",
    "no-label-map": "no label map",
}
"""Of the notes: the few words that tables show."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, odd, or worth a look.

    Attributes:
        case_id: the case it concerns; empty when it concerns the whole folder, or the case that holds it.
        severity: an error prevents a case from being used; a warning and a note do not.
        code: what kind; stable, for programs.
        what: what, where, found against expected; one sentence without a full stop. Of a note it may be empty.
        hint: what the user can do about it; may be empty.
        words: of a note: the same few words in the log, the tables and the report.
    """

    case_id: str
    severity: Severity
    code: FindingCode
    what: str
    hint: str = ""
    words: str = ""

    @property
    def sentence(self) -> str:
        """Words and details in one line."""
        return ": ".join(part for part in (self.words, self.what) if part)


def errors_among(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that are errors, in their order."""
    return tuple(finding for finding in findings if finding.severity == "error")


def warning(code: FindingCode, what: str, hint: str = "") -> Finding:
    """A warning about the case that holds it."""
    return Finding("", "warning", code, what, hint)


def note(code: FindingCode, what: str = "") -> Finding:
    """A note in the vocabulary's words."""
    return Finding("", "note", code, what, words=WORDS[code])


def missing_note(modalities: Sequence[str], what: str = "") -> Finding:
    """Images that the case lacks: `missing t2w`."""
    words = f"{WORDS['missing-modality']} {', '.join(modalities)}"
    return Finding("", "note", "missing-modality", what, words=words)


def blank_note() -> Finding:
    """An empty map stands for a case that could not be segmented."""
    return note("blank", "an empty label map was written; it does not mean that there is no tumour")


def count_notes(lesions: int) -> tuple[Finding, ...]:
    """Whether a number of lesions is one to look at twice."""
    if lesions == 0:
        return (note("no-lesion"),)
    return (note("many-lesions", f"{lesions}"),) if lesions > MANY_LESIONS else ()


def is_low(vote_share: float | None) -> bool:
    """Whether the members agree too little on a lesion; False where the votes are not known."""
    return vote_share is not None and vote_share < LOW_AGREEMENT


class VotedUpon(Protocol):
    """A lesion with the members' mean vote; None where the votes are not known."""

    @property
    def vote_share(self) -> float | None: ...  # noqa: D102 - the class says it


def agreement_notes(lesions: Sequence[VotedUpon]) -> tuple[Finding, ...]:
    """How many of a case's lesions have little agreement."""
    low = sum(is_low(lesion.vote_share) for lesion in lesions)
    if not low:
        return ()
    return (note("low-agreement", f"{low} of {len(lesions)} lesions have under {LOW_AGREEMENT:.0%} of the votes"),)


def edge_notes(at_edge: int, lesions: int) -> tuple[Finding, ...]:
    """How many lesions of a case touch the brain's edge, where remains of skull and meninges look like lesions."""
    return (note("brain-edge", f"{at_edge} of {lesions} lesions"),) if at_edge else ()


def resampling_notes(
    voxel_mm: tuple[float, float, float], network_mm: tuple[float, float, float] | None = None, *, resampled: bool
) -> tuple[Finding, ...]:
    """Whether the label map went from the network's grid to another one.

    Args:
        voxel_mm: sides of the label map's voxels.
        network_mm: sides of the network's voxels; None where nobody knows what made the label map.
        resampled: whether it did.
    """
    if not resampled:
        return ()
    network = "not of 1 mm" if network_mm is None else f"segmented at {spacing_in_words(network_mm)} mm"
    return (note("resampled", f"voxels of {sides_in_words(voxel_mm)} mm, {network}"),)


def plain_number(value: float, digits: int = 3) -> str:
    """A number for people: so many digits that count, or all before the point; never in scientific notation."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def sides_in_words(sides_mm: Sequence[float]) -> str:
    """Voxel sides for people: `0.6x0.6x2`."""
    return "x".join(plain_number(side, 4) for side in sides_mm)


def spacing_in_words(sides_mm: tuple[float, float, float]) -> str:
    """The same, but one number where all sides are the same: `2`."""
    return sides_in_words(sides_mm[:1] if len(set(sides_mm)) == 1 else sides_mm)


def listed(names: Sequence[str], shown: int = SHOWN_NAMES) -> str:
    """The first names or values of many, and how many more there are: 500 empty folders make one line."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def printable(text: str) -> str:
    """A file's name as any terminal or log can show it.

    Names are opaque bytes on most file systems: what is not valid UTF-8, and control characters, come out as escapes.
    """
    encodable = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in encodable)
