"""The 3D U-Net of Hu et al. 2019 (section 2.3): slabs of a few thick slices, pooled in plane only.

MONAI has no network that is exactly this one: its `DynUNet` halves by strided convolutions where this one has
max-pooling, its `BasicUNet` pools all three axes.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from typing_extensions import override

from metseg.plan.networks import HALVING, UNet3dPlan


class UNet3d(nn.Module):
    """(batch, in_channels, x, y, z) to logits (batch, out_channels, x, y, z); sides divide by `plan.side_multiples`.

    Args:
        plan: width of each level.
        in_channels: input channels.
        out_channels: output channels.
    """

    def __init__(self, plan: UNet3dPlan, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths = plan.filters
        finer = list(pairwise(widths))
        self.down = nn.ModuleList(_level(one, other) for one, other in pairwise((in_channels, *widths)))
        self.pool = nn.MaxPool3d(HALVING)
        self.enlarge = nn.ModuleList(nn.ConvTranspose3d(wide, slim, HALVING, HALVING) for slim, wide in finer)
        self.up = nn.ModuleList(_level(2 * slim, slim) for slim, _ in finer)
        self.classifier = nn.Conv3d(widths[0], out_channels, 1)

    @override
    def forward(self, images: Tensor) -> Tensor:
        features = images
        skipped: list[Tensor] = []
        for number, level in enumerate(self.down):
            features = level(self.pool(features) if number else features)
            skipped.append(features)
        for number in reversed(range(len(self.up))):
            features = self.up[number](torch.cat([skipped[number], self.enlarge[number](features)], dim=1))
        logits: Tensor = self.classifier(features)
        return logits


def _level(in_channels: int, width: int) -> nn.Sequential:
    """Two convolutions as wide as the level; batch norm has the bias."""
    layers: list[nn.Module] = []
    for channels in (in_channels, width):
        layers += [nn.Conv3d(channels, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
