"""A member's network on a CPU: OpenVINO's graph of it, compiled for the shape of the windows and for the threads.

The same window gives the same bits with any number of threads and beside any other windows: every sum is taken within
one thread (`metseg.network.graph_layers.group_norm`).
"""

from collections.abc import Mapping
from functools import cache
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

    Windows of a batch run side by side, each in a stream of its own, as far as there are threads.

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
        self._key: tuple[tuple[int, ...], int] | None = None
        self._requests: tuple[Any, ...] = ()
        self._compiled: Any = None

    def __call__(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Logits of a batch of windows.

        Args:
            batch: float32, on the CPU.

        Raises:
            RuntimeError: OpenVINO's own, for want of memory or else.
        """
        import torch  # noqa: PLC0415 - heavy

        streams = min(len(batch), self._device.threads)
        self._compile(tuple(batch.shape[2:]), streams)
        results: list[NDArray[np.float32] | None] = [None] * len(batch)
        windows = batch.numpy()
        for first in range(0, len(batch), streams):
            started = [
                (number, _start(request, windows[number : number + 1]))
                for request, number in zip(self._requests, range(first, len(batch)), strict=False)
            ]
            for number, request in started:
                results[number] = _finish(request)
        stacked = [torch.from_numpy(result) for result in results if result is not None]
        return stacked[0] if len(stacked) == 1 else torch.cat(stacked)

    def rest(self) -> None:
        """Gives back what the last windows took; the next one takes it anew."""
        if self._compiled is not None:
            self._compiled.release_memory()

    def _compile(self, sides: tuple[int, ...], streams: int) -> None:
        """Makes the graph ready for windows of these sides, unless it is."""
        if self._key is not None and self._key[0] == sides and self._key[1] >= streams:
            return
        self._key, self._requests, self._compiled = None, (), None  # before the next one takes memory
        graph = build_graph(self._plan, self._state, in_channels=self._in_channels, sides=sides)
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self._device.precision],
            "INFERENCE_NUM_THREADS": self._device.threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # processes side by side would be pinned to the same cores
        }
        self._compiled = _core().compile_model(graph, "CPU", settings)
        self._requests = tuple(self._compiled.create_infer_request() for _ in range(streams))
        self._key = sides, streams


@cache
def _core() -> ov.Core:
    return ov.Core()


def _start(request: Any, window: NDArray[np.float32]) -> Any:
    request.set_input_tensor(ov.Tensor(np.ascontiguousarray(window), shared_memory=True))
    request.start_async()
    return request


def _finish(request: Any) -> NDArray[np.float32]:
    while not request.wait_for(PATIENCE_MS):
        pass
    return np.array(request.get_output_tensor().data)
