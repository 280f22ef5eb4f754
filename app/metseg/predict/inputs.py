"""What the networks read of a case, ahead of them: cut out, drawn and sent once for all members and passes."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metseg.plan.plan import ChannelName, Spacing
from metseg.predict.device import send
from metseg.predict.passes import CaseNoise
from metseg.predict.windows import Layout
from metseg.prepare.prepare import PreparedCase

if TYPE_CHECKING:
    from torch import Tensor, device


@dataclass(frozen=True, slots=True)
class Prefetch:
    """One case's images and noises, on the devices that asked for them.

    Attributes:
        case: its channels.
        noise: of its passes.
        sent: regions of channels, by channel, grid, windows and device.
    """

    case: PreparedCase
    noise: CaseNoise
    sent: "dict[tuple[ChannelName, Spacing | None, Layout, device], Tensor]" = field(default_factory=dict)

    def channel(self, name: ChannelName, spacing: Spacing | None, layout: Layout, device: "device") -> "Tensor":
        """A channel's region on a device, shape `layout.shape`, float32; not to be changed.

        Args:
            name: the channel.
            spacing: of the grid that `layout` is on; None for the plan's.
            layout: gives the region.
            device: where.
        """
        key = (name, spacing, layout, device)
        if key not in self.sent:
            self.sent[key] = send(layout.cut(self.case.on_grid(spacing).channels[name]), device)
        return self.sent[key]

    def leave_devices(self) -> None:
        """Gives their memory back; what is asked for again is sent again."""
        self.sent.clear()
        self.noise.leave_devices()

    def forget(self) -> None:
        """Gives all memory back; what is asked for again is made again."""
        self.sent.clear()
        self.noise.forget()
