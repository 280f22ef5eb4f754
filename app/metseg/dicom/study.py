"""The images of a study, grouped: patient, series, and in each series what may make one volume.

Only headers are read. A series can hold several volumes (echoes, repetitions), or images that make none; each group is
a `Stack`, and one that can't be used says why.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from metseg.dicom.planes import Plane, is_multi_frame, read_planes
from metseg.dicom.reading import SourceFile, find_in_frame, read_header
from metseg.dicom.stacking import order_planes
from metseg.dicom.tags import NO_VALUE, DicomFileError, find_uid, find_value, find_whole_number, name_tag
from metseg.errors import InputError
from metseg.findings import Finding, listed, printable, warning
from metseg.space.grid import Grid

logger = logging.getLogger(__name__)

IDENTITY: Final = ("PatientID", "PatientBirthDate", "PatientName")
"""Images that state different values of one show two patients. Names, spelled in many ways, count without an ID."""

REPEATS: Final = ("TemporalPositionIdentifier", "AcquisitionNumber", "DiffusionBValue")
"""What tells the volumes of one series from each other where slices lie at the same place twice."""

HINT_PATH: Final = "Name the folder of one patient's study, as the scanner or the archive exported it."


@dataclass(frozen=True, slots=True)
class Slice:
    """One image of one frame, or one frame of a multi-frame image.

    Attributes:
        file: that holds it.
        frame: its index in the file, from 0.
        plane: where it lies.
    """

    file: SourceFile
    frame: int
    plane: Plane


@dataclass(frozen=True, slots=True)
class Stack:
    """Images of one series that may make one volume.

    Attributes:
        series_uid: of the series.
        study_uid: of the study.
        part: number within the series, from 1; 0 where the series is one stack.
        first: the file whose header stands for all.
        slices: in order along the grid's third index; empty where they make no volume.
        grid: of the volume; None where there is none.
        images: how many were found.
        problem: why it makes no volume; empty where it does.
    """

    series_uid: str
    study_uid: str
    part: int
    first: SourceFile
    slices: tuple[Slice, ...]
    grid: Grid | None
    images: int
    problem: str = ""

    @property
    def name(self) -> str:
        """What `--series` calls it."""
        return f"{self.series_uid}/{self.part}" if self.part else self.series_uid

    @property
    def number(self) -> int | None:
        """The series' number on the scanner's console."""
        return find_whole_number(self.first.dataset, "SeriesNumber")


@dataclass(frozen=True, slots=True)
class Study:
    """What a folder holds: one patient's images, of one study or of several (MR and planning CT).

    Attributes:
        path: the folder.
        stacks: by series number, then by UID and part.
        findings: files that were passed over.
    """

    path: Path
    stacks: tuple[Stack, ...]
    findings: tuple[Finding, ...] = ()


def read_study(path: Path, keywords: Sequence[str]) -> Study:
    """Reads the headers of all files below a folder.

    Args:
        path: the folder, or one file.
        keywords: tags that the caller will look at, beside those that say where images lie.

    Raises:
        InputError: there is no such folder, no DICOM image in it, or images of two patients.
    """
    files, findings = _read_files(path, (*keywords, *OWN_TAGS))
    images = [file for file in files if find_uid(file.dataset, "SeriesInstanceUID") is not None]
    strays = [printable(file.path.name) for file in files if find_uid(file.dataset, "SeriesInstanceUID") is None]
    if strays:
        what = f"{len(strays)} files of no series ({name_tag('SeriesInstanceUID')} {NO_VALUE}): {listed(strays)}"
        findings = (*findings, warning("ignored-file", what))
    if not images:
        reasons = "".join(f"; {finding.what}" for finding in findings)
        raise InputError(f"study {path}: no DICOM image in it{reasons}", hint=HINT_PATH)
    _refuse_two_patients(images, path)
    of_series: defaultdict[str, list[SourceFile]] = defaultdict(list)
    for file in _drop_copies(images):
        of_series[find_uid(file.dataset, "SeriesInstanceUID") or ""].append(file)
    stacks = [stack for uid, members in of_series.items() for stack in _stack_series(uid, members)]
    stacks.sort(key=lambda stack: (stack.number if stack.number is not None else -1, stack.series_uid, stack.part))
    return Study(path, tuple(stacks), findings)


OWN_TAGS: Final = (
    *IDENTITY,
    *REPEATS,
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "FrameOfReferenceUID",
    "ImageType",
    "EchoTime",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "SliceThickness",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


def _read_files(path: Path, keywords: Sequence[str]) -> tuple[list[SourceFile], tuple[Finding, ...]]:
    files, findings, others = [], [], []
    for file in _list_files(path):
        try:
            header = read_header(file, keywords)
        except InputError as error:
            findings.append(warning("unreadable", f"{error}: passed over", error.hint))
            continue
        if header is None:
            others.append(printable(file.name))
        else:
            files.append(header)
    if others:
        findings.append(warning("ignored-file", f"{len(others)} files are not DICOM: {listed(others)}"))
    return files, tuple(findings)


def _list_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"study {path} does not exist", hint=HINT_PATH)

    def refuse(error: OSError) -> None:
        raise InputError(f"study {path}: can't be read: {error.strerror or error}", hint="Let this user read it.")

    found = [Path(folder) / name for folder, _, names in os.walk(path, onerror=refuse) for name in names]
    return sorted(file for file in found if file.is_file() and file.name != "DICOMDIR")


def _refuse_two_patients(files: Sequence[SourceFile], path: Path) -> None:
    """Raises InputError; the message names tags, never their values."""
    has_id = any(find_value(file.dataset, "PatientID") for file in files)
    for keyword in IDENTITY[:-1] if has_id else IDENTITY:
        values = {str(value).strip().casefold() for file in files if (value := find_value(file.dataset, keyword))}
        if len(values) > 1:
            raise InputError(
                f"study {path}: images of {len(values)} patients in one folder ({keyword} differs)",
                hint="Give each patient's folder: --dicom-path FOLDER1 --dicom-path FOLDER2.",
            )


def _drop_copies(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Each image once: exports often hold the same file twice."""
    known: dict[str, SourceFile] = {}
    for file in files:
        known.setdefault(find_uid(file.dataset, "SOPInstanceUID") or str(file.path), file)
    return list(known.values())


