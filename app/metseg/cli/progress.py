"""How far a batch is: a bar on a terminal, one line per case everywhere."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from metseg.run.record import CaseRecord

logger = logging.getLogger(__name__)

LOUD = frozenset({"blank", "missing-modality"})
"""Flags that make a case's line a warning, so that --quiet and whoever greps for warnings see them."""

SHOWN_WARNINGS = 20
"""How many warnings of a batch are said in full: a caller that drains only stdout stops a program that says much on
stderr, whose pipe holds 64 kB."""


class BatchProgress:
    """Logs each case when it is done, with the time that the rest will take.

    Args:
        cases: number of cases in the batch.
    """

    def __init__(self, cases: int) -> None:
        self._cases = cases
        self._done = 0
        self._present = 0
        self._said = 0
        self._start = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("segmenting", total=cases)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def case_present(self) -> None:
        """A case that needs no work: no line, and no part of the time that the rest will take."""
        self._done += 1
        self._present += 1
        self._bar.advance(self._task)

    def case_done(self, record: CaseRecord) -> None:
        """One line: case, outcome, lesions, seconds, remaining, what is wrong; the batch's first warnings in full."""
        self._done += 1
        elapsed = time.monotonic() - self._start
        remaining = elapsed / (self._done - self._present) * (self._cases - self._done)
        self._bar.advance(self._task)
        line = f"[{self._done}/{self._cases}] {record.case_id}: {record.outcome}"
        if record.succeeded:
            line += f", {record.lesions} lesion{'' if record.lesions == 1 else 's'}"
        line += f", {record.elapsed_s:.1f} s, {_show_clock(remaining)} remaining"
        if record.notes:
            line += f"; {', '.join(note.words for note in record.notes)}"
        if record.warnings:
            line += f"; {len(record.warnings)} warning{'' if len(record.warnings) == 1 else 's'}"
        if record.error:
            logger.error("%s: %s", line, record.error)
            return
        loud = [note.sentence for note in record.notes if note.code in LOUD]
        warnings = (*loud, *(warning.what for warning in record.warnings))
        logger.log(logging.WARNING if warnings else logging.INFO, "%s", line)
        for warning in warnings:
            self._warn(record.case_id, warning)

    def _warn(self, case_id: str, warning: str) -> None:
        self._said += 1
        if self._said <= SHOWN_WARNINGS:
            logger.warning("case %s: %s", case_id, warning)
        elif self._said == SHOWN_WARNINGS + 1:
            logger.warning("further warnings are counted on their cases' lines; a report (--report-dir) has all")

    def summarise(self, records: Sequence[CaseRecord], output_path: Path, part: str = "") -> None:
        """The last line: how many of each outcome, where the label maps are, and which part of the cases that was."""
        counts = Counter(record.outcome for record in records)
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        elapsed = _show_clock(time.monotonic() - self._start)
        logger.info("%s in %s; label maps in %s%s", outcomes, elapsed, output_path, f"; {part}" if part else "")


def _show_clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
