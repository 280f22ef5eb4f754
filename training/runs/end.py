"""A run says in its run.json when it has ended: others may then count on its steps and hours."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from metseg.files.atomic import write_atomically
from training.runs.files import RUN_FILE

ENDED: Final = "ended"
"""Key of run.json, which a run that goes on does not have."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a whole run took.

    Attributes:
        step: optimiser steps.
        elapsed_s: seconds of training, all sessions together.
    """

    step: int
    elapsed_s: float


def write_end(run: Path, ended: Ended) -> None:
    """Adds the end to a run's run.json."""
    path = run / RUN_FILE
    content = json.loads(path.read_text(encoding="utf-8")) | {ENDED: asdict(ended)}
    write_atomically(path, json.dumps(content, indent=1).encode())


def find_end(run: Path) -> Ended | None:
    """Where a run ended; None where it has not, or is no run."""
    path = run / RUN_FILE
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return Ended(**content[ENDED]) if ENDED in content else None
