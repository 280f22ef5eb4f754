"""The LinkNet of deepbet (Fisch et al. 2024, section 2.2): brain or not, on a whole head in one pass.

Chaurasia and Culurciello's LinkNet (2017) in three dimensions: a residual encoder of four levels, whose features are
added to the decoder's. The parameters have deepbet's own names, so that its weights load strictly.
"""

from typing import Final

import torch
from torch import Tensor, nn
from typing_extensions import override

WIDTHS: Final = (16, 32, 64, 128)
"""Channels of the encoder's levels."""

STEM_KERNEL: Final = 7

HEAD_WIDTH: Final = 8
"""Channels behind the decoder, at half the input's resolution."""

NARROWING: Final = 4
"""A level of the decoder enlarges a quarter of its input's channels."""

SIDE_MULTIPLE: Final = 32
"""What the sides of an input divide by: it is halved five times."""


class LinkNet3d(nn.Module):
    """(batch, 1, x, y, z) to the probability of brain, (batch, x, y, z); sides divide by SIDE_MULTIPLE."""

    def __init__(self) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.init = nn.Sequential(
            *_normalised(nn.Conv3d(1, first, STEM_KERNEL, 2, STEM_KERNEL // 2, bias=False)), nn.MaxPool3d(3, 2, 1)
        )
        self.down0 = _Down(first, first, stride=1)
        self.down1 = _Down(first, WIDTHS[1], stride=2)
        self.down2 = _Down(WIDTHS[1], WIDTHS[2], stride=2)
        self.down3 = _Down(WIDTHS[2], WIDTHS[3], stride=2)
        self.up0 = _Up(WIDTHS[3], WIDTHS[2], stride=2)
        self.up1 = _Up(WIDTHS[2], WIDTHS[1], stride=2)
        self.up2 = _Up(WIDTHS[1], first, stride=2)
        self.up3 = _Up(first, first, stride=1)
        self.tp_conv1 = nn.Sequential(*_normalised(nn.ConvTranspose3d(first, HEAD_WIDTH, 3, 2, 1, 1)))
        self.conv = nn.Sequential(*_normalised(nn.Conv3d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1)))
        self.tp_conv2 = nn.ConvTranspose3d(HEAD_WIDTH, 2, 2, 2)

    @override
    def forward(self, image: Tensor) -> Tensor:
        stem = self.init(image)
        first = self.down0(stem)
        second = self.down1(first)
        third = self.down2(second)
        features = self.up0(self.down3(third)) + third
        features = self.up1(features) + second
        features = self.up2(features) + first
        features = self.up3(features) + stem
        logits = self.tp_conv2(self.conv(self.tp_conv1(features)))
        return torch.softmax(logits, dim=1)[:, 1]


class _Block(nn.Module):
    """Two convolutions around which the input is added; it is projected where the shape changes."""

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            *_normalised(nn.Conv3d(in_channels, width, 3, stride, 1, bias=False)),
            nn.Conv3d(width, width, 3, padding=1, bias=False),
            nn.InstanceNorm3d(width),
        )
        self.downsample = (
            nn.Identity()
            if stride == 1
            else nn.Sequential(nn.Conv3d(in_channels, width, 1, stride, bias=False), nn.InstanceNorm3d(width))
        )
        self.act = nn.ReLU(inplace=True)

    @override
    def forward(self, features: Tensor) -> Tensor:
        activated: Tensor = self.act(self.double_conv(features) + self.downsample(features))
        return activated


class _Down(nn.Module):
    """A level of the encoder: two blocks, the first of which may halve."""

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.block1 = _Block(in_channels, width, stride=stride)
        self.block2 = _Block(width, width, stride=1)

    @override
    def forward(self, features: Tensor) -> Tensor:
        encoded: Tensor = self.block2(self.block1(features))
        return encoded


class _Up(nn.Module):
    """A level of the decoder: narrow, enlarge, widen."""

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        inner = in_channels // NARROWING
        self.conv1 = nn.Sequential(*_normalised(nn.Conv3d(in_channels, inner, 1, bias=False)))
        enlarge = nn.ConvTranspose3d(inner, inner, 3, stride, 1, stride - 1, bias=False)
        self.tp_conv = nn.Sequential(*_normalised(enlarge))
        self.conv2 = nn.Sequential(*_normalised(nn.Conv3d(inner, width, 1, bias=False)))

    @override
    def forward(self, features: Tensor) -> Tensor:
        decoded: Tensor = self.conv2(self.tp_conv(self.conv1(features)))
        return decoded


def _normalised(convolution: nn.Conv3d | nn.ConvTranspose3d) -> tuple[nn.Module, nn.Module, nn.Module]:
    """A convolution with instance norm, which has no parameters here, and ReLU."""
    return convolution, nn.InstanceNorm3d(convolution.out_channels), nn.ReLU(inplace=True)
