"""Work on many items in several processes; what goes wrong there reads as if it had happened here."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Literal, TypeVar

from metseg.errors import DeviceError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], jobs: int, *, start: Literal["spawn", "fork"] = "spawn"
) -> Iterator[Result]:
    """Yields the result of each item, in order.

    Args:
        work: a function of a module, or a partial of one.
        items: what it is called with.
        jobs: processes; 1 works in this one.
        start: how they start. A fork of a process with running threads (BLAS, a progress bar) may hang.

    Raises:
        DeviceError: the system ended a process.
        Exception: what `work` raises; a MetsegError keeps its class and hint.
    """
    if jobs <= 1:
        yield from map(work, items)
        return
    try:
        with ProcessPoolExecutor(jobs, mp_context=get_context(start)) as pool:
            yield from pool.map(work, items)
    except BrokenProcessPool as error:
        raise DeviceError(
            f"one of {jobs} worker processes was ended from outside, most often because memory ran out",
            hint="Use fewer processes, or give the machine more memory.",
        ) from error
