"""The frozen ensemble at work: sliding window and test-time augmentation, one member after the other.

Shapes: an image is (channels, x, y, z), a batch (passes, channels, x, y, z), logits and probabilities (3, x, y, z) with
the regions WT, TC, ET as channels, or (1, x, y, z) where the members know metastases alone.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import NotFiniteError
from metseg.findings import printable
from metseg.plan.bundle import Bundle, load_member
from metseg.plan.networks import DeepMedicPlan
from metseg.plan.plan import MemberPlan, Plan
from metseg.predict.between_grids import logits_between_grids
from metseg.predict.device import Device, beside_computing, first_line, free_bytes
from metseg.predict.inputs import Prefetch
from metseg.predict.passes import CaseNoise, count_passes, flip, images_of_rounds, uses_noise
from metseg.predict.tiles import tiled_logits
from metseg.predict.windows import Layout, gaussian_weights, lay_windows
from metseg.prepare.prepare import PreparedCase, voxel_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

GPU_BATCH_VOXELS: Final = 2**22
"""Three of the paper's windows, or one as large as a brain, or 37 of 48x48x48. One window alone of the large ones is
work enough for a GPU; small ones one by one are more launching than computing. 16 half-precision filters of so many
voxels take about 1 GB (`metseg.predict.memory.WINDOW_TENSORS`)."""

LEFT_FREE_BYTES: Final = 4 * 2**30
"""A GPU with less free memory than this is not sent the next case ahead of its turn (0.3 GB with 13 passes)."""

Probabilities = NDArray[np.float32]
"""Shape (3, x, y, z), channels WT, TC, ET, or (1, x, y, z)."""


@dataclass(frozen=True, slots=True)
class Member:
    """One loaded model.

    Attributes:
        plan: its entry in the plan.
        network: on the device, in its precision, eval mode.
    """

    plan: MemberPlan
    network: "nn.Module"


@dataclass(frozen=True, slots=True)
class Ensemble:
    """All loaded models of a bundle with the plan to run them by.

    Attributes:
        plan: the science.
        members: in the plan's order.
        device: where they are.
        batch_voxels: a network sees one window (of any pass) at a time, or more while their voxels are not above this.
        sums_on_host: image and sums stay in the host's memory; the device holds the network and one batch.
        fallback: gives the same ensemble on the CPU; None where the device may not be left (`metseg.predict.fallback`).
    """

    plan: Plan
    members: tuple[Member, ...]
    device: Device
    batch_voxels: int = 0
    sums_on_host: bool = False
    fallback: "Callable[[], Ensemble] | None" = None


@dataclass(frozen=True, slots=True)
class MemberPrediction:
    """What one member says of one case.

    Attributes:
        name: the member's.
        probabilities: on the layout's region of the network's grid.
    """

    name: str
    probabilities: Probabilities


def load_ensemble(bundle: Bundle, device: Device) -> Ensemble:
    """Loads every member of a bundle onto the device, once for all cases.

    Raises:
        WeightsError: a member is missing, altered, or does not fit the plan.
    """
    members = tuple(
        Member(plan, place_network(load_member(bundle.folder, plan), device)) for plan in bundle.plan.members
    )
    batch_voxels = GPU_BATCH_VOXELS if device.is_cuda else 0
    return Ensemble(plan=bundle.plan, members=members, device=device, batch_voxels=batch_voxels)


def place_network(network: Any, device: Device) -> "nn.Module":
    """A network on the device, in its precision and layout; on a CPU with layers that suit it.

    Typed loosely: torch's annotations of `Module.to` lack `memory_format`.
    """
    import torch  # noqa: PLC0415 - heavy

    from metseg.network.cpu_layers import arrange_for_cpu  # noqa: PLC0415 - needs torch

    placed: nn.Module = network.to(
        device=torch.device(device.name), dtype=device.dtype, memory_format=torch.channels_last_3d
    )
    return placed if device.is_cuda else arrange_for_cpu(placed)


def usable_members(ensemble: Ensemble, case: PreparedCase) -> tuple[Member, ...]:
    """The members whose channels the case's images give, in the plan's order."""
    return tuple(member for member in ensemble.members if set(member.plan.channels) <= set(case.channels))


def plan_layout(case: PreparedCase, plan: Plan) -> Layout:
    """Where the plan's windows go on this case; their region is that of every member's prediction."""
    return lay_windows(case.resampling.network.shape, case.brain, plan.window, plan.side_multiples)


def member_layout(case: PreparedCase, plan: Plan, member: MemberPlan, layout: Layout) -> Layout:
    """Where a member's windows go on its grid: `layout`, the plan's, unless it has windows or a grid of its own."""
    if member.window is None and member.spacing_mm is None:
        return layout
    own = case.on_grid(member.spacing_mm)
    return lay_windows(own.resampling.network.shape, own.brain, plan.window_of(member), plan.side_multiples)


def prefetch_of(case: PreparedCase, plan: Plan) -> Prefetch:
    """A case's images and noises; nothing is cut, drawn or sent yet."""
    seed = voxel_seed(case.channels, case.brain) if uses_noise(plan.tta) else 0
    return Prefetch(case, CaseNoise(plan.tta, seed))


