"""The cases of a folder, found by what its sub-folders hold and not by what they are called."""

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.findings import Finding, listed, printable
from metseg.systems import MODALITIES, Modality

SUFFIXES: Final = (".nii.gz", ".nii")
"""A file's name without its suffix, and without the modality where it is an image, is the case's ID."""

LAYOUT_HINT: Final = (
    "Lay the cases out as <folder>/<ID>/<ID>-<modality>.nii.gz: a file's name starts with its folder's."
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a folder holds.

    Attributes:
        cases: sorted by case ID; a case may lack modalities.
        findings: cases that can't be told apart (error), and folders that are no case (warning).
    """

    cases: tuple[CaseFiles, ...]
    findings: tuple[Finding, ...]


def discover_cases(data_path: Path, *, modalities: Sequence[Modality] = MODALITIES) -> tuple[CaseFiles, ...]:
    """Finds the cases of a folder and logs what was passed over.

    A case is a sub-folder that holds at least one `<its own name>-<modality>.nii.gz` or `.nii`; its name is opaque.
    Everything else is ignored. When no sub-folder is a case, `data_path` itself may be one.

    Args:
        data_path: the folder.
        modalities: the sequences to look for.

    Returns:
        At least one case, sorted by ID. A case may lack modalities (`missing_modalities`) or have two files for one
        (`CaseFiles.rivals`): whether that matters is for the caller to decide, case by case.

    Raises:
        InputError: the folder can't be listed, holds no case, or holds two whose label maps would overwrite each other.
    """
    survey = survey_cases(data_path, modalities=modalities)
    for finding in survey.findings:
        if finding.severity == "error":
            raise InputError(finding.what, hint=finding.hint)
        _log.warning("%s", printable(finding.what))
    return survey.cases


def survey_cases(data_path: Path, *, modalities: Sequence[Modality] = MODALITIES) -> Survey:
    """Finds the cases of a folder and everything that is wrong with the folder itself; never raises for its content.

    Args:
        data_path: the folder.
        modalities: the sequences to look for.

    Raises:
        InputError: the folder is missing, is not a folder, or can't be listed.
    """
    names_of = {folder: _file_names(folder) for folder in _sub_folders(data_path)}
    cases = [case for folder, names in names_of.items() if (case := _as_case(folder, names, modalities)) is not None]
    if not cases:
        lone = _as_case(Path(os.path.abspath(data_path)), _file_names(data_path), modalities)  # noqa: PTH100 - "." has no name, and a link's target another
        if lone is not None:
            return Survey((lone,), ())
    cases.sort(key=lambda case: case.case_id)
    found = {case.folder for case in cases}
    ignored = {folder: names for folder, names in names_of.items() if folder not in found}
    if not cases:
        return Survey((), (_no_case(data_path, ignored, modalities),))
    return Survey(tuple(cases), (*_collisions(cases), *_passed_over(ignored), *_dead_links(data_path)))


def missing_modalities(files: CaseFiles, required: Sequence[Modality]) -> tuple[Modality, ...]:
    """The modalities among `required` for which the case has no file at all, in the order of `required`."""
    return tuple(modality for modality in required if modality not in files.images and modality not in files.rivals)


def _sub_folders(data_path: Path) -> list[Path]:
    try:
        with os.scandir(data_path) as entries:
            return sorted(Path(entry.path) for entry in entries if _is_folder(entry))
    except FileNotFoundError:
        raise InputError(f"input folder {data_path} does not exist", hint=LAYOUT_HINT) from None
    except NotADirectoryError:
        raise InputError(f"input {data_path} is a file, expected a folder", hint=LAYOUT_HINT) from None
    except OSError as error:
        raise InputError(
            f"input folder {data_path} can't be listed: {error.strerror or error}",
            hint=f"Let user {os.getuid()} read it.",
        ) from error


def _file_names(folder: Path) -> tuple[str, ...]:
    """Names of all entries but folders, sorted; a link that leads nowhere counts, and is reported as unreadable."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.name for entry in entries if not _is_folder(entry)))
    except OSError as error:
        _log.warning("folder %s can't be listed and is passed over: %s", printable(str(folder)), error.strerror)
        return ()


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """False, too, for a link that can't be followed: one such entry must not cost the others theirs."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _as_case(folder: Path, names: Iterable[str], modalities: Sequence[Modality]) -> CaseFiles | None:
    modality_of = {_normal(f"{folder.name}-{modality}{s}"): modality for modality in modalities for s in SUFFIXES}
    found: defaultdict[Modality, list[Path]] = defaultdict(list)
    for name in names:
        modality = modality_of.get(_normal(name))
        if modality is not None:
            found[modality].append(folder / name)
    if not found:
        return None
    return CaseFiles(
        case_id=folder.name,
        folder=folder,
        images={modality: found[modality][0] for modality in modalities if len(found[modality]) == 1},
        rivals={modality: tuple(found[modality]) for modality in modalities if len(found[modality]) > 1},
    )


def _normal(name: str) -> str:
    """One spelling for what looks alike: macOS decomposes accents, so a folder and its files may differ in bytes."""
    return unicodedata.normalize("NFC", name)


def _collisions(cases: Sequence[CaseFiles]) -> Iterable[Finding]:
    """Cases whose label maps would be one file on an output folder that ignores case or decomposes accents."""
    ids_of: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        ids_of[_normal(case.case_id).casefold()].append(case.case_id)
    for ids in ids_of.values():
        if len(ids) > 1:
            yield Finding(
                case_id=ids[0],
                severity="error",
                code="duplicate-id",
                what=f"duplicate IDs: the label maps of {listed(ids)} would overwrite each other "
                "on a file system that ignores case or accents' encoding",
                hint="Rename all but one of these folders and their files.",
            )


def _passed_over(ignored: Mapping[Path, tuple[str, ...]]) -> Iterable[Finding]:
    empty = [folder.name for folder, names in ignored.items() if not names]
    other = {folder: names for folder, names in ignored.items() if names}
    if empty:
        what = f"ignored {len(empty)} folder{_s(empty)} without files: {listed(empty)}"
        yield Finding("", "warning", "ignored-folder", what)
    if other:
        what = f"ignored {len(other)} folder{_s(other)} without an image named after the folder: {_examples(other)}"
        yield Finding("", "warning", "ignored-folder", what, LAYOUT_HINT)


def _dead_links(data_path: Path) -> Iterable[Finding]:
    dead = sorted(path.name for path in data_path.iterdir() if path.is_symlink() and not os.path.exists(path))  # noqa: PTH110 - False for a loop, too
    if dead:
        what = f"ignored {len(dead)} link{_s(dead)} that lead{'s' if len(dead) == 1 else ''} nowhere: {listed(dead)}"
        yield Finding("", "warning", "ignored-folder", what, "Mount or copy what they point to.")


def _no_case(data_path: Path, ignored: Mapping[Path, tuple[str, ...]], modalities: Sequence[Modality]) -> Finding:
    empty = [folder.name for folder, names in ignored.items() if not names]
    other = {folder: names for folder, names in ignored.items() if names}
    found = [f"{len(empty)} folder{_s(empty)} without files"] if empty else []
    found += [f"{len(other)} folder{_s(other)} with other files: {_examples(other)}"] if other else []
    return Finding(
        case_id="",
        severity="error",
        code="no-case",
        what=f"no case in {data_path}: looked for folders <ID> that hold <ID>-<modality>.nii.gz or .nii "
        f"(modality: {', '.join(modalities)}), found {'; '.join(found) or 'no folder at all'}",
        hint=LAYOUT_HINT,
    )


def _examples(folders: Mapping[Path, tuple[str, ...]]) -> str:
    return listed([f"{folder.name} (holds {names[0]})" for folder, names in folders.items()])


def _s(things: Sequence[str] | Mapping[Path, tuple[str, ...]]) -> str:
    return "" if len(things) == 1 else "s"
