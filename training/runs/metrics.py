"""The figures that a run writes line by line, as JSON."""

import json
from pathlib import Path
from typing import Any

from metseg.files.atomic import write_atomically
from training.runs.files import METRICS_FILE


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; none where there is no such file."""
    path = folder / METRICS_FILE
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def drop_later_metrics(folder: Path, step: int) -> None:
    """Drops the lines of steps after `step`, and a last line that a killed process left unfinished."""
    path = folder / METRICS_FILE
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    write_atomically(path, "".join(kept).encode())
