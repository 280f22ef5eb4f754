"""A case's lane: its own thread runs some stages of the way, the batch's thread the others."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from functools import partial
from queue import SimpleQueue
from threading import Event
from time import perf_counter
from typing import Any, Final, ParamSpec, TypeVar

from metseg.run.pipeline import Stage

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

LOOKS_EVERY_S: Final = 0.5
"""How often a case that waits for the batch's thread looks whether the batch has ended."""

_Request = tuple[Callable[[], Any], "Future[Any]", bool]
"""What to call, where its result goes, and whether it is the last request of the case."""


class Lane:
    """Executes the stages of one case in two threads, and adds up their seconds.

    The case's thread calls `run` for each stage and `leave` at the end; the batch's thread calls `serve` once.

    Args:
        here: the stages that the batch's thread executes, in the order of the way.
        ahead: the lane of the case before; this one begins when that one has arrived at these stages, so that one case
            is read at a time.

    Attributes:
        seconds: of work per stage, without waiting for the other thread.
        failed: whether the case gave up and the batch should stop.
    """

    def __init__(self, here: tuple[Stage, ...], ahead: "Lane | None" = None) -> None:
        self._here = here
        self._may_begin: Event | None = ahead.arrived if ahead is not None else None
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._is_open = True
        self.arrived: Event = Event()
        self.seconds: dict[str, float] = {}
        self.failed = False

    def run(
        self,
        stage: Stage,
        step: Callable[_Arguments, _Result],
        /,
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Result:
        """Executes a stage in the thread that it belongs to; see `metseg.run.pipeline.RunStage`.

        Raises:
            CancelledError: the batch has ended without this case.
        """
        if self._may_begin is not None:
            self._may_begin.wait()
        if not self._is_open:
            raise CancelledError
        call = partial(self._timed, stage, partial(step, *arguments, **options))
        if stage not in self._here:
            result: _Result = call()
            return result
        reply: Future[_Result] = Future()
        self._requests.put((call, reply, stage == self._here[-1]))
        self.arrived.set()
        del call, arguments
        try:
            while not reply.done():
                wait([reply], timeout=LOOKS_EVERY_S)
                if not self._is_open and not reply.done():
                    raise CancelledError
            return reply.result()
        finally:
            del reply  # an error's traceback holds this frame: without this, the error would hold itself

    def leave(self, *, failed: bool = False) -> None:
        """Says that the case asks for nothing more."""
        self.failed = failed
        self._requests.put(None)
        self.arrived.set()

    def serve(self) -> None:
        """Executes what the case asks for, until it asks for nothing more; errors are the case's."""
        while (request := self._requests.get()) is not None:
            call, reply, is_last = request
            try:
                reply.set_result(call())
            except Exception as error:  # noqa: BLE001 - raised again in the case's thread
                reply.set_exception(error)
            del request, call, reply  # they hold the case's tensors
            if is_last:
                return

    def close(self) -> None:
        """Gives the case up, unless it needs this thread no more: what it asks for raises CancelledError."""
        self._is_open = False
        self.arrived.set()

    def _timed(self, stage: Stage, step: Callable[[], _Result]) -> _Result:
        began = perf_counter()
        try:
            return step()
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - began
