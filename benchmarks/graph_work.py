"""What a network has to do for one window, counted on its graph, and where OpenVINO's seconds of it go."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import openvino as ov

from metseg.network.graphs import build_graph
from metseg.predict.device import Device
from metseg.predict.engine import Member
from metseg.predict.graph_network import compile_settings

BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}

CONVOLUTION, UP_CONVOLUTION = "Convolution", "ConvolutionBackpropData"
"""OpenVINO's names."""


@dataclass(frozen=True, slots=True)
class Work:
    """Of one window.

    Attributes:
        operations: of the convolutions; a multiply-add counts as two.
        moved_bytes: what every convolution reads and writes by itself, in the networks' precision.
    """

    operations: float
    moved_bytes: float


def build_member_graph(member: Member, sides: Sequence[int], precision: str) -> ov.Model:
    """The graph that a CPU runs for this member in this precision."""
    state = {name: tensor.float().cpu().numpy() for name, tensor in member.parameters.items()}
    channels, in_float32 = len(member.plan.channels), precision == "float32"
    return build_graph(member.plan.network, state, in_channels=channels, sides=sides, in_float32=in_float32)


def count_work(graph: ov.Model, precision: str) -> Work:
    """Counts a graph's convolutions."""
    operations = moved = 0.0
    for node in graph.get_ops():
        if node.get_type_name() in {CONVOLUTION, UP_CONVOLUTION}:
            read, weights, written = (list(part.get_shape()) for part in (node.input(0), node.input(1), node.output(0)))
            voxels = math.prod((read if node.get_type_name() == UP_CONVOLUTION else written)[2:])
            operations += 2.0 * voxels * math.prod(weights)
            moved += BYTES[precision] * sum(map(math.prod, (read, weights, written)))
    return Work(operations, moved)


def profile_graph(graph: ov.Model, device: Device, repeats: int = 3) -> dict[str, float]:
    """Seconds of one window by kind of layer as OpenVINO executes it, the largest first."""
    settings = compile_settings(device, streams=1) | {"PERF_COUNT": True}
    request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
    window = np.random.default_rng(0).random(list(graph.input(0).get_shape()), dtype=np.float32)
    best: dict[str, float] = {}
    for _ in range(repeats):
        request.infer([window])
        seconds: Counter[str] = Counter()
        for layer in request.profiling_info:
            if layer.status == layer.Status.EXECUTED:
                seconds[_kind(layer)] += layer.real_time.total_seconds()
        if not best or sum(seconds.values()) < sum(best.values()):
            best = dict(seconds.most_common())
    return best


def _kind(layer: Any) -> str:
    """A layer's type; of what is moved to another type or layout, so."""
    return "layout and type" if layer.node_type in {"Reorder", "Convert", "Transpose"} else str(layer.node_type)
