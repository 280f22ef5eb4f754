"""Prepared cases on disk, each under a hash of what it was made from.

An entry is a folder of `.npy` files, which training maps into memory, and an `entry.json` that is written last and
holds their hashes: an entry that a crash or a bad disk has damaged is noticed and made again. A changed file, setting
or format makes a new entry beside the old one.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metseg.atomic import write_atomically
from metseg.domain import CaseFiles
from training.data.prepared import TrainingCase, prepare_training_case, reference_path
from training.recipe import DataRecipe

FORMAT = "prepared-1"
"""Changed when the content of an entry changes its meaning."""

PREPARATION = {"spacing_mm", "frame", "intensity", "registration", "max_lesion_voxels"}
"""Keys of `DataRecipe` that preparation depends on."""

ARRAYS = ("images", "components", "lesion_voxels")

logger = logging.getLogger(__name__)


def prepare_all(cases: tuple[CaseFiles, ...], recipe: DataRecipe, folder: Path, *, workers: int = 1) -> dict[str, Path]:
    """Makes every entry that is missing or broken.

    Args:
        cases: with their references.
        recipe: how they are prepared.
        folder: of the cache; made where it is missing.
        workers: processes.

    Returns:
        Folder of each case's entry, by case ID.

    Raises:
        InputError: a case can't be prepared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = partial(prepared_entry, recipe=recipe, folder=folder)
    if workers <= 1:
        entries = [work(files) for files in cases]
    else:
        with ProcessPoolExecutor(workers) as pool:
            entries = list(pool.map(work, cases))
    return {files.case_id: entry for files, entry in zip(cases, entries, strict=True)}


def prepared_entry(files: CaseFiles, recipe: DataRecipe, folder: Path) -> Path:
    """Folder of a case's intact entry, made now where there is none."""
    return cached_entry(files.case_id, entry_key(files, recipe), folder, lambda: prepare_training_case(files, recipe))


def cached_entry(case_id: str, key: str, folder: Path, make: Callable[[], TrainingCase]) -> Path:
    """As `prepared_entry`, for a case from anywhere."""
    entry = folder / f"{key}"
    problem = problem_of(entry)
    if problem is None:
        return entry
    if entry.exists():
        logger.warning("case %s: cache entry %s is broken (%s) and is made again", case_id, entry.name, problem)
        shutil.rmtree(entry)
    write_entry(entry, make())
    return entry


def entry_key(files: CaseFiles, recipe: DataRecipe) -> str:
    """Hash of the case's ID, its files' bytes, and the settings that preparation depends on."""
    digest = hashlib.blake2b(digest_size=16)
    settings = recipe.model_dump(mode="json", include=PREPARATION)
    digest.update(json.dumps([FORMAT, files.case_id, settings], sort_keys=True).encode())
    for name, path in [*sorted(files.images.items()), ("seg", reference_path(files))]:
        digest.update(name.encode())
        digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.hexdigest()


def write_entry(entry: Path, case: TrainingCase) -> None:
    """Writes an entry beside its place and moves it there when it is complete."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial_entry = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    for name in ARRAYS:
        np.save(partial_entry / f"{name}.npy", getattr(case, name))
    content = {
        "case_id": case.case_id,
        "modalities": case.modalities,
        "box": case.box,
        "volume_shape": case.volume_shape,
        "lesions": int(case.components[0].max(initial=0)),
        "brain": case.brain,
        "volumes": case.volumes.tolist(),
        "sha256": {name: _hash_file(partial_entry / f"{name}.npy") for name in ARRAYS},
    }
    write_atomically(partial_entry / "entry.json", json.dumps(content).encode())
    try:
        os.rename(partial_entry, entry)  # noqa: PTH104 - Path.rename hides that an existing folder is refused
    except OSError:  # another process was quicker
        shutil.rmtree(partial_entry)


def problem_of(entry: Path) -> str | None:
    """What is wrong with an entry; None when it is intact."""
    if not entry.is_dir():
        return "missing"
    try:
        content = _read_json(entry)
        for name in ARRAYS:
            if _hash_file(entry / f"{name}.npy") != content["sha256"][name]:
                return f"{name}.npy differs from its hash"
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
    )


def _read_json(entry: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
    return content


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
