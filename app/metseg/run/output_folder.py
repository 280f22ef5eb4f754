"""The folder of label maps, before the first case: whether it can be written, and whether it will outlast the run."""

import errno
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from metseg.errors import OutputError
from metseg.files.atomic import advise_on_writing, remove_partials
from metseg.findings import printable

logger = logging.getLogger(__name__)

IMAGE_VARIABLE: Final = "METSEG_IMAGE"
"""Set by the image's entry point: what is written outside a mount is lost with the container."""

MOUNTS: Final = Path("/proc/self/mountinfo")
"""Where Linux lists the mounts; the fifth word of a line is the place, with octal escapes for blanks."""


def prepare_output(output_path: Path, label_maps: Iterable[Path] = ()) -> None:
    """Makes the output folder, removes what a killed run left half written, and proves that it can be written to.

    Args:
        output_path: the folder.
        label_maps: what will be written there.

    Raises:
        OutputError: it can't be made or written to, or a folder lies where a label map belongs.
    """
    try:
        output_path.mkdir(parents=True, exist_ok=True)
        remove_partials(output_path)
    except OSError as error:
        hint = "Name a folder that this user may write to."
        if error.errno == errno.EROFS:
            hint = advise_on_writing(output_path, error.errno)
        raise OutputError(f"output {output_path}: can't be made: {error.strerror}", hint=hint) from error
    if not os.access(output_path, os.W_OK | os.X_OK):
        if os.statvfs(output_path).f_flag & os.ST_RDONLY:
            what, hint = "is mounted read-only", advise_on_writing(output_path, errno.EROFS)
        else:
            what = f"user {os.getuid()} may not write there"
            hint = "Change the folder's owner or mode, or run as its owner (docker run --user)."
        raise OutputError(f"output {output_path}: {what}", hint=hint)
    for path in label_maps:
        if path.is_dir() and not path.is_symlink():
            raise OutputError(
                f"output {printable(str(path))} is a folder, expected a label map or nothing", hint="Remove the folder."
            )


def warn_of_loss(output_path: Path) -> None:
    """Warns of an output folder in the image's own file system, which ends with the container."""
    if IMAGE_VARIABLE in os.environ and not _is_on_mount(output_path.resolve()):
        logger.warning(
            "output %s is not mounted: what is written there is lost with the container  -> docker run -v FOLDER:%s",
            output_path,
            output_path.resolve(),
        )


def _is_on_mount(folder: Path) -> bool:
    """Whether it lies on another mount than the root; True where the system does not say."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return True
    places = {re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split(" ")[4]) for line in lines}
    return any(str(around) in places for around in (folder, *folder.parents) if around != Path("/"))
