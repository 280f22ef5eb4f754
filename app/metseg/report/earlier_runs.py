"""What the `run.json` files of a report's folder say of the runs that made it, whatever version wrote them."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metseg.report.report_files import RUN_FILE

logger = logging.getLogger(__name__)


def read_options(report_dir: Path) -> Mapping[str, str]:
    """The options of the first run that can be read; empty without one."""
    for run in _read_runs(report_dir):
        options = run.get("options")
        if isinstance(options, Mapping):
            return {str(key): str(value) for key, value in options.items()}
    return {}


def hashes_of_bundles(report_dir: Path) -> frozenset[str]:
    """SHA-256 of the label maps that some run made with a bundle: what their labels mean is known."""
    hashes = set()
    for run in _read_runs(report_dir):
        cases = run.get("cases")
        if run.get("bundle") and isinstance(cases, list):
            hashes |= {
                str(case["label_map_sha256"])
                for case in cases
                if isinstance(case, dict) and case.get("label_map_sha256")
            }
    return frozenset(hashes)


def _read_runs(report_dir: Path) -> Iterator[Mapping[str, Any]]:
    for path in (report_dir / RUN_FILE, *sorted(report_dir.glob("run-*-of-*.json"))):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            logger.debug("%s: %s", path, error)
            continue
        if isinstance(run, Mapping):
            yield run
