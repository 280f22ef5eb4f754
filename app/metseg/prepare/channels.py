"""What preparing gives: the channels of one case on one grid of the networks."""

from collections.abc import Mapping
from dataclasses import dataclass

from metseg.plan.plan import ChannelName
from metseg.prepare.registration import Registration
from metseg.space.components import Box
from metseg.space.grid import FloatVolume


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of a case.

    Attributes:
        channels: shape (x, y, z) of the network's grid each.
        brain: bounding box of the brain, as far as the images tell.
        registration: where the scan on a grid of its own lies; None without one.
        brain_share: of the grid's voxels, where the brain is; None where images are not stripped and don't tell.
    """

    channels: Mapping[ChannelName, FloatVolume]
    brain: Box
    registration: Registration | None = None
    brain_share: float | None = None
