"""Patients into training, validation and test (Erdur et al. 2023: 80/10/10), kept in a file that other runs can use."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from metseg.errors import UsageError
from metseg.files.atomic import write_atomically
from training.patients import find_patient
from training.recipe_sections import SplitRecipe

PARTS: Final = ("train", "validation", "test")

ANY: Final = "*"
"""At the end of a name in a split's file: any case that begins so."""


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


def _fill_in(named: Mapping[str, list[str]], ids: Sequence[str], path: Path) -> dict[str, list[str]]:
    """The names of each part, with cases in place of those that end in `*`."""
    part_of = {name.removesuffix(ANY): part for part, names in named.items() for name in names if name.endswith(ANY)}
    filled = {part: [name for name in names if not name.endswith(ANY)] for part, names in named.items()}
    known = {name for names in filled.values() for name in names}
    used = set()
    for case_id in ids:
        fitting = [start for start in part_of if case_id.startswith(start)]
        if case_id in known or not fitting:
            continue
        longest = max(fitting, key=len)
        filled[part_of[longest]].append(case_id)
        used.add(longest)
    unused = sorted(start for start, part in part_of.items() if start not in used and part != "test")
    if unused:
        raise UsageError(
            f"split {path}: {unused[0]}{ANY} fits none of the data",
            hint="Use the data that the split was made for, or leave --split out.",
        )
    return filled


def write_split(path: Path, split: Split) -> None:
    """Writes a split as JSON."""
    write_atomically(path, (json.dumps(asdict(split), indent=1) + "\n").encode())


def read_split(path: Path, case_ids: Iterable[str]) -> Split:
    """Reads a split that another run wrote, or that somebody wrote by hand.

    Args:
        path: JSON with the lists `train`, `validation` and `test`. A name that ends in `*` stands for all cases that
            begin so and that no longer name fits.
        case_ids: the cases that there are; further ones are left out of training and testing alike.

    Raises:
        UsageError: not such a file, it names cases that are not there, or a patient is in two parts.
    """
    ids = sorted(set(case_ids))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        named = {part: [str(name) for name in content[part]] for part in PARTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"split {path}: expected JSON with train, validation and test: {error!r}") from error
    split = Split(*(tuple(sorted(names)) for names in _fill_in(named, ids, path).values()))
    missing = sorted({*split.train, *split.validation} - set(ids))
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
