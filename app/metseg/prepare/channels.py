"""What preparing gives: the channels of one case on one grid of the networks, and what fills those that it lacks."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metseg.plan.plan import PRESENCE, ChannelName
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


def fill_channel(name: ChannelName, images: Mapping[ChannelName, FloatVolume]) -> FloatVolume:
    """A network's input channel, in inference and training alike.

    Args:
        name: the channel.
        images: the channels that the case's images give, `sub` among them; at least one.

    Returns:
        Shape (x, y, z), not to be changed: the image; 0 everywhere where it is missing; 1 or 0 everywhere for a channel
        that says whether an image is there.
    """
    if name in images:
        return images[name]
    value = np.float32(name in PRESENCE and PRESENCE[name] in images)
    return np.broadcast_to(value, next(iter(images.values())).shape)


def find_constant(names: Sequence[ChannelName], images: Container[ChannelName]) -> tuple[int, ...]:
    """Places of the channels that hold no image, in ascending order: they never get noise.

    Args:
        names: the network's input channels, in order.
        images: the channels that the case's images give.
    """
    return tuple(place for place, name in enumerate(names) if name not in images)
