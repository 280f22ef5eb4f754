"""Test-time augmentation: the passes that a network sees a window in.

Erdur et al. 2023, section 2.6; the passes themselves are those of the authors' AURORA tool.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metseg.plan.plan import TtaPlan
from metseg.predict.gpu import send

if TYPE_CHECKING:
    from torch import Tensor, device

Flip = tuple[int, ...]
"""Spatial axes that are mirrored: 0 = x (sagittal plane), 1 = y (coronal plane)."""

NOISE_DRAWS = 4
"""`aurora` draws noise four times, each seen plain, mirrored along x, and mirrored along y: with the plain pass, 13."""


@dataclass(frozen=True, slots=True)
class PassGroup:
    """Passes that read the same image, with the same noise or without.

    Attributes:
        noise: number of the noise that is added, None for the image as it is.
        flips: one pass each.
    """

    noise: int | None
    flips: tuple[Flip, ...]


def group_passes(plan: TtaPlan) -> tuple[PassGroup, ...]:
    """The passes of a variant, grouped by the noise that they see."""
    match plan.variant:
        case "none":
            return (PassGroup(None, ((),)),)
        case "flips":
            return (PassGroup(None, ((), (0,), (1,), (0, 1))),)
        case "aurora":
            noisy = tuple(PassGroup(draw, ((), (0,), (1,))) for draw in range(NOISE_DRAWS))
            return (PassGroup(None, ((),)), *noisy)


def count_passes(plan: TtaPlan) -> int:
    """Number of passes of a variant: 1, 4 or 13."""
    return sum(len(group.flips) for group in group_passes(plan))


def uses_noise(plan: TtaPlan) -> bool:
    """Whether some pass of a variant sees noise; otherwise its seed is not used."""
    return any(group.noise is not None for group in group_passes(plan))


@dataclass(frozen=True, slots=True)
class CaseNoise:
    """The noise of one case, drawn, and sent to the device, once for all members that read as many channels.

    They come from generators on the CPU, seeded by the plan, the voxels and the draw's number, so a result depends
    neither on the device nor on what ran before.

    Attributes:
        plan: the variant and the size of its noise.
        seed: `preprocess.voxel_seed` of the case; any number where the variant uses no noise.
        drawn: what was drawn so far, by number and shape.
        sent: what a device has of it.
        spared: places of the channels that get none: an image that the case lacks is 0, and so it stays.
    """

    plan: TtaPlan
    seed: int
    drawn: dict[tuple[int, tuple[int, ...]], NDArray[np.float32]] = field(default_factory=dict)
    sent: "dict[tuple[int, tuple[int, ...], device], Tensor]" = field(default_factory=dict)
    spared: tuple[int, ...] = ()

    def sparing(self, places: tuple[int, ...]) -> "CaseNoise":
        """The same noise, of which these channels get none."""
        return replace(self, spared=places)

    def draw(self, number: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The noise of one draw, float32; not to be changed."""
        if (number, shape) not in self.drawn:
            generator = np.random.Generator(np.random.SFC64([self.plan.seed, self.seed, number]))
            std = generator.uniform(0, self.plan.noise_std_max)
            noise = generator.standard_normal(shape, dtype=np.float32)
            noise *= np.float32(std)
            self.drawn[number, shape] = noise
        return self.drawn[number, shape]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the draws that the variant's passes use."""
        return tuple(group.noise for group in group_passes(self.plan) if group.noise is not None)

    def on(self, device: "device", number: int, shape: tuple[int, ...]) -> "Tensor":
        """The noise of one draw on a device; not to be changed."""
        key = (number, shape, device)
        if key not in self.sent:
            self.sent[key] = send(self.draw(number, shape), device)
        return self.sent[key]

    def leave_devices(self) -> None:
        """Gives their memory back; what was drawn is sent again when it is asked for."""
        self.sent.clear()

    def forget(self) -> None:
        """Gives the memory back; what is asked for again is drawn again."""
        self.drawn.clear()
        self.leave_devices()


def augmented_images(image: "Tensor", noise: CaseNoise) -> "Iterator[tuple[Tensor, tuple[Flip, ...]]]":
    """Yields the image as each group of passes sees it, on its device, with the group's flips.

    Args:
        image: shape (channels, x, y, z), float32, in [0, 1].
        noise: the variant and its noise.
    """
    for group in group_passes(noise.plan):
        if group.noise is None:
            yield image, group.flips
        else:
            noisy = image + noise.on(image.device, group.noise, tuple(image.shape))
            for place in noise.spared:
                noisy[place] = image[place]
            yield noisy, group.flips


def flip(batch: "Tensor", axes: Flip) -> "Tensor":
    """Mirrors spatial axes of a batch (batch, channels, x, y, z); applying it twice gives the batch back."""
    return batch.flip([axis + 2 for axis in axes]) if axes else batch
