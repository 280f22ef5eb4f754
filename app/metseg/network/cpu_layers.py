"""The same network, arranged for a CPU: the two layers that torch computes slowly in channels-last layout, rewritten.

Measured on a window of 96x96x32 with 8 filters in bfloat16: torch's Mish takes a third of a forward pass, because its
kernel is scalar in bfloat16, and its GroupNorm up to a quarter, because it has no channels-last kernel. Nothing is
approximated: both layers compute the same function, Mish in float32 inside.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

MISH_SHARE = 1 << 16
"""Elements at a time and thread: with their temporaries they stay in a core's cache. Of under half as many torch makes
one share."""


def mish_chunk(elements: int) -> int:
    """How many of so many elements Mish takes at a time."""
    return min(MISH_SHARE * max(torch.get_num_threads(), 2), elements)


class ChunkedMish(nn.Module):
    """mish(x) = x tanh(log(1 + e^x)) = x / (1 + 1 / m) with m = e^x + e^2x / 2, in float32, chunk by chunk.

    Any shape in channels-last layout; other layouts are copied to it first. Where e^2x overflows, 1 / m is 0.
    """

    @override
    def forward(self, batch: Tensor) -> Tensor:
        dense = batch.movedim(1, -1).contiguous()
        source = dense.view(-1)
        result = source.new_empty(source.shape)
        chunk = mish_chunk(source.numel())
        values, ratios = (torch.empty(chunk, device=source.device) for _ in range(2))
        for start in range(0, source.numel(), chunk):
            part = source[start : start + chunk]
            x, m = values[: len(part)].copy_(part), ratios[: len(part)]
            torch.exp(x, out=m)
            torch.addcmul(m, m, m, value=0.5, out=m)
            result[start : start + chunk] = x.div_(m.reciprocal_().add_(1))
        return result.view(dense.shape).movedim(-1, 1)


HALVING = ((3, 3, 3), (2, 2, 2), (1, 1, 1))
"""Kernel, stride and padding of the convolution that halves a volume."""

SHORT_AXIS = 2
"""Voxels that it turns into one."""

MOMENTS_BLOCK = 1 << 14
"""Voxels whose sums are added up in float32 before they join the whole in float64."""

GUESS_VOXELS = 1 << 12
"""Voxels, from all over the window, whose mean is the guess."""


class SingleGroupNorm(nn.Module):
    """GroupNorm of a batch of one whose groups are single channels: that is batch norm, which has a fast kernel.

    The moments are computed here: torch's channels-last kernels add up a million voxels one by one in float32, which is
    off by a thousandth of the standard deviation and by another amount for every number of threads.

    Args:
        norm: the layer to stand in for; used itself for every other input.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    @override
    def forward(self, batch: Tensor) -> Tensor:
        norm = self.norm
        if batch.shape[0] != 1 or norm.num_groups != norm.num_channels:
            result: Tensor = norm(batch)
            return result
        mean, variance = channel_moments(batch)
        weight, bias = (None if part is None else part.float() for part in (norm.weight, norm.bias))
        return functional.batch_norm(batch, mean, variance, weight, bias, training=False, eps=norm.eps)


def channel_moments(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (over n) of each channel of a batch of one, to float32's own precision.

    One pass: both are taken of the distances to a first guess of the mean, lest the squares swallow the variance.

    Args:
        batch: shape (1, channels, x, y, z), channels-last layout for speed.

    Returns:
        Shape (channels,) each, float32; the same for any number of threads.
    """
    values = batch.movedim(1, -1).reshape(-1, batch.shape[1])
    guess = values[:: -(-len(values) // GUESS_VOXELS)].float().mean(0)
    total = values.new_zeros(batch.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    block = torch.empty(min(MOMENTS_BLOCK, len(values)), batch.shape[1], device=batch.device)
    for start in range(0, len(values), MOMENTS_BLOCK):
        part = values[start : start + MOMENTS_BLOCK]
        distances = torch.sub(part, guess, out=block[: len(part)])
        total += distances.sum(0)
        squares += distances.square_().sum(0)
    offset = total / len(values)
    return (guess + offset).float(), (squares / len(values) - offset.square()).clamp(min=0).float()


class ShortConv(nn.Conv3d):
    """A convolution with kernel 3 and stride 2 whose last axis may be as short as one or two voxels.

    There oneDNN's bfloat16 kernel for channels-last layout reads memory that is not the input's and gives any numbers.
    A zero behind the input, as the convolution's own padding has, makes two voxels of which the first is the answer.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        if input.dtype != torch.bfloat16 or input.shape[-1] > SHORT_AXIS:
            return super().forward(input)
        widened = functional.pad(input, (0, SHORT_AXIS + 1 - input.shape[-1]))
        return super().forward(widened.contiguous(memory_format=torch.channels_last_3d))[..., :1]


def replace_layers(
    network: nn.Module, mish: Callable[[], nn.Module], norm: Callable[[nn.GroupNorm], nn.Module]
) -> None:
    """Puts other layers wherever a Mish or a GroupNorm stands, in place; one in several places is replaced in each.

    Args:
        network: any; changed.
        mish: makes what stands in for a Mish.
        norm: makes what stands in for the GroupNorm that it is given.
    """
    for path, module in list(network.named_modules(remove_duplicate=False)):
        parent, _, name = path.rpartition(".")
        if type(module).__name__ == "Mish":  # MONAI has a class of its own beside torch's
            setattr(network.get_submodule(parent), name, mish())
        elif isinstance(module, nn.GroupNorm):
            setattr(network.get_submodule(parent), name, norm(module))


def arrange_for_cpu(network: nn.Module) -> nn.Module:
    """Puts the layers above in place of torch's, in place; the parameters stay the same objects.

    Returns:
        The same network.
    """
    replace_layers(network, mish=ChunkedMish, norm=SingleGroupNorm)
    for module in network.modules():
        if type(module) is nn.Conv3d and (module.kernel_size, module.stride, module.padding) == HALVING:
            module.__class__ = ShortConv  # parameters keep their names
    return network
