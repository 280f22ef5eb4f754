"""The report's files, from its cases: `lesions.csv`, `cases.csv`, `report.html`, `run.json`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metseg.files.atomic import write_atomically
from metseg.report.case_report import CaseReport
from metseg.report.case_store import locate_case, make_folder
from metseg.report.page import PageCase, render_page
from metseg.report.run_json import RunFacts, RunJson, make_run_json
from metseg.report.tables import format_cases, format_lesions

PAGE_FILE: Final = "report.html"
LESIONS_TABLE: Final = "lesions.csv"
CASES_TABLE: Final = "cases.csv"
RUN_FILE: Final = "run.json"

MAX_PAGE_BYTES: Final = 20 * 10**6
"""A larger page keeps its pictures in the folder beside it and loads them when they are looked at."""

BASE64_GROWTH: Final = 4 / 3


@dataclass(frozen=True, slots=True)
class Entry:
    """A case of the report.

    Attributes:
        folder_name: the case's ID as the file system spells it.
        report: what is said of the case.
    """

    folder_name: str
    report: CaseReport


def write_report(
    report_dir: Path, entries: Sequence[Entry], run: RunFacts, *, run_file: str = RUN_FILE, own: int | None = None
) -> None:
    """Writes the four files; each appears complete or not at all.

    Args:
        report_dir: the report's folder, which holds a folder per case.
        entries: in the order of the page.
        run: what ran.
        run_file: name of `run.json`; shards of one batch have one each.
        own: how many of the entries, the first ones, belong to this run; None for all.

    Raises:
        OutputError: one of them can't be written.
    """
    make_folder(report_dir)
    cases = [entry.report for entry in entries]
    record = make_run_json(run, cases[:own])
    for name, text in (
        (LESIONS_TABLE, format_lesions(cases)),
        (CASES_TABLE, format_cases(cases)),
        (run_file, record.model_dump_json(indent=1) + "\n"),
        (PAGE_FILE, _render(report_dir, entries, record)),
    ):
        write_atomically(report_dir / name, text.encode())


def _render(report_dir: Path, entries: Sequence[Entry], run: RunJson) -> str:
    folders = [locate_case(report_dir, entry.folder_name) for entry in entries]
    sizes = sum(
        path.stat().st_size
        for entry, folder in zip(entries, folders, strict=True)
        for name in entry.report.pictures
        if (path := folder / name).is_file()
    )
    embed = sizes * BASE64_GROWTH < MAX_PAGE_BYTES
    page_cases = [PageCase(entry.report, entry.folder_name) for entry in entries]
    return render_page(page_cases, run, report_dir=report_dir, embed=embed)
