"""A clock that tells where the seconds go: spans inside spans, each counted without what lies inside it.

Spans are put around functions of the program from outside (`cover`), so that the program itself carries none. On a GPU
the clock waits for the device at both ends of a span: it then times the work rather than its launch, and the whole
takes a little longer than without it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar
from unittest import mock

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(slots=True)
class Account:
    """What one name has taken so far.

    Attributes:
        seconds: without the spans inside.
        calls: spans.
    """

    seconds: float = 0.0
    calls: int = 0


@dataclass(slots=True)
class StageClock:
    """Adds up the seconds of nested spans, one thread.

    Attributes:
        wait: returns when the device has done what it was given.
        now: seconds; `time.process_time` on a busy machine, where a single thread's own time is what can be measured.
        accounts: by name.
        stages: seconds of each stage that `run` executed, with the spans inside it.
    """

    wait: Callable[[], None] = lambda: None
    now: Callable[[], float] = time.perf_counter
    accounts: dict[Any, Account] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    _open: list[list[float]] = field(default_factory=list)

    def begin(self) -> None:
        """Opens a span; its name is said at its end."""
        self.wait()
        self._open.append([self.now(), 0.0])

    def end(self, name: Any) -> None:
        """Closes the span that was opened last."""
        self.wait()
        start, inside = self._open.pop()
        elapsed = self.now() - start
        if self._open:
            self._open[-1][1] += elapsed
        account = self.accounts.setdefault(name, Account())
        account.seconds += elapsed - inside
        account.calls += 1

    @contextmanager
    def span(self, name: Any) -> Iterator[None]:
        """A span around a block."""
        self.begin()
        try:
            yield
        finally:
            self.end(name)

    def run(
        self,
        stage: str,
        step: Callable[_Arguments, _Result],
        /,
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Result:
        """Executes a stage here, in a span of its own; see `metseg.run.pipeline.RunStage`."""
        self.wait()
        start = self.now()
        with self.span(f"{stage}: the rest"):
            result = step(*arguments, **options)
        self.stages[stage] = self.stages.get(stage, 0.0) + self.now() - start
        return result


@contextmanager
def cover(clock: StageClock, functions: dict[tuple[Any, str], str]) -> Iterator[None]:
    """Puts spans around functions while the block runs.

    Args:
        clock: the clock.
        functions: (module or class, attribute) to the span's name; generators are timed step by step.
    """
    with ExitStack() as stack:
        for (owner, attribute), name in functions.items():
            covered = _covered(clock, getattr(owner, attribute), name)
            stack.enter_context(mock.patch.object(owner, attribute, covered))
        yield


def _covered(clock: StageClock, function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        with clock.span(name):
            result = function(*arguments, **options)
        return _stepwise(clock, result, name) if isinstance(result, Iterator) else result

    return run


def _stepwise(clock: StageClock, steps: Iterator[Any], name: str) -> Iterator[Any]:
    nothing = object()
    while True:
        with clock.span(name):
            step = next(steps, nothing)
        if step is nothing:
            return
        yield step
