"""Every error that a user can cause or meet, with the exit code that callers rely on."""

from enum import IntEnum
from typing import Any, Literal

from typing_extensions import override

OnError = Literal["stop", "skip", "blank"]
"""What happens when a case can't be segmented: the batch stops, the case is skipped, or a blank map is written."""


class ExitCode(IntEnum):
    """Exit codes of the command line: an interface (docs/exit-codes.md)."""

    DONE = 0
    USAGE = 2
    INPUT = 3
    WEIGHTS = 4
    DEVICE = 5
    OUTPUT = 6
    SOME_FAILED = 10
    BUG = 70
    INTERRUPTED = 130
    TERMINATED = 143


class MetsegError(Exception):
    """An error that is not a bug: its message says what, where, and found against expected.

    Attributes:
        exit_code: what the command line exits with.
        hint: what the user can do about it; one sentence, may be empty.
    """

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        """Leaves a worker process whole, whatever arguments its class takes: Python would call the class again."""
        return _remake, (type(self), self.args), self.__dict__


def _remake(kind: type[MetsegError], arguments: tuple[object, ...]) -> MetsegError:
    return kind.__new__(kind, *arguments)


class UsageError(MetsegError):
    """The command line, a plan or a recipe asks for something that does not exist."""

    exit_code = ExitCode.USAGE


class InputError(MetsegError):
    """A case, an image or a label map can't be used."""

    exit_code = ExitCode.INPUT


class WeightsError(MetsegError):
    """A bundle is incomplete, altered, or does not fit its plan."""

    exit_code = ExitCode.WEIGHTS


class DeviceError(MetsegError):
    """The device asked for is missing, out of memory, or not up to the networks' numbers."""

    exit_code = ExitCode.DEVICE


class NotFiniteError(DeviceError):
    """A network's numbers left the range of the device's arithmetic."""


class OutputError(MetsegError):
    """A result can't be written where it should go."""

    exit_code = ExitCode.OUTPUT
