"""What a run says about itself: metrics.jsonl, TensorBoard, a progress bar with the time left."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.runs.files import METRICS_FILE
from training.runs.metrics import drop_later_metrics


class Monitor:
    """Writes a run's figures; does nothing on ranks other than the first.

    Args:
        folder: of the run.
        active: whether this rank writes.
        first_step: steps done before; later lines of an earlier, killed session are cut off.
    """

    def __init__(self, folder: Path, *, active: bool, first_step: int) -> None:
        self.active = active
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - heavy

        drop_later_metrics(folder, first_step)
        self._file = (folder / METRICS_FILE).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("training", total=1.0, note="")

    def __enter__(self) -> Self:
        if self.active and self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.active:
            self._bar.stop()
            self._file.close()
            self._board.close()

    def write(self, kind: str, step: int, figures: Mapping[str, Any], share_done: float) -> None:
        """Adds a line `{"kind", "step", **figures}`, numbers to TensorBoard too, and moves the bar."""
        if not self.active:
            return
        self._file.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        self._file.flush()
        for name, value in figures.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{kind}/{name}", value, step)
        note = " ".join(f"{name} {value:.4g}" for name, value in figures.items() if name in {"loss", "score"})
        self._bar.update(self._task, completed=min(share_done, 1.0), note=f"step {step} {note}")
