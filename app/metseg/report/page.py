"""`report.html`: the batch at a glance, a table, a section per case. One file that asks the network for nothing."""

import base64
import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from metseg.findings import plain_number, sides_in_words
from metseg.report.case_report import LESIONS_FILE, CaseReport
from metseg.report.case_store import CASES_FOLDER, StoredCase, locate_case
from metseg.report.pictures import NO_CORE, show_volume
from metseg.report.run_json import RunJson
from metseg.report.tables import list_lesion_flags
from metseg.systems import COLOUR_NAMES, RegionKind, System, common_system

VOLUME_BINS_MM3: Final = (0, 10, 100, 1000, 10_000, float("inf"))
"""Of the histogram: each ten times the one before."""
BIN_NAMES: Final = ("under 10 mm³", "10 to 100 mm³", "0.1 to 1 cm³", "1 to 10 cm³", "10 cm³ or more")

DASH: Final = "\N{EN DASH}"

SECONDS_PER_MINUTE: Final = 60

WHOLE_FROM_MM3: Final = 10
"""Smaller volumes are shown with a decimal: a voxel may have a tenth of a cubic millimetre."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on the page.

    Attributes:
        source: address of the picture, or the picture itself as a data URL.
        text: what the picture shows, for those who can't see it.
    """

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the histogram.

    Attributes:
        name: range of volumes in words.
        lesions: number of lesions in the range.
        share: the number over that of the longest bar, 0..1.
    """

    name: str
    lesions: int
    share: float


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums of a batch.

    Attributes:
        outcomes: each outcome with the number of its cases.
        measured: number of cases with figures of a label map.
        lesions: number of lesions in all cases together.
        measurable: number of the lesions that are measurable, from 10 mm on.
        volume_mm3: of all lesions of all cases together.
        flags: the words of each flag with the number of its cases.
        warnings: number of cases with a warning.
        case_s: median seconds of work per case; None when nothing was segmented.
        bars: the lesions by volume, as a histogram.
    """

    outcomes: Sequence[tuple[str, int]]
    measured: int
    lesions: int
    measurable: int
    volume_mm3: float
    flags: Sequence[tuple[str, int]]
    warnings: int
    case_s: float | None
    bars: tuple[Bar, ...]


def render_page(cases: Sequence[StoredCase], run: RunJson, *, report_dir: Path, embed: bool) -> str:
    """Renders the page as HTML.

    Args:
        cases: in order.
        run: what ran.
        report_dir: where the cases' pictures lie.
        embed: whether the pictures go into the page or stay beside it.
    """
    style, script = read_asset("report.css"), read_asset("report.js")
    shown = [
        (number, case.report, _list_pictures(case, report_dir, embed)) for number, case in enumerate(cases, start=1)
    ]
    text: str = (
        make_environment()
        .get_template("report.html")
        .render(
            cases=shown,
            totals=add_up([case.report for case in cases]),
            run=run,
            system=common_system(case.report.system for case in cases),
            style=style,
            script=script,
            policy=_make_policy(style, script),
        )
    )
    return text


def add_up(cases: Sequence[CaseReport]) -> Totals:
    """Adds up a batch."""
    lesions = [lesion for case in cases for lesion in case.lesions]
    volumes = [lesion.volume_mm3 for lesion in lesions]
    counts = [sum(low <= volume < high for volume in volumes) for low, high in zip(*_list_bin_edges(), strict=True)]
    largest = max([*counts, 1])
    seconds = [case.record.elapsed_s for case in cases if case.record.elapsed_s]
    return Totals(
        outcomes=Counter(case.record.outcome for case in cases).most_common(),
        measured=sum(case.is_measured for case in cases),
        lesions=len(lesions),
        measurable=sum(lesion.is_measurable for lesion in lesions),
        volume_mm3=sum(case.volume_mm3 for case in cases),
        flags=Counter(flag.words for case in cases for flag in case.record.notes).most_common(),
        warnings=sum(bool(case.record.warnings) for case in cases),
        case_s=statistics.median(seconds) if seconds else None,
        bars=tuple(Bar(name, count, count / largest) for name, count in zip(BIN_NAMES, counts, strict=True)),
    )


