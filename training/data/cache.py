"""Prepared cases on disk, each under a hash of what it was made from.

An entry is a folder of `.npy` files, which training maps into memory, and an `entry.json`, which holds their hashes and
is written last. An entry that a crash or a bad disk has damaged is noticed and made again. A changed file, setting or
format makes a new entry beside the old one.
"""

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from evaluation.processes import map_in_processes
from metseg.errors import InputError, OutputError
from metseg.files.atomic import write_atomically
from metseg.files.case import CaseFiles
from metseg.files.hashing import hash_file
from training.data.cases import file_hashes
from training.data.prepared import TrainingCase, prepare_training_case
from training.recipe import Recipe

FORMAT = "prepared-2"
"""Changed when the content of an entry changes its meaning."""

PREPARATION = {"spacing_mm", "frame", "intensity", "registration", "max_lesion_voxels"}
"""Keys of `DataRecipe` that preparation depends on."""

LATER_KEYS = {"frame", "registration"}
"""Those that are left out of the hash where they are None: entries are older than they."""

SHARE_DECIMALS = 4

ARRAYS = ("images", "components", "lesion_voxels")

logger = logging.getLogger(__name__)


def prepare_all(cases: tuple[CaseFiles, ...], recipe: Recipe, folder: Path, *, workers: int = 1) -> dict[str, Path]:
    """Makes every entry that is missing or broken.

    Args:
        cases: with their references.
        recipe: its data and regions say how they are prepared.
        folder: of the cache; made where it is missing.
        workers: processes.

    Returns:
        Folder of each case's entry, by case ID.

    Raises:
        InputError: a case can't be prepared.
        DeviceError: see `map_in_processes`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = partial(prepare_entry, recipe=recipe, folder=folder)
    entries = list(map_in_processes(work, cases, min(workers, len(cases)), start="fork"))
    return {files.case_id: entry for files, entry in zip(cases, entries, strict=True)}


def prepare_entry(files: CaseFiles, recipe: Recipe, folder: Path) -> Path:
    """Folder of a case's intact entry, made now where there is none."""
    key = make_entry_key(files, recipe)
    return keep_entry(files.case_id, key, folder, lambda: prepare_training_case(files, recipe.data, recipe.regions))


def keep_entry(case_id: str, key: str, folder: Path, make: Callable[[], TrainingCase]) -> Path:
    """As `prepare_entry`, for a case from anywhere.

    Raises:
        InputError: there is an entry that this user may not read.
        OutputError: the entry can't be written, or a broken one can't be removed.
    """
    entry = folder / key
    problem = find_problem(entry)
    if problem is None:
        return entry
    is_broken = entry.exists()
    if is_broken:
        logger.warning("case %s: cache entry %s is broken (%s) and is made again", case_id, entry.name, problem)
    case = make()
    try:
        if is_broken:
            shutil.rmtree(entry)
        write_entry(entry, case)
    except OSError as error:
        raise OutputError(
            f"case {case_id}: cache entry {entry} can't be written: {error.strerror or error}",
            hint=f"Free space, let user {os.getuid()} write there, or name another folder with --cache.",
        ) from error
    return entry


def make_entry_key(files: CaseFiles, recipe: Recipe) -> str:
    """Hash of the case's ID, its files' bytes, and the settings that preparation depends on."""
    digest = hashlib.blake2b(digest_size=16)
    settings = recipe.data.model_dump(mode="json", include=PREPARATION)
    settings = {key: value for key, value in settings.items() if key not in LATER_KEYS or value is not None}
    if recipe.regions != recipe.system.regions:
        settings["regions"] = {region.name: region.labels for region in recipe.regions}
    digest.update(json.dumps([FORMAT, files.case_id, settings], sort_keys=True).encode())
    digest.update(file_hashes(files))
    return digest.hexdigest()


def write_entry(entry: Path, case: TrainingCase) -> None:
    """Writes an entry beside its place and moves it there when it is complete; its mode follows the umask.

    Raises:
        OSError, OutputError: it can't be written; nothing is left behind.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial_entry = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}")
    partial_entry.mkdir()
    try:
        _fill(partial_entry, case)
        os.rename(partial_entry, entry)  # noqa: PTH104 - Path.rename hides that an existing folder is refused
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:  # which say that another process was quicker
            raise
    finally:
        shutil.rmtree(partial_entry, ignore_errors=True)


def _fill(folder: Path, case: TrainingCase) -> None:
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(case, name))
    content = {
        "case_id": case.case_id,
        "modalities": case.modalities,
        "box": case.box,
        "volume_shape": case.volume_shape,
        "lesions": int(case.components[0].max(initial=0)),
        "brain": case.brain,
        "brain_share": case.brain_share,
        "volumes": case.volumes.tolist(),
        "sha256": {name: hash_file(folder / f"{name}.npy") for name in ARRAYS},
    }
    write_atomically(folder / "entry.json", json.dumps(content).encode())


def find_problem(entry: Path) -> str | None:
    """What is wrong with an entry; None when it is intact.

    Raises:
        InputError: this user may not read it, which says nothing of its content.
    """
    if not entry.is_dir():
        return "missing"
    try:
        content = _read_json(entry)
        for name in ARRAYS:
            if hash_file(entry / f"{name}.npy") != content["sha256"][name]:
                return f"{name}.npy differs from its hash"
    except PermissionError as error:
        raise InputError(
            f"cache entry {entry}: user {os.getuid()} may not read {error.filename or 'it'}",
            hint="Let its owner make it readable (chmod -R a+rX), or name another folder with --cache.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        return repr(error)
    return None


def open_entry(entry: Path) -> TrainingCase:
    """Opens an entry; the arrays are mapped, not read."""
    content = _read_json(entry)
    arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in ("images", "components")}
    return TrainingCase(
        case_id=content["case_id"],
        modalities=tuple(content["modalities"]),
        images=arrays["images"],
        components=arrays["components"],
        lesion_voxels=np.load(entry / "lesion_voxels.npy"),
        box=tuple(map(tuple, content["box"])),  # type: ignore[arg-type]  # three sides
        volume_shape=tuple(content["volume_shape"]),
        brain=tuple(map(tuple, content["brain"])) if content.get("brain") else None,  # type: ignore[arg-type]
        volumes=np.array(content.get("volumes", [0]), dtype=np.int64),
        brain_share=content.get("brain_share"),
    )


def mean_brain_share(entries: Iterable[Path]) -> float | None:
    """Mean share of the brain among the voxels of prepared cases; None where their images don't tell."""
    shares = [_read_json(entry).get("brain_share") for entry in entries]
    known = [share for share in shares if share is not None]
    return round(fmean(known), SHARE_DECIMALS) if known else None


def _read_json(entry: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
    return content
