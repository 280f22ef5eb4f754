"""Log lines on stderr: short text for people, one JSON object a line for machines."""

import json
import logging
import sys
from enum import StrEnum

from typing_extensions import override


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class _TextFormatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


class _JsonFormatter(logging.Formatter):
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
