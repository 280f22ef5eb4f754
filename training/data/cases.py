"""The cases that a command is given, and what tells them apart: their IDs within a call, their bytes between calls."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from metseg.errors import InputError, UsageError
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.findings import listed
from metseg.labels import BRATS_REGIONS, LabelConvention, Regions
from metseg.plan.plan import Plan
from metseg.systems import MODALITIES, Modality, modalities_to_find
from training.references import find_reference, settle_labels


def find_cases(
    folders: Sequence[Path],
    *,
    modalities: Sequence[Modality] = MODALITIES,
    regions: Regions = BRATS_REGIONS,
    convention: LabelConvention | None = None,
) -> dict[str, CaseFiles]:
    """The cases of several folders, by ID.

    Args:
        folders: of cases.
        modalities: see `metseg.files.discovery.discover_cases`.
        regions: what the references are read for.
        convention: what label 4 of the references means; needed where a folder leaves it open.

    Raises:
        InputError: see there and `training.references.settle_labels`.
        UsageError: an ID occurs in two folders.
    """
    cases: dict[str, CaseFiles] = {}
    folder_of: dict[str, Path] = {}
    twice: list[str] = []
    for folder in folders:
        for files in discover_cases(folder, modalities=modalities):
            first = folder_of.setdefault(files.case_id, folder)
            if files.case_id in cases:
                twice.append(f"{files.case_id} in {first} and in {folder}")
            cases[files.case_id] = files
    if twice:
        raise UsageError(
            f"--data: expected each case ID once, found {listed(twice)}",
            hint="Name each folder once; `python -m training cohort --first N` simulates cases with other IDs.",
        )
    return {files.case_id: files for files in settle_labels(tuple(cases.values()), regions, convention)}


def find_plan_cases(
    folders: Sequence[Path], plan: Plan, convention: LabelConvention | None = None
) -> dict[str, CaseFiles]:
    """The cases to score a plan's bundle on; as `find_cases`."""
    modalities = modalities_to_find(plan.modalities)
    return find_cases(folders, modalities=modalities, regions=plan.regions, convention=convention)


def file_hashes(files: CaseFiles) -> bytes:
    """Name and hash of each of the case's images and of its reference, and how the latter is read.

    Raises:
        InputError: it has no reference, or a file can't be read.
    """
    said = b"brats2021" if files.convention == "brats2021" else b""  # otherwise 4 is RC, as if nothing were said
    return said + b"".join(
        name.encode() + _hash_of(path, files.case_id)
        for name, path in [*sorted(files.images.items()), ("seg", find_reference(files))]
    )


def _hash_of(path: Path, case_id: str) -> bytes:
    try:
        return hashlib.blake2b(path.read_bytes()).digest()
    except OSError as error:
        raise InputError(
            f"case {case_id}: {path} can't be read: {error.strerror or error}",
            hint=f"Give a file that user {os.getuid()} can read.",
        ) from error


def case_key(files: CaseFiles) -> str:
    """The case's ID and a hash of its files' bytes: synthetic cases of every seed have the same IDs.

    Raises:
        InputError: see `file_hashes`.
    """
    return f"{files.case_id}-{hashlib.blake2b(file_hashes(files), digest_size=8).hexdigest()}"
