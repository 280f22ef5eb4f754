"""A member's network on a CPU: OpenVINO's graph of it, compiled for the shape of the windows and for the threads.

The same window gives the same bits with any number of threads and beside any other windows: every sum is taken within
one thread (`metseg.network.graph_layers.group_norm`).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from metseg.network.graphs import build_graph
from metseg.plan.networks import NetworkPlan
from metseg.predict.device import Device

if TYPE_CHECKING:
    import torch

PRECISIONS: Final = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""OpenVINO's names."""

PATIENCE_MS: Final = 100
"""How long one wait for a window lasts: Python hears of an interrupt only between two of them."""


class GraphNetwork:
    """(batch, channels, x, y, z) to logits (batch, regions, ...), as `build_network`'s module of the same parameters.

    Windows of a batch run side by side, each in a stream of its own, as far as there are threads. Several threads may
    call it; one waits for the other.

    Args:
        plan: the architecture.
        state: its parameters by name, float32.
        in_channels: input channels.
        device: gives the precision and the threads.
    """

    def __init__(
        self, plan: NetworkPlan, state: Mapping[str, NDArray[np.float32]], *, in_channels: int, device: Device
    ) -> None:
        self._plan = plan
        self._state = state
        self._in_channels = in_channels
        self._device = device
        self._sides: tuple[int, ...] | None = None
        self._requests: tuple[Any, ...] = ()
        self._compiled: Any = None
        self._lock = Lock()

    def __call__(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Logits of a batch of windows.

        Args:
            batch: float32, on the CPU.

        Raises:
            RuntimeError: OpenVINO's own, for want of memory or else.
        """
        import torch  # noqa: PLC0415 - heavy

        windows = np.ascontiguousarray(batch.numpy())  # kept here while the requests read it
        with self._lock:
            self._compile(windows.shape[2:], min(len(batch), self._device.threads))
            results = [
                result
                for first in range(0, len(windows), len(self._requests))
                for result in self._side_by_side(windows[first : first + len(self._requests)])
            ]
        return torch.from_numpy(results[0] if len(results) == 1 else np.concatenate(results))

    def rest(self) -> None:
        """Gives back what the last windows took; the next one takes it anew."""
        with self._lock:
            if self._compiled is not None:
                self._compiled.release_memory()

    def _side_by_side(self, windows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Results of as many windows as there are requests, or fewer."""
        started = self._requests[: len(windows)]
        try:
            for number, request in enumerate(started):
                request.set_input_tensor(ov.Tensor(windows[number : number + 1], shared_memory=True))
                request.start_async()
            return [_wait_for(request) for request in started]
        except BaseException:  # an interrupt, too: nothing may run on that reads the windows
            _call_off(started)
            raise

    def _compile(self, sides: tuple[int, ...], streams: int) -> None:
        """Makes the graph ready for windows of these sides, unless it is."""
        if self._sides == sides and len(self._requests) >= streams:
            return
        self._sides, self._requests, self._compiled = None, (), None  # before the next one takes memory
        in_float32 = self._device.precision == "float32"
        graph = build_graph(self._plan, self._state, in_channels=self._in_channels, sides=sides, in_float32=in_float32)
        self._compiled = _core().compile_model(graph, "CPU", compile_settings(self._device, streams))
        self._requests = tuple(self._compiled.create_infer_request() for _ in range(streams))
        self._sides = sides


def compile_settings(device: Device, streams: int) -> dict[str, Any]:
    """What OpenVINO is told of a device, by its own names of properties."""
    return {
        "INFERENCE_PRECISION_HINT": PRECISIONS[device.precision],
        "INFERENCE_NUM_THREADS": device.threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # processes side by side would be pinned to the same cores
    }


@cache
def _core() -> ov.Core:
    return ov.Core()


def _wait_for(request: Any) -> NDArray[np.float32]:
    while not request.wait_for(PATIENCE_MS):
        pass
    return np.array(request.get_output_tensor().data)


def _call_off(requests: Sequence[Any]) -> None:
    for request in requests:
        request.cancel()
    for request in requests:
        with suppress(RuntimeError):  # it says that it was cancelled
            request.wait()
