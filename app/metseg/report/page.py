"""`report.html`: the batch at a glance, a table, a section per case. One file that asks the network for nothing."""

import base64
import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from metseg.report.case_report import LESIONS_FILE, CaseReport
from metseg.report.case_store import CASES_FOLDER, case_folder
from metseg.report.pictures import volume_text
from metseg.report.run_json import RunFile
from metseg.report.tables import lesion_flags
from metseg.report.words import WORDS, common_system

VOLUME_BINS_MM3: Final = (0, 10, 100, 1000, 10_000, float("inf"))
"""Of the histogram: each ten times the one before."""
BIN_NAMES: Final = ("under 10 mm³", "10 to 100 mm³", "0.1 to 1 cm³", "1 to 10 cm³", "10 cm³ or more")

DASH: Final = "\N{EN DASH}"

SECONDS_PER_MINUTE: Final = 60


@dataclass(frozen=True, slots=True)
class PageCase:
    """A case on the page.

    Attributes:
        report: what is said of it.
        folder_name: the case's ID as the file system spells it.
    """

    report: CaseReport
    folder_name: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on the page: where it comes from and what it shows, for those who can't see it."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the histogram."""

    name: str
    lesions: int
    share: float


@dataclass(frozen=True, slots=True)
class Glance:
    """The batch at a glance.

    Attributes:
        outcomes: cases of each outcome.
        lesions: in all cases together.
        measurable: of them, from 10 mm on.
        wt_volume_mm3: of all cases together.
        flags: words to the number of cases.
        warnings: cases with a warning.
        case_s: median seconds of work on a case; None when nothing was segmented.
        bars: lesions by volume.
    """

    outcomes: Sequence[tuple[str, int]]
    lesions: int
    measurable: int
    wt_volume_mm3: float
    flags: Sequence[tuple[str, int]]
    warnings: int
    case_s: float | None
    bars: tuple[Bar, ...]


def render_page(cases: Sequence[PageCase], run: RunFile, *, report_dir: Path, embed: bool) -> str:
    """The page's HTML.

    Args:
        cases: in order.
        run: what ran.
        report_dir: where the cases' pictures lie.
        embed: whether the pictures go into the page or stay beside it.
    """
    style, script = asset("report.css"), asset("report.js")
    shown = [(number, case.report, _pictures(case, report_dir, embed)) for number, case in enumerate(cases, start=1)]
    text: str = (
        environment()
        .get_template("report.html")
        .render(
            cases=shown,
            glance=glance([case.report for case in cases]),
            run=run,
            words=WORDS[common_system([case.report for case in cases])],
            style=style,
            script=script,
            policy=_policy(style, script),
        )
    )
    return text


def glance(cases: Sequence[CaseReport]) -> Glance:
    """Sums of a batch."""
    lesions = [lesion for case in cases for lesion in case.lesions]
    volumes = [lesion.wt_volume_mm3 for lesion in lesions]
    counts = [sum(low <= volume < high for volume in volumes) for low, high in zip(*_bin_edges(), strict=True)]
    largest = max([*counts, 1])
    seconds = [case.record.elapsed_s for case in cases if case.record.elapsed_s]
    return Glance(
        outcomes=Counter(case.record.outcome for case in cases).most_common(),
        lesions=len(lesions),
        measurable=sum(lesion.is_measurable for lesion in lesions),
        wt_volume_mm3=sum(case.wt_volume_mm3 for case in cases),
        flags=Counter(flag.words for case in cases for flag in case.record.notes).most_common(),
        warnings=sum(bool(case.record.warnings) for case in cases),
        case_s=statistics.median(seconds) if seconds else None,
        bars=tuple(Bar(name, count, count / largest) for name, count in zip(BIN_NAMES, counts, strict=True)),
    )


@cache
def environment() -> Any:
    """Jinja's environment, escaping everything; a name that a template asks for in vain is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - not for other commands

    made = Environment(
        loader=PackageLoader("metseg.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"volume": volume_text, "clock": clock, "number": number_text}
    made.globals |= {"lesion_flags": lesion_flags}
    return made


def asset(name: str) -> str:
    """The text of a file beside the templates."""
    return package_files("metseg.report.assets").joinpath(name).read_text(encoding="utf-8")


def clock(seconds: float) -> str:
    """Seconds as people say them: 4.2 s, 3 min 5 s."""
    if seconds < SECONDS_PER_MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), SECONDS_PER_MINUTE)
    hours, minutes = divmod(minutes, SECONDS_PER_MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def number_text(value: float | None, digits: int = 1) -> str:
    """A number with this many decimals; a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def _bin_edges() -> tuple[tuple[float, ...], tuple[float, ...]]:
    return VOLUME_BINS_MM3[:-1], VOLUME_BINS_MM3[1:]


def _pictures(case: PageCase, report_dir: Path, embed: bool) -> tuple[Picture, ...]:  # noqa: FBT001 - internal
    folder = case_folder(report_dir, case.folder_name)
    return tuple(
        Picture(_source(folder / name, case.folder_name, embed), _text(name, case.report))
        for name in case.report.pictures
        if (folder / name).is_file()
    )


def _source(path: Path, folder_name: str, embed: bool) -> str:  # noqa: FBT001 - internal
    if embed:
        return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    return f"{CASES_FOLDER}/{quote(os.fsencode(folder_name))}/{path.name}"


def _text(name: str, case: CaseReport) -> str:
    if name == LESIONS_FILE:
        return (
            f"Axial thumbnails of the {len(case.lesions)} lesions of {case.case_id}, ordered by volume; see the table"
        )
    through = (
        f"through the largest lesion ({volume_text(case.lesions[0].wt_volume_mm3)})"
        if case.lesions
        else "through the middle of the brain, no lesion"
    )
    parts = "whole tumour, tumour core and enhancing tumour" if WORDS[case.system].has_parts else "metastases"
    return (
        f"Axial, coronal and sagittal slices of {case.case_id} {through}, with contours of {parts}; "
        "radiological orientation, the patient's right is on the left"
    )


def _policy(style: str, script: str) -> str:
    """What the page may load: its own style and script, pictures in it and beside it, nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data: 'self' file:; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )
