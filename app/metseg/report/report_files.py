"""The report's files, from its cases: `lesions.csv`, `cases.csv`, `report.html`, `run.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from metseg.files.atomic import write_atomically
from metseg.report.case_store import StoredCase, locate_case, make_folder
from metseg.report.page import render_page
from metseg.report.run_json import RunFacts, RunJson, make_run_json
from metseg.report.tables import format_cases, format_lesions

PAGE_FILE: Final = "report.html"
LESIONS_TABLE: Final = "lesions.csv"
CASES_TABLE: Final = "cases.csv"
RUN_FILE: Final = "run.json"

MAX_PAGE_BYTES: Final = 20 * 10**6
"""A larger page keeps its pictures in the folder beside it and loads them when they are looked at."""

BASE64_GROWTH: Final = 4 / 3


def write_report(
    report_dir: Path, cases: Sequence[StoredCase], run: RunFacts, *, run_file: str = RUN_FILE, own: int | None = None
) -> None:
    """Writes the four files; each appears complete or not at all.

    Args:
        report_dir: the report's folder, which holds a folder per case.
        cases: in the order of the page.
        run: what ran.
        run_file: name of `run.json`; shards of one batch have one each.
        own: number of cases, from the first on, that belong to this run; None for all.

    Raises:
        OutputError: a file can't be written.
    """
    make_folder(report_dir)
    reports = [case.report for case in cases]
    record = make_run_json(run, reports[:own])
    for name, text in (
        (LESIONS_TABLE, format_lesions(reports)),
        (CASES_TABLE, format_cases(reports)),
        (run_file, record.model_dump_json(indent=1) + "\n"),
        (PAGE_FILE, _render(report_dir, cases, record)),
    ):
        write_atomically(report_dir / name, text.encode())


def _render(report_dir: Path, cases: Sequence[StoredCase], run: RunJson) -> str:
    paths = (locate_case(report_dir, case.folder_name) / name for case in cases for name in case.report.pictures)
    sizes = sum(path.stat().st_size for path in paths if path.is_file())
    return render_page(cases, run, report_dir=report_dir, embed=sizes * BASE64_GROWTH < MAX_PAGE_BYTES)