def _stack_series(uid: str, files: Sequence[SourceFile]) -> list[Stack]:
    placed, problems = [], {}
    for file in files:
        try:
            planes = read_planes(file.dataset, file.path)
        except DicomFileError as error:
            problems[file.path] = error.problem
            continue
        placed.append([Slice(file, frame, plane) for frame, plane in enumerate(planes)])
    groups = [part for group in _group(placed) for part in _split(group)]
    stacks = [_make_stack(uid, number, group) for number, group in enumerate(groups, 1)]
    if problems:
        lost = [file for file in files if file.path in problems]
        first, study = lost[0], find_uid(lost[0].dataset, "StudyInstanceUID") or ""
        problem = problems[first.path]
        stacks.append(Stack(uid, study, len(stacks) + 1, first, (), None, len(lost), problem))
    if len(stacks) == 1:
        (one,) = stacks
        return [Stack(uid, one.study_uid, 0, one.first, one.slices, one.grid, one.images, one.problem)]
    return stacks


def _group(files: Sequence[Sequence[Slice]]) -> list[list[Slice]]:
    """Slices of the same orientation, size, echo and kind; two multi-frame images are never of one group."""
    groups: dict[Any, list[list[Slice]]] = defaultdict(list)
    for slices in files:
        for item in slices:
            dataset = item.file.dataset
            echo = find_in_frame(dataset, "EffectiveEchoTime", item.frame) or find_in_frame(dataset, "EchoTime")
            kind = find_in_frame(dataset, "FrameType", item.frame) or find_value(dataset, "ImageType") or ()
            own = item.file.path if is_multi_frame(dataset) else None
            alike = groups[(str(echo), tuple(map(str, kind)), own)]
            for group in alike:
                if group[0].plane.is_parallel_to(item.plane):
                    group.append(item)
                    break
            else:
                alike.append([item])
    return [group for alike in groups.values() for group in alike]


def _split(group: list[Slice]) -> list[list[Slice]]:
    """A group as the volumes that a tag tells apart, where its slices together make none."""
    if not _problem_of(group):
        return [group]
    for keyword in REPEATS:
        parts: defaultdict[str, list[Slice]] = defaultdict(list)
        for item in group:
            parts[str(find_in_frame(item.file.dataset, keyword, item.frame))].append(item)
        if len(parts) > 1 and all(len(part) > 1 and not _problem_of(part) for part in parts.values()):
            return list(parts.values())
    return [group]


def _problem_of(group: Sequence[Slice]) -> str:
    try:
        order_planes([item.plane for item in group])
    except InputError as error:
        return str(error)
    return ""


def _make_stack(uid: str, part: int, group: Sequence[Slice]) -> Stack:
    first = group[0].file
    study = find_uid(first.dataset, "StudyInstanceUID") or ""
    try:
        order, grid = order_planes([item.plane for item in group])
    except InputError as error:
        return Stack(uid, study, part, first, (), None, len(group), str(error))
    slices = tuple(group[index] for index in order)
    return Stack(uid, study, part, first, slices, grid, len(group))
