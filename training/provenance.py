"""Where a run's first weights and its false positives come from: a part of run.json, handed on to the member."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from metseg.errors import UsageError
from metseg.files.hashing import hash_file
from training.runs.files import RUN_FILE

HANDED_ON: Final = ("init", "init_sha256", "predictions_sha256")
"""Keys of run.json that go into a member's metadata; older runs lack the hashes."""

PREDICTIONS: Final = "predictions"

ENTRIES_HASH: Final = "data_sha256"
"""Key of a kept run's run.json (`training.runs.kept`), which does not list its entries."""


def record_provenance(init: Path | None, checkpoint: Path | None, predictions: Sequence[Path]) -> dict[str, Any]:
    """Describes what a run begins with, for its run.json.

    Args:
        init: as `train --init` named it; None for random weights.
        checkpoint: the file that it means.
        predictions: folders of label maps, in the order in which they count; may be empty.

    Returns:
        Names, and SHA-256s: of the checkpoint's bytes, and one over names and bytes of all label maps.

    Raises:
        UsageError: a file can't be read.
    """
    return {
        "init": init.name if init is not None else None,
        "init_sha256": _hash_named(checkpoint, "--init") if checkpoint is not None else None,
        PREDICTIONS: [str(folder) for folder in predictions],
        "predictions_sha256": _label_maps_sha256(predictions) if predictions else None,
    }


def keep_provenance(run: Path) -> dict[str, Any]:
    """Reads the same from the run.json of a run that goes on; keys that an older run lacks stay out."""
    path = run / RUN_FILE
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {key: content[key] for key in (*HANDED_ON, PREDICTIONS) if key in content}


def hash_entries(content: Mapping[str, Any]) -> str:
    """Hash over the names of a run's cache entries, which are hashes of the cases' files.

    Args:
        content: of its run.json; one that lists none may state the hash.
    """
    stated: str | None = content.get(ENTRIES_HASH)
    return stated or hashlib.sha256(json.dumps(content.get("entries", {}), sort_keys=True).encode()).hexdigest()


def _label_maps_sha256(folders: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.glob("*.nii.gz")):
            digest.update(path.name.encode() + b"\0" + bytes.fromhex(_hash_named(path, "--predictions")))
    return digest.hexdigest()


def _hash_named(path: Path, option: str) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise UsageError(f"{option} {path}: can't be read: {error.strerror or error}") from error
