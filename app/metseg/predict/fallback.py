"""Predicting a case within the memory there is: what does not fit is tried again in smaller steps, and the log says so.

    GPU: as planned -> one window at a time -> image and sums on the host -> on the CPU (under `--device auto` alone)
    CPU: as planned -> one window at a time

A case whose numbers leave the range of the GPU's arithmetic goes to that CPU at once, and so does one on which the GPU
itself fails.

Every case begins at the top, so that its labels don't depend on which cases ran before it. On one device the steps do
the same sums in the same order; a CPU rounds differently.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from metseg.errors import DeviceError, NotFiniteError
from metseg.findings import printable
from metseg.predict.engine import Engine
from metseg.predict.inputs import Inputs
from metseg.predict.members import Predictions, predict_members

logger = logging.getLogger(__name__)

ALLOCATORS_WORDS: Final = (
    "bad_alloc",
    "Failed to allocate",
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "_ALLOC_FAILED",
    "_ALLOCATION_FAILED",
    "unable to find an engine",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_INITIALIZED",
)
"""How torch's CPU allocator, OpenVINO, CUDA and its libraries say it in a RuntimeError that has no class of its own. A
convolution whose every workspace failed finds no engine; cuDNN that can't load its kernels calls it internal."""

SHOWN_CHARACTERS: Final = 120
"""Of an allocator's message, which may be a page long."""


def predict(inputs: Inputs, engine: Engine) -> Predictions:
    """Runs every usable member on a case, in smaller steps where memory does not suffice.

    The inputs' memory is given back at the end, whether it worked or not.

    Raises:
        DeviceError: it does not fit in the smallest steps either, or its numbers are not finite on any device.
    """
    try:
        return _predict_in_steps(inputs, engine)
    finally:
        inputs.forget()


def _predict_in_steps(inputs: Inputs, engine: Engine) -> Predictions:
    case_id = inputs.prepared.case_id
    failure, reason, device = "", "", engine.device.description
    only_cpu = False
    for step, attempt in _steps(engine):
        if only_cpu and attempt.fallback is not None:
            continue
        if failure:
            logger.warning("%s; trying again %s", failure, step)
        device = attempt.device.description
        try:
            return predict_members(inputs, attempt)
        except Exception as error:  # allocators raise errors of several kinds
            reason = _reason(error)
            if is_out_of_memory(error):
                failure = f"case {printable(case_id)}: out of memory ({reason})"
            elif attempt.fallback is not None and isinstance(error, NotFiniteError):
                only_cpu, failure = True, str(error)
            elif attempt.fallback is not None and isinstance(error, RuntimeError):
                only_cpu, failure = True, f"case {printable(case_id)}: failed on {device} ({reason})"
            else:
                raise
        # Here, not in the handler: until it is left, the error holds the frames whose tensors filled the memory.
        _release_memory(inputs)
    raise _memory_error(case_id, f"out of memory on {device} ({reason})")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    import torch  # noqa: PLC0415 - heavy

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATORS_WORDS)


def as_memory_error(case_id: str, error: Exception) -> Exception:
    """An exhausted memory as the user's error, with what to do about it; any other error as it is."""
    return _memory_error(case_id, f"out of memory ({_reason(error)})") if is_out_of_memory(error) else error


def _steps(engine: Engine, first: str = "as planned") -> Iterator[tuple[str, Engine]]:
    yield first, engine
    if engine.execution.batch_voxels:
        engine = replace(engine, execution=replace(engine.execution, batch_voxels=0))
        yield "with one window at a time", engine
    if engine.device.is_cuda and not engine.execution.sums_on_host:
        engine = replace(engine, execution=replace(engine.execution, sums_on_host=True))
        yield "with image and sums in the host's memory", engine
    if engine.fallback is not None:
        yield from _steps(engine.fallback(), "on the CPU")


def _memory_error(case_id: str, what: str) -> DeviceError:
    return DeviceError(
        f"case {printable(case_id)}: {what}",
        hint="Give the process more memory, or choose a plan with smaller windows; metseg check estimates the need.",
    )


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _release_memory(inputs: Inputs) -> None:
    import torch  # noqa: PLC0415 - heavy

    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # a GPU that has failed says so again
            torch.cuda.synchronize()  # it may still read what is given back
    inputs.leave_devices()
    gc.collect()
    if torch.cuda.is_initialized():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
