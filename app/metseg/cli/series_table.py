"""The series of a study as a table on a terminal."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from metseg.dicom.recognition import Verdict
from metseg.dicom.tags import find_value
from metseg.findings import printable


def tabulate_series(verdicts: Iterable[Verdict]) -> Table:
    """One row for each series or part of one, in the given order."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("taken as", no_wrap=True)
    table.add_column("series", justify="right", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("description", overflow="fold", ratio=2)
    table.add_column("why", overflow="fold", ratio=4)
    table.add_column("UID", overflow="fold", ratio=3)
    for item in verdicts:
        stack = item.stack
        number = "?" if stack.number is None else str(stack.number)
        description = find_value(stack.first.dataset, "SeriesDescription") or ""
        # Text, not str: a description may look like rich's markup.
        table.add_row(
            Text(str(item.modality) if item.is_chosen else "-", style="bold green" if item.is_chosen else ""),
            Text(f"{number}/{stack.part}" if stack.part else number),
            Text(str(stack.images)),
            Text(printable(str(description))),
            Text(printable(item.reason)),
            Text(stack.name),
        )
    return table