def list_shown_regions(system: System, cases: Iterable[CaseReport]) -> tuple[RegionKind, ...]:
    """The nested regions of a system, and of its others those that some case shows."""
    regions, cases = system.regions, tuple(cases)
    shown = (other for other in regions.disjoint if any(case.volumes_mm3.get(other.name) for case in cases))
    return tuple(system.region_kinds[region.name] for region in (*regions.nested, *shown))


def name_colours(system: System, cases: Iterable[CaseReport]) -> str:
    """The contours of the pictures in words: each region with its colour."""
    parts = system.regions.nested[1:]
    return ", ".join(
        f"{kind.short if kind.region in parts else kind.words} {COLOUR_NAMES[kind.colour]}"
        for kind in list_shown_regions(system, cases)
    )


@cache
def make_environment() -> Any:
    """Jinja's environment, escaping everything; a name that a template asks for in vain is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - not for other commands

    made = Environment(
        loader=PackageLoader("metseg.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "volume": show_volume,
        "mm3": show_mm3,
        "sides": sides_in_words,
        "clock": show_seconds,
        "number": show_number,
        "heading": head_column,
    }
    made.globals |= {"list_lesion_flags": list_lesion_flags, "name_colours": name_colours, "no_core": NO_CORE}
    return made


def read_asset(name: str) -> str:
    """Reads a text file beside the templates."""
    return package_files("metseg.report.assets").joinpath(name).read_text(encoding="utf-8")


def show_seconds(seconds: float) -> str:
    """Seconds as people say them: 4.2 s, 3 min 5 s."""
    if seconds < SECONDS_PER_MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), SECONDS_PER_MINUTE)
    hours, minutes = divmod(minutes, SECONDS_PER_MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def head_column(region_name: str, system: System) -> str:
    """What a region's column is headed with."""
    return system.region_kinds[region_name].short.capitalize()


def show_number(value: float | None, digits: int = 1) -> str:
    """A number with this many decimals; a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def show_mm3(volume_mm3: float | None) -> str:
    """Whole cubic millimetres, of less than 10 two digits; a dash where there is none."""
    if volume_mm3 is None:
        return DASH
    return plain_number(volume_mm3, 2) if volume_mm3 < WHOLE_FROM_MM3 else f"{volume_mm3:.0f}"


def _list_bin_edges() -> tuple[tuple[float, ...], tuple[float, ...]]:
    return VOLUME_BINS_MM3[:-1], VOLUME_BINS_MM3[1:]


def _list_pictures(case: StoredCase, report_dir: Path, embed: bool) -> tuple[Picture, ...]:  # noqa: FBT001 - internal
    folder = locate_case(report_dir, case.folder_name)
    return tuple(
        Picture(_address(folder / name, case.folder_name, embed), _describe_picture(name, case.report))
        for name in case.report.pictures
        if (folder / name).is_file()
    )


def _address(path: Path, folder_name: str, embed: bool) -> str:  # noqa: FBT001 - internal
    if embed:
        return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    return f"{CASES_FOLDER}/{quote(os.fsencode(folder_name))}/{path.name}"


def _describe_picture(name: str, case: CaseReport) -> str:
    if name == LESIONS_FILE:
        return (
            f"Axial thumbnails of the {len(case.lesions)} lesions of {case.case_id}, ordered by volume; see the table"
        )
    through = (
        f"through the largest lesion ({show_volume(case.lesions[0].volume_mm3)})"
        if case.lesions
        else "through the middle of the brain, no lesion"
    )
    *others, last = (kind.words for kind in list_shown_regions(case.system, [case]))
    contours = f"{', '.join(others)} and {last}" if others else last
    return (
        f"Axial, coronal and sagittal slices of {case.case_id} {through}, with contours of {contours}; "
        "radiological orientation, the patient's right is on the left"
    )


def _make_policy(style: str, script: str) -> str:
    """What the page may load: its own style and script, pictures in it and beside it, nothing else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data: 'self' file:; style-src 'sha256-{hashes[0]}'; "
        f"script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )
