"""Files that appear complete or not at all.

`/tmp` is another file system than the output folder in every container, so a finished file can't be moved from there in
one step. Instead the bytes go to a file without a name in the output folder (Linux O_TMPFILE). It gets its name when it
is complete: a process that is killed leaves nothing.

File systems without O_TMPFILE, and files that replace others, take a second way: `.<name>.<8 hex digits>.partial` is
written and renamed when it is complete. It is locked while it is being written, so `remove_partials` takes away only
what nobody is working on. A file can't be created and locked in one step, and some file systems have no locks. A writer
whose partial file was taken away therefore writes it again.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
from pathlib import Path
from typing import Final

from metseg.errors import OutputError

_PARTIAL: Final = re.compile(r"\..+\.[0-9a-f]{8}\.partial", re.DOTALL)

_LONGEST_NAME: Final = 255
"""Bytes, on nearly all file systems; a name that just fits leaves no room for what marks a partial file."""

_ATTEMPTS: Final = 10
"""How often a partial file may be taken away while it is being written; once is rare."""

_HARMLESS_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES})
"""What file systems that don't know fsync answer; a failing disk answers EIO, ENOSPC or EDQUOT."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that nobody ever sees a part of it, not even after a power cut; replaces an existing file.

    Args:
        path: the file; its folder exists. Its mode follows the caller's umask, as any new file's.
        content: all of it.

    Raises:
        OutputError: the file can't be written; nothing is left behind, and an existing file is as it was.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not _write_unnamed(folder, path, content):
                _write_named(folder, path, content)
            _sync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _output_error(path, error) from error


def remove_partials(output_path: Path) -> tuple[str, ...]:
    """Removes what killed processes left half written.

    Args:
        output_path: the folder; it need not exist.

    Returns:
        Names of the removed files. What another process is writing now stays.

    Raises:
        OutputError: the folder can't be listed, or a leftover can't be removed.
    """
    try:
        leftovers = sorted(name for name in os.listdir(output_path) if _PARTIAL.fullmatch(name))  # noqa: PTH208 - names are wanted
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _output_error(output_path, error) from error
    return tuple(name for name in leftovers if _remove_partial(output_path / name))


def _remove_partial(path: Path) -> bool:
    try:
        with contextlib.suppress(PermissionError):  # of another user: removable all the same where the folder is ours
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                return _remove_unlocked(path, file)
            finally:
                os.close(file)
        path.unlink()
    except FileNotFoundError:  # finished, or removed by somebody else
        return False
    except OSError as error:
        raise _output_error(path, error) from error
    return True


def _remove_unlocked(path: Path, file: int) -> bool:
    """Removes the open file, under its lock: nobody can begin to write it meanwhile; False where it is locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    path.unlink()
    return True


def _write_unnamed(folder: int, path: Path, content: bytes) -> bool:
    """True when written; False where the file system or the missing /proc forbid it, or the name is taken."""
    try:
        file = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, 0o666)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}:
            return False
        raise
    try:
        _write_all(file, content)
        # A destination folder's descriptor makes Python call linkat, which alone follows the link in /proc.
        os.link(f"/proc/self/fd/{file}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOENT, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}:
            return False
        raise
    finally:
        os.close(file)
    return True


def _write_named(folder: int, path: Path, content: bytes) -> None:
    stem = os.fsencode(path.name)[: _LONGEST_NAME - len("..01234567.partial")].decode(errors="ignore")
    for _ in range(_ATTEMPTS):
        partial = f".{stem}.{secrets.token_hex(4)}.partial"
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            _write_all(file, content)
            os.replace(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except FileNotFoundError:  # taken away before it was locked
            continue
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial, dir_fd=folder)
            raise
        finally:
            os.close(file)
        return
    raise OSError(errno.EBUSY, "its partial file is taken away again and again")


def _write_all(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]
    _sync(file)


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _HARMLESS_SYNC:
            raise


def _output_error(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} can't be written: {error.strerror or error}", hint=advise_on_writing(path, error.errno))


def advise_on_writing(path: Path, number: int | None) -> str:
    """What the user can do about a file or folder that can't be written; empty where nobody knows.

    Args:
        path: the file or folder.
        number: of the system's error, such as `errno.EACCES`.
    """
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return "Free some space and start again; finished cases of a batch are kept with --resume."
    if number == errno.EROFS:
        return "Mount the output folder for writing (docker run -v: without :ro)."
    if number in {errno.EACCES, errno.EPERM}:
        return f"Let user {os.getuid()} write there, or run as the folder's owner{_owner(path)} (docker run --user)."
    return "Create the output folder first." if number in {errno.ENOENT, errno.ENOTDIR} else ""


def _owner(path: Path) -> str:
    try:
        return f" {path.parent.stat().st_uid}"
    except OSError:
        return ""
