"""A clock that tells where the seconds go: spans inside spans, each counted without what lies inside it.

Spans are put around functions of the program from outside (`cover`), and around every layer of a network
(`cover_network`), so that the program itself carries none. On a GPU the clock waits for the device at both ends of a
span: it then times the work rather than its launch, and the whole takes a little longer than without it.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar
from unittest import mock

from metseg.network.cpu_layers import SingleGroupNorm
from torch import Tensor, nn

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

BETWEEN = "between layers"
"""Residual sums, crops, and the calls themselves."""


@dataclass(slots=True)
class Account:
    """What one name has taken so far.

    Attributes:
        seconds: without the spans inside.
        calls: spans.
        operations: of layers: a multiply-add counts as two.
        moved_bytes: of layers: what each reads and writes when it is by itself.
    """

    seconds: float = 0.0
    calls: int = 0
    operations: float = 0.0
    moved_bytes: float = 0.0


@dataclass(slots=True)
class StageClock:
    """Adds up the seconds of nested spans, one thread.

    Attributes:
        wait: returns when the device has done what it was given.
        now: seconds; `time.process_time` on a busy machine, where a single thread's own time is what can be measured.
        accounts: by name; a layer's name is a tuple (kind, level).
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

    def end(self, name: Any, operations: float = 0.0, moved_bytes: float = 0.0) -> None:
        """Closes the span that was opened last."""
        self.wait()
        start, inside = self._open.pop()
        elapsed = self.now() - start
        if self._open:
            self._open[-1][1] += elapsed
        account = self.accounts.setdefault(name, Account())
        account.seconds += elapsed - inside
        account.calls += 1
        account.operations += operations
        account.moved_bytes += moved_bytes

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


@contextmanager
def cover_network(clock: StageClock, network: nn.Module) -> Iterator[None]:
    """Puts a span around every layer of a network while the block runs.

    A layer's account is (kind, level): level 0 is the input's grid, level 1 has half its sides, and so on. What lies
    between the layers (residual sums, crops) is of the kind `BETWEEN`, on no level.
    """
    side = 1

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal side
        if module is network:
            side = inputs[0].shape[-3]
        clock.begin()

    def leave_container(_module: nn.Module, _inputs: tuple[Any, ...], _output: Any) -> None:
        clock.end((BETWEEN, None))

    def leave_layer(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        level = round(math.log2(side / output.shape[-3]))
        clock.end((kind_of(module), level), operations_of(module, output), bytes_of(module, inputs, output))

    with ExitStack() as stack:
        for module, is_layer in _layers(network):
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave_layer if is_layer else leave_container).remove)
        yield


def _layers(module: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """A module and what it is made of, with whether it is a layer: has no parts, or stands in for one that has none."""
    is_layer = isinstance(module, SingleGroupNorm) or not list(module.children())
    yield module, is_layer
    if not is_layer:
        for child in module.children():
            yield from _layers(child)


def kind_of(module: nn.Module) -> str:
    """A layer's kind, for people."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        sides = "x".join(map(str, module.kernel_size))
        return f"{'up-' if isinstance(module, nn.ConvTranspose3d) else ''}convolution {sides}"
    names = {"ChunkedMish": "Mish", "SingleGroupNorm": "GroupNorm", "Upsample": "upsampling"}
    return names.get(type(module).__name__, type(module).__name__)


def operations_of(module: nn.Module, output: Tensor) -> float:
    """Operations of a convolution's multiply-adds; 0 of other layers, whose arithmetic is small."""
    if not isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        return 0.0
    taps = math.prod(module.kernel_size)
    if isinstance(module, nn.ConvTranspose3d):  # every input voxel is multiplied with every tap
        taps /= math.prod(module.stride)
    return 2.0 * output.numel() * module.in_channels / module.groups * taps


def bytes_of(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> float:
    """Bytes of a layer's inputs, output and parameters."""
    tensors = [item for item in (*inputs, output, *module.parameters()) if isinstance(item, Tensor)]
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
