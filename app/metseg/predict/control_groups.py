"""Where Linux says what a container or a job may use: control groups, versions 1 and 2, and the groups around them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

MOUNT: Final = Path("/sys/fs/cgroup")

OWN_GROUPS: Final = Path("/proc/self/cgroup")
"""This process's groups, a line each: `<number>:<controllers>:<path>`; version 2 has number 0 and no controllers."""


def control_groups(controller: str) -> Iterator[Path]:
    """Folders of this process's control group and of those around it, whose limits hold for it as well.

    A container sees its own group as the root, whatever path the kernel tells; a job of Slurm or systemd sees its path.

    Args:
        controller: such as `memory`.

    Yields:
        Folders that may lack files or not exist: the innermost group first, each hierarchy's root last.
    """
    paths = _own_paths(controller)
    for root, path in ((MOUNT, paths[2]), (MOUNT / "unified", paths[2]), (MOUNT / controller, paths[1])):
        parts = [part for part in path.split("/") if part not in {"", ".."}]
        yield from (root.joinpath(*parts[:kept]) for kept in range(len(parts), -1, -1))


def _own_paths(controller: str) -> dict[int, str]:
    """The path of this process's group by version; empty where the kernel does not tell."""
    paths = {1: "", 2: ""}
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return paths
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or controller in controllers.split(","):
            paths[1 if controllers else 2] = path
    return paths
