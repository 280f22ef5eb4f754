"""Log lines on stderr: short text for people, one JSON object per line for machines."""

import json
import logging
import sys
from enum import StrEnum
from types import TracebackType

from typing_extensions import override

from metseg.findings import printable

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class _Formatter(logging.Formatter):
    """Says a traceback once: a bug that every case of a batch meets must not fill a pipe that nobody drains."""

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text)
        self._said: set[tuple[str, int]] = set()

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the name of a case or a file."""
        return printable(super().formatMessage(record))

    @override
    def formatException(self, ei: _ExceptionInfo) -> str:
        traceback = ei[2]
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        place = ("", 0) if traceback is None else (traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
        if place in self._said:
            return f"{ei[0].__name__ if ei[0] else 'error'} at the place of the traceback above"
        self._said.add(place)
        return super().formatException(ei)


class _TextFormatter(_Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


class _JsonFormatter(_Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(*, verbose: bool = False, quiet: bool = False, log_format: LogFormat = LogFormat.TEXT) -> None:
    """Sends the log of `metseg` to stderr, and the warnings of libraries with it."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format is LogFormat.JSON:
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(name)s: %(message)s" if verbose else "%(message)s"))
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("metseg").setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(capture=True)
    # Deprecation notes of libraries are ours to read in the tests, not the user's; one line a case is the rule.
    logging.getLogger("py.warnings").setLevel(logging.INFO if verbose else logging.ERROR)
