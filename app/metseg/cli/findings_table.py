"""Findings as a table on a terminal."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from metseg.findings import Finding, printable


def tabulate_findings(findings: Iterable[Finding]) -> Table:
    """One row for each finding, in the given order."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("case", overflow="fold")
    table.add_column("severity")
    table.add_column("problem", no_wrap=True)
    table.add_column("what", overflow="fold", ratio=3)
    table.add_column("what to do", overflow="fold", ratio=2)
    for finding in findings:
        colour = "red" if finding.severity == "error" else "yellow"
        # Text, not str: a folder's name may look like rich's markup.
        table.add_row(
            Text(printable(finding.case_id) or "-"),
            Text(finding.severity, style=colour),
            Text(finding.code),
            Text(printable(finding.what)),
            Text(printable(finding.hint)),
        )
    return table
