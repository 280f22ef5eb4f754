"""The program `metseg`: one place where errors become messages and exit codes."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from metseg.errors import ExitCode, MetsegError

logger = logging.getLogger("metseg")


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt no `except Exception` catches it."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with a code of `ExitCode`."""
    signal.signal(signal.SIGTERM, _terminate)
    open_closed_streams()
    code = run(arguments)
    give_up_full_streams()
    sys.exit(int(code))


def run(arguments: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line and returns its exit code; everything that goes wrong ends as one clear line."""
    import typer.exceptions  # noqa: PLC0415 - so that an interrupt during the imports below is caught too

    try:
        from metseg.cli import app  # noqa: PLC0415

        result = app(args=list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
        return ExitCode(result) if isinstance(result, int) else ExitCode.DONE
    except MetsegError as error:
        logger.error("%s%s", error, f"  -> {error.hint}" if error.hint else "")  # noqa: TRY400 - the user's error, not ours
        return error.exit_code
    except typer.exceptions.TyperException as error:
        logger.error("%s  -> see `metseg --help`", error.format_message())  # noqa: TRY400 - the user's error, not ours
        return ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        logger.error("interrupted; finished label maps are complete, the others were not written")  # noqa: TRY400
        return ExitCode.INTERRUPTED
    except Terminated:
        logger.error("terminated; finished label maps are complete, the others were not written")  # noqa: TRY400
        return ExitCode.TERMINATED
    except Exception:
        logger.exception("a bug in metseg: please report it with the lines below")
        return ExitCode.BUG


def open_closed_streams() -> None:
    """Leads the standard streams that the caller has closed (`2>&-`) to the null device.

    Python has None for them, which nothing can be written to. Their numbers are free too: the next file that is opened,
    such as a label map, would take one, and get what a library says on it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - takes the lowest number free, this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def give_up_full_streams() -> None:
    """Drops what can't be said any more (a full disk, a reader that has left): Python would exit with 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    main()
