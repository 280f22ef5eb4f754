"""Patients into training, validation and test (Erdur et al. 2023: 80/10/10), kept in a file that other runs can use."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from metseg.errors import UsageError
from metseg.files.atomic import write_atomically
from training.patients import find_patient
from training.recipe_sections import SplitRecipe


@dataclass(frozen=True, slots=True)
class Split:
    """Case IDs of each part, sorted; timepoints of one patient are never in two parts."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def split_patients(case_ids: Iterable[str], recipe: SplitRecipe) -> Split:
    """Draws the parts by patient.

    The shares are rounded to whole patients. Training gets one at least, and validation too when its share is not 0 and
    there are two patients or more.
    """
    ids = sorted(set(case_ids))
    patients = sorted({find_patient(case_id) for case_id in ids})
    order = np.random.default_rng(recipe.seed).permutation(len(patients))
    validation_count = round(recipe.validation * len(patients))
    if recipe.validation > 0 and len(patients) > 1:
        validation_count = max(validation_count, 1)
    train_count = min(max(round(recipe.train * len(patients)), 1), len(patients) - validation_count)
    part_of = {}
    for rank, index in enumerate(order):
        part = 0 if rank < train_count else 1 if rank < train_count + validation_count else 2
        part_of[patients[int(index)]] = part
    parts = [tuple(case_id for case_id in ids if part_of[find_patient(case_id)] == part) for part in range(3)]
    return Split(*parts)


def write_split(path: Path, split: Split) -> None:
    """Writes a split as JSON."""
    write_atomically(path, (json.dumps(asdict(split), indent=1) + "\n").encode())


def read_split(path: Path, case_ids: Iterable[str]) -> Split:
    """Reads a split that another run wrote.

    Args:
        path: JSON with the lists `train`, `validation` and `test`.
        case_ids: the cases that there are; further ones are left out of training and testing alike.

    Raises:
        UsageError: not such a file, it names cases that are not there, or a patient is in two parts.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        split = Split(*(tuple(sorted(map(str, content[part]))) for part in ("train", "validation", "test")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"split {path}: expected JSON with train, validation and test: {error!r}") from error
    missing = sorted({*split.train, *split.validation} - set(case_ids))
    if missing:
        raise UsageError(
            f"split {path}: {len(missing)} of its cases are not in the data, first {missing[0]}",
            hint="Use the data that the split was made for, or leave --split out.",
        )
    part_of: dict[str, str] = {}
    for part, ids in asdict(split).items():
        for case_id in ids:
            other = part_of.setdefault(find_patient(case_id), part)
            if other != part:
                raise UsageError(f"split {path}: patient {find_patient(case_id)} is in {other} and in {part}")
    return split
