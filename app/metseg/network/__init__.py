"""The networks, as small builders with literal hyper-parameters; training imports them from here."""

from typing import TYPE_CHECKING

from metseg.network.segresnet import build_segresnet
from metseg.plan import SegResNetPlan

if TYPE_CHECKING:
    from torch import nn


def build_network(plan: SegResNetPlan, *, in_channels: int, out_channels: int) -> "nn.Module":
    """Builds the network that a plan's member describes, with untrained parameters."""
    return build_segresnet(plan, in_channels=in_channels, out_channels=out_channels)
