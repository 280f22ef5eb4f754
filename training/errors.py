"""Errors of training alone."""

from metseg.errors import ExitCode, MetsegError


class DivergenceError(MetsegError):
    """The loss is not a number any more."""

    exit_code = ExitCode.BUG


class InterruptedRunError(MetsegError):
    """A signal ended the run; its checkpoint is complete and the same command continues it."""

    exit_code = ExitCode.TERMINATED
