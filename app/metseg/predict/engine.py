"""The frozen ensemble on its device, and how it is run there.

What an ensemble predicts is its plan's business (science). How many windows a network sees at once, where sums are kept
and what happens when a device fails is `Execution` and `Engine.fallback`: they change no voxel on one device.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from metseg.errors import DeviceError
from metseg.plan.bundle import Bundle
from metseg.plan.plan import MemberPlan, Plan
from metseg.predict.device import Device, DeviceChoice, choose_device, first_line
from metseg.predict.weights import build_module, load_parameters
from metseg.prepare.prepare import PreparedCase

if TYPE_CHECKING:
    import torch
    from torch import Tensor

logger = logging.getLogger(__name__)

GPU_BATCH_VOXELS: Final = 2**22
"""Three of the paper's windows, or one as large as a brain, or 37 of 48x48x48. One window alone of the large ones is
work enough for a GPU; small ones one by one are more launching than computing. 16 half-precision filters of so many
voxels take about 1 GB (`metseg.predict.memory.WINDOW_TENSORS`)."""

CPU_VOXELS_PER_THREAD: Final = 2**17
"""One window of 48x48x48: small ones go side by side, one on each thread; a larger one is work enough for several."""

Network: TypeAlias = "Callable[[Tensor], Tensor]"
"""(batch, channels, x, y, z) on the device, in `Device.input_dtype`, to logits (batch, regions, x, y, z)."""


def _keep() -> None:
    """A network that keeps nothing between its windows has nothing to give back."""


@dataclass(frozen=True, slots=True)
class Member:
    """One loaded model.

    Attributes:
        plan: its entry in the plan.
        network: on the device, in its precision.
        parameters: by name, as the weights file holds them.
        rest: gives back the memory that the network's last windows took.
    """

    plan: MemberPlan
    network: Network
    parameters: "Mapping[str, Tensor]"
    rest: Callable[[], None] = _keep


@dataclass(frozen=True, slots=True)
class Execution:
    """How the networks are run; nothing here changes a voxel.

    Attributes:
        batch_voxels: a network sees one window (of any pass) at a time, or more while their voxels are not above this.
        sums_on_host: image and sums stay in the host's memory; the device holds the network and one batch.
    """

    batch_voxels: int = 0
    sums_on_host: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """All loaded models of a bundle, with the plan to run them by and the device they are on.

    Attributes:
        plan: the science.
        members: in the plan's order.
        device: where they are.
        execution: how they are run there.
        fallback: gives the same models on the CPU; None where the device may not be left (`metseg.predict.fallback`).
    """

    plan: Plan
    members: tuple[Member, ...]
    device: Device
    execution: Execution = Execution()
    fallback: "Callable[[], Engine] | None" = None

    @property
    def store(self) -> "torch.device":
        """Where a case's image and sums are."""
        import torch  # noqa: PLC0415 - heavy

        return torch.device("cpu" if self.execution.sums_on_host else self.device.name)

    def usable_members(self, prepared: PreparedCase) -> tuple[Member, ...]:
        """The members that lack none of the images that they need, in the plan's order."""
        return tuple(member for member in self.members if member.plan.required_modalities <= set(prepared.channels))


def load_engine(bundle: Bundle, device: Device) -> Engine:
    """Loads every member of a bundle onto a device, once for all cases.

    Raises:
        WeightsError: a member is missing, altered, or does not fit the plan.
    """
    members = tuple(place_member(plan, load_parameters(bundle.folder, plan), device) for plan in bundle.plan.members)
    batch_voxels = GPU_BATCH_VOXELS if device.is_cuda else device.threads * CPU_VOXELS_PER_THREAD
    return Engine(bundle.plan, members, device, Execution(batch_voxels=batch_voxels))


def open_engine(bundle: Bundle, device: Device, choice: DeviceChoice) -> Engine:
    """Loads a bundle; under `auto` a GPU that can't take the networks, or that fails later, gives way to the CPU.

    Under `cuda` that is an error: nobody who asks for a GPU wants a slow night.

    Args:
        bundle: weights and plan.
        device: chosen by `choose_device`.
        choice: what was asked for.

    Raises:
        DeviceError: the GPU can't hold the networks, and no other device may be used.
        WeightsError: as `load_engine`.
    """
    try:
        engine = load_engine(bundle, device)
    except RuntimeError as error:  # whatever torch raises; what is wrong with weights is a MetsegError
        if not device.is_cuda:
            raise
        problem = f"device {device.description}: the networks can't be put there: {first_line(error)}"
        if choice != "auto":
            raise DeviceError(problem, hint="Free the GPU, or run with --device cpu.") from error
        logger.warning("%s; running on the CPU", problem)
        return load_engine(bundle, choose_device("cpu"))
    if device.is_cuda and choice == "auto":
        return replace(engine, fallback=cache(lambda: load_engine(bundle, choose_device("cpu"))))
    return engine


def place_member(plan: MemberPlan, parameters: "Mapping[str, Tensor]", device: Device) -> Member:
    """A member on a device, in its precision: torch's module on a GPU, OpenVINO's graph on a CPU.

    Args:
        plan: its entry in the plan.
        parameters: as `load_parameters` gives them.
        device: where.
    """
    if device.is_cuda:
        return Member(plan, _place_module(build_module(plan, parameters), device), parameters)
    from metseg.predict.graph_network import GraphNetwork  # noqa: PLC0415 - heavy

    state = {name: tensor.numpy() for name, tensor in parameters.items()}
    graph = GraphNetwork(plan.network, state, in_channels=len(plan.channels), device=device)
    return Member(plan, graph, parameters, graph.rest)


def _place_module(module: Any, device: Device) -> Network:
    """In the layout that suits a GPU. Typed loosely: torch's annotations of `Module.to` lack `memory_format`."""
    import torch  # noqa: PLC0415 - heavy

    placed: Network = module.to(
        device=torch.device(device.name), dtype=device.dtype, memory_format=torch.channels_last_3d
    )
    return placed
