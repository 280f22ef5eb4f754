"""What the networks read of a case: cut out, drawn and sent once for all members and passes.

On a GPU the next case's inputs are drawn and sent while the networks work on this one.
"""

import logging
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Final

from metseg.findings import printable
from metseg.plan.plan import ChannelName, MemberPlan, Plan, Spacing
from metseg.predict.device import first_line
from metseg.predict.engine import Engine
from metseg.predict.gpu import beside_computing, free_bytes, send
from metseg.predict.passes import CaseNoise, uses_noise
from metseg.predict.windows import Layout, lay_windows
from metseg.prepare.prepare import PreparedCase, voxel_seed

if TYPE_CHECKING:
    from torch import Tensor, device

logger = logging.getLogger(__name__)

LEFT_FREE_BYTES: Final = 4 * 2**30
"""A GPU with less free memory than this is not sent the next case ahead of its turn (0.3 GB with 13 passes)."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """One case's channels and noise, on the devices that asked for them.

    Attributes:
        prepared: its channels.
        layout: the plan's windows on it; their box is that of every member's prediction.
        noise: of its passes.
        sent: boxes of channels, by channel, grid, windows and device.
    """

    prepared: PreparedCase
    layout: Layout
    noise: CaseNoise
    sent: "dict[tuple[ChannelName, Spacing | None, Layout, device], Tensor]" = field(default_factory=dict)

    def channel(self, name: ChannelName, spacing: Spacing | None, layout: Layout, device: "device") -> "Tensor":
        """A channel's box on a device, shape `layout.shape`, float32; not to be changed.

        Args:
            name: the channel.
            spacing: of the grid that `layout` is on; None for the plan's.
            layout: gives the box.
            device: where.
        """
        key = (name, spacing, layout, device)
        if key not in self.sent:
            self.sent[key] = send(layout.cut(self.prepared.on_grid(spacing).channel(name)), device)
        return self.sent[key]

    def layout_of_member(self, member: MemberPlan, plan: Plan) -> Layout:
        """Where a member's windows go on its grid: the plan's layout, unless it has windows or a grid of its own."""
        if member.window is None and member.spacing_mm is None:
            return self.layout
        own = self.prepared.on_grid(member.spacing_mm)
        return lay_windows(own.resampling.network.shape, own.brain, plan.choose_window(member), plan.side_multiples)

    def leave_devices(self) -> None:
        """Gives their memory back; what is asked for again is sent again."""
        self.sent.clear()
        self.noise.leave_devices()

    def forget(self) -> None:
        """Gives all memory back; what is asked for again is made again."""
        self.sent.clear()
        self.noise.forget()


def lay_inputs(prepared: PreparedCase, engine: Engine) -> Inputs:
    """Lays the windows over a case; on a GPU, which would wait for them, its inputs are sent ahead as well."""
    inputs = make_inputs(prepared, engine.plan)
    if engine.device.is_cuda:  # a CPU has as much to do either way
        send_ahead(inputs, engine)
    return inputs


def make_inputs(prepared: PreparedCase, plan: Plan) -> Inputs:
    """A case's windows; nothing is cut, drawn or sent yet."""
    shape, brain = prepared.resampling.network.shape, prepared.brain
    seed = voxel_seed(prepared.channels, brain) if uses_noise(plan.tta) else 0
    return Inputs(prepared, lay_windows(shape, brain, plan.window, plan.side_multiples), CaseNoise(plan.tta, seed))


def send_ahead(inputs: Inputs, engine: Engine) -> None:
    """Draws what the usable members will ask for, and sends it to their GPU while that works on another case.

    Where little of its memory is free, or it does not fit there, it is sent when the networks ask for it: what a case
    needs must not depend on the one behind it.
    """
    import torch  # noqa: PLC0415 - heavy

    prepared, noise, store = inputs.prepared, inputs.noise, torch.device(engine.device.name)
    usable = engine.usable_members(prepared)
    members = [item.plan for item in usable if not item.plan.network.runs_in_tiles]
    layouts = [inputs.layout_of_member(member, engine.plan) for member in members]
    shapes = {(len(member.channels), *own.shape) for member, own in zip(members, layouts, strict=True)}
    for number, shape in product(noise.numbers, shapes):
        noise.draw(number, shape)
    try:
        if free_bytes(store) < LEFT_FREE_BYTES:
            return
        with beside_computing(store):
            for member, own in zip(members, layouts, strict=True):
                for name in member.channels:
                    inputs.channel(name, member.spacing_mm, own, store)
            for number, shape in product(noise.numbers, shapes):
                noise.on(store, number, shape)
    except RuntimeError as error:  # whatever CUDA raises: the case's own turn will show whether it matters
        inputs.leave_devices()
        logger.debug("case %s: not sent ahead: %s", printable(prepared.case_id), first_line(error))