def send_ahead(prefetch: Prefetch, ensemble: Ensemble, layout: Layout) -> None:
    """Draws what the usable members will ask for, and sends it to their GPU while that works on another case.

    Where little of its memory is free, or it does not fit there, it is sent when the networks ask for it: what a case
    needs must not depend on the one behind it.
    """
    import torch  # noqa: PLC0415 - heavy

    case, noise, store = prefetch.case, prefetch.noise, torch.device(ensemble.device.name)
    members = [item.plan for item in usable_members(ensemble, case) if not isinstance(item.plan.network, DeepMedicPlan)]
    layouts = [member_layout(case, ensemble.plan, member, layout) for member in members]
    shapes = {(len(member.channels), *own.shape) for member, own in zip(members, layouts, strict=True)}
    for number, shape in product(noise.numbers, shapes):
        noise.draw(number, shape)
    try:
        if free_bytes(store) < LEFT_FREE_BYTES:
            return
        with beside_computing(store):
            for member, own in zip(members, layouts, strict=True):
                for name in member.channels:
                    prefetch.channel(name, member.spacing_mm, own, store)
            for number, shape in product(noise.numbers, shapes):
                noise.on(store, number, shape)
    except RuntimeError as error:  # whatever CUDA raises: the case's own turn will show whether it matters
        prefetch.leave_devices()
        logger.debug("case %s: not sent ahead: %s", printable(case.case_id), first_line(error))


def predict_case(
    case: PreparedCase, ensemble: Ensemble, layout: Layout, prefetch: Prefetch | None = None
) -> tuple[MemberPrediction, ...]:
    """Runs every usable member on a case.

    Args:
        case: its channels.
        ensemble: the members.
        layout: of `plan_layout`.
        prefetch: of `prefetch_of`; None makes it here.

    Returns:
        One prediction a usable member; none when the case lacks what every member reads.

    Raises:
        NotFiniteError: a member's logits are not all finite.
    """
    import torch  # noqa: PLC0415 - heavy

    store = _store_of(ensemble)
    prefetch = prefetch or prefetch_of(case, ensemble.plan)
    predictions = []
    for member in usable_members(ensemble, case):
        if isinstance(member.plan.network, DeepMedicPlan):
            whole = [case.channels[channel] for channel in member.plan.channels]
            own, logits = layout, tiled_logits(member.network, whole, layout, ensemble.device)
        else:
            own, spacing = member_layout(case, ensemble.plan, member.plan, layout), member.plan.spacing_mm
            image = torch.stack([prefetch.channel(name, spacing, own, store) for name in member.plan.channels])
            logits = sliding_logits(member.network, image, own, ensemble, prefetch.noise)
            if spacing is not None:
                logits, own = (
                    logits_between_grids(logits, own, case.on_grid(spacing).resampling, layout, case.resampling),
                    layout,
                )
        _require_finite(logits, member, case, ensemble.device)
        probabilities = own.move(logits.sigmoid_().cpu().numpy(), layout)
        predictions.append(MemberPrediction(member.plan.name, probabilities))
    return tuple(predictions)


def _require_finite(logits: "Tensor", member: Member, case: PreparedCase, device: Device) -> None:
    """Compared with a threshold, what is no number would be no tumour."""
    if not bool(logits.isfinite().all()):
        raise NotFiniteError(
            f"case {printable(case.case_id)}: member {member.plan.name} gives numbers that are not finite, "
            f"in {device.precision} on {device.description}",
            hint="Run this case with --device cpu; if that says the same, look at its images.",
        )


def _store_of(ensemble: Ensemble) -> "torch.device":
    """Where a case's image and sums are."""
    import torch  # noqa: PLC0415 - heavy

    return torch.device("cpu" if ensemble.sums_on_host else ensemble.device.name)


def sliding_logits(
    network: "nn.Module", image: "Tensor", layout: Layout, ensemble: Ensemble, noise: CaseNoise
) -> "Tensor":
    """Mean logits over the windows that cover a voxel (Gaussian weighted) and over all passes.

    Args:
        network: (batch, channels, x, y, z) to logits (batch, regions, x, y, z).
        image: shape (channels, *layout.shape), float32, in [0, 1]; the sums are kept where it is.
        layout: the windows.
        ensemble: gives the device and how much of the image it takes at once.
        noise: gives the passes.

    Returns:
        Shape (regions, *layout.shape), float32, where the image is.
    """
    import torch  # noqa: PLC0415 - heavy

    device, store = torch.device(ensemble.device.name), image.device
    weights = torch.from_numpy(gaussian_weights(layout.window)).to(store)
    total = torch.zeros((len(ensemble.plan.regions), *layout.shape), device=store)
    coverage = torch.zeros(layout.shape, device=store)
    passes, at_once = count_passes(noise.plan), max(1, ensemble.batch_voxels // math.prod(layout.window))
    for origin in layout.origins:
        coverage[layout.window_at(origin)] += weights
    with torch.inference_mode():
        for copy, flips in images_of_rounds(image, noise):
            source = copy.to(ensemble.device.dtype)
            jobs = tuple(product(layout.origins, flips))
            for first in range(0, len(jobs), at_once):
                batch = jobs[first : first + at_once]
                windows = [flip(source[(slice(None), *layout.window_at(at))][None], axes) for at, axes in batch]
                stacked = torch.cat(windows) if len(windows) > 1 else windows[0]
                results = network(_channels_last(stacked.to(device)))
                for logits, (at, axes) in zip(results, batch, strict=True):
                    mirrored_back = flip(logits[None], axes)[0].float().to(store)
                    total[(slice(None), *layout.window_at(at))] += mirrored_back.mul_(weights)
        return total.div_(coverage.mul_(passes))


def _channels_last(batch: "Tensor") -> "Tensor":
    import torch  # noqa: PLC0415 - heavy

    return batch.contiguous(memory_format=torch.channels_last_3d)


def names_of(members: Sequence[Member]) -> str:
    """Names of members, for messages."""
    return ", ".join(member.plan.name for member in members)
