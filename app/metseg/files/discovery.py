"""The cases of a folder, found by what its sub-folders hold and not by what they are called."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.case_folders import case_of, cases_beside_each_other, failed_case_of
from metseg.files.listing import Listing, list_folder, try_to_list
from metseg.files.misplaced import LAYOUT_HINT, say_dead_links, say_ignored, say_loose, say_no_case
from metseg.files.names import fold
from metseg.findings import Finding, listed, printable
from metseg.systems import MODALITIES, Modality

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a folder holds.

    Attributes:
        cases: sorted by case ID; a case may lack modalities, or be unusable altogether (`CaseFiles.findings`).
        findings: cases that can't be told apart (error), and what is no case (warning).
    """

    cases: tuple[CaseFiles, ...]
    findings: tuple[Finding, ...]


def discover_cases(
    data_path: Path, *, modalities: Sequence[Modality] = MODALITIES, apart_from: Sequence[Path] = ()
) -> tuple[CaseFiles, ...]:
    """Finds the cases of a folder and logs what was passed over.

    A case is a sub-folder that holds at least one `<its own name>-<modality>.nii.gz` or `.nii`, in any spelling that
    `metseg.files.names.read_name` knows; its name is opaque. A sub-folder that can't be listed, or whose images have
    other names, is a case that fails. Where no sub-folder is a case, `data_path` itself may be one, or hold the images
    of many side by side (`metseg.files.case_folders.cases_beside_each_other`).

    Args:
        data_path: the folder.
        modalities: the sequences to look for.
        apart_from: folders that hold no case, wherever they lie: label maps, reports.

    Returns:
        At least one case, sorted by ID. A case may lack modalities (`missing_modalities`), have two files for one
        (`CaseFiles.rivals`) or be unusable (`CaseFiles.findings`): whether that matters is for the caller to decide,
        case by case.

    Raises:
        InputError: the folder can't be listed, holds no case, or holds two whose label maps would overwrite each other.
    """
    survey = survey_cases(data_path, modalities=modalities, apart_from=apart_from)
    for finding in survey.findings:
        if finding.severity == "error":
            raise InputError(finding.what, hint=finding.hint)
        _log.warning("%s", finding.what)
    return survey.cases


def survey_cases(
    data_path: Path, *, modalities: Sequence[Modality] = MODALITIES, apart_from: Sequence[Path] = ()
) -> Survey:
    """Finds the cases of a folder and everything that is wrong with the folder itself; never raises for its content.

    Args:
        data_path: the folder.
        modalities: the sequences to look for.
        apart_from: see `discover_cases`.

    Raises:
        InputError: the folder is missing, is not a folder, or can't be listed.
    """
    own = _list_data_path(data_path)
    apart = {path.resolve() for path in apart_from}
    listings = [try_to_list(folder) for folder in own.folders if not apart or folder.resolve() not in apart]
    cases = [case for listing in listings if (case := case_of(listing, modalities)) is not None]
    failed = [case for listing in listings if (case := failed_case_of(listing, modalities)) is not None]
    if not cases:
        beside = cases_beside_each_other(own, modalities, has_failed=bool(failed))
        cases, failed = (list(beside), []) if beside else ([], failed)
    cases = sorted((*cases, *failed), key=lambda case: case.case_id)
    folders = {case.folder for case in cases}
    others = [listing for listing in listings if listing.path not in folders]
    if not cases:
        return Survey((), (say_no_case(own, others, modalities),))
    passed_over = (*say_ignored(others, modalities), *say_loose(own, cases), *say_dead_links(own, cases))
    return Survey(tuple(cases), (*_collisions(cases), *passed_over))


def missing_modalities(files: CaseFiles, required: Sequence[Modality]) -> tuple[Modality, ...]:
    """The modalities among `required` for which the case has no file at all, in the order of `required`."""
    return tuple(modality for modality in required if modality not in files.images and modality not in files.rivals)


def images_beside(files: CaseFiles) -> str:
    """For a message on what a case lacks: the images whose names tell nothing, as one of them may be meant."""
    return f", but {listed([printable(path.name) for path in files.others])}" if files.others else ""


def _list_data_path(data_path: Path) -> Listing:
    try:
        return list_folder(data_path)
    except FileNotFoundError:
        raise InputError(f"input folder {data_path} does not exist", hint=LAYOUT_HINT) from None
    except NotADirectoryError:
        raise InputError(f"input {data_path} is a file, expected a folder", hint=LAYOUT_HINT) from None
    except OSError as error:
        raise InputError(
            f"input folder {data_path} can't be listed: {error.strerror or error}",
            hint=f"Let user {os.getuid()} read it.",
        ) from error


def _collisions(cases: Sequence[CaseFiles]) -> Iterable[Finding]:
    """Cases whose label maps would be one file on an output folder that ignores case or decomposes accents."""
    ids_of: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        ids_of[fold(case.case_id)].append(case.case_id)
    for ids in ids_of.values():
        if len(ids) > 1:
            names = listed([printable(case_id) for case_id in ids])
            yield Finding(
                case_id=ids[0],
                severity="error",
                code="duplicate-id",
                what=f"duplicate IDs: the label maps of {names} would overwrite each other "
                "on a file system that ignores case or accents' encoding",
                hint="Rename all but one of these folders and their files.",
            )
