"""Which version of the code made something."""

import shutil
import subprocess
from pathlib import Path


def git_revision() -> str:
    """The checkout's commit, with `+changes` when it has uncommitted ones; `unknown` outside a checkout."""
    if shutil.which("git") is None:
        return "unknown"
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return revision.stdout.strip()
