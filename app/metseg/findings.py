"""What can be wrong with an input or a finished output folder, and the table that shows it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rich.table import Table
from rich.text import Text

SHOWN_NAMES: Final = 3
"""How many names or values a message lists before it only counts."""

Severity = Literal["error", "warning"]

ProblemCode = Literal[
    # Finding the cases (discovery.py).
    "no-case",
    "duplicate-id",
    "duplicate-file",
    "missing-modality",
    "ignored-folder",
    # One image file (nifti_header.py, image.py).
    "unreadable",
    "corrupt",
    "too-large",
    "not-3d",
    "data-type",
    "affine",
    "orientation",
    # The voxels and grids of a case (examine.py).
    "not-finite",
    "constant",
    "negative",
    "absurd",
    "grid",
    # The machine (memory.py).
    "memory",
    # A finished output folder (submission.py).
    "foreign",
    "unknown",
    "missing",
    "duplicate",
    "shape",
    "spacing",
    "moved",
    "labels",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong or odd.

    Attributes:
        case_id: the case it concerns; empty when it concerns the whole folder.
        severity: an error prevents a case from being used; a warning does not.
        code: what kind of problem; stable, for programs.
        what: what, where, found against expected; one sentence without a full stop.
        hint: what the user can do about it; may be empty.
    """

    case_id: str
    severity: Severity
    code: ProblemCode
    what: str
    hint: str = ""


def errors_of(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems that are errors, in their order."""
    return tuple(problem for problem in problems if problem.severity == "error")


def listed(names: Sequence[str]) -> str:
    """The first names or values of many, and how many more there are: 500 empty folders make one line."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def printable(text: str) -> str:
    """A file's name as any terminal or log can show it.

    Names are opaque bytes on most file systems: what is not valid UTF-8, and control characters, come out as escapes.
    """
    encodable = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in encodable)


def problems_table(problems: Iterable[Problem]) -> Table:
    """One row for each problem, in the given order."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("case", overflow="fold")
    table.add_column("severity")
    table.add_column("problem", no_wrap=True)
    table.add_column("what", overflow="fold", ratio=3)
    table.add_column("what to do", overflow="fold", ratio=2)
    for problem in problems:
        colour = "red" if problem.severity == "error" else "yellow"
        # Text, not str: a folder's name may look like rich's markup.
        table.add_row(
            Text(printable(problem.case_id) or "-"),
            Text(problem.severity, style=colour),
            Text(problem.code),
            Text(printable(problem.what)),
            Text(printable(problem.hint)),
        )
    return table
