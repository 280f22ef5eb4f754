"""DeepMedic with three pathways (Kamnitsas et al. 2017; Hu et al. 2019, section 2.3), aligned to voxel centres.

The network reads a block with its surroundings and answers for the block's middle: MARGIN voxels on every side are
context. Inside it cuts and averages what each pathway reads:

    pathway        reads, for an answer of n voxels         at n = 21     one output voxel sees
    full           n + 16 voxels                            37            17
    a third        (n / 3 + 16) cubes of 3 voxels           23            51
    a fifth        ((n + 4) / 5 + 16) cubes of 5 voxels     21            85

Cubes are laid so that the answer's middle voxel is the middle of a cube in both coarse pathways (docs/decisions). Two
blocks whose answers start a multiple of PHASE voxels apart therefore have the same cubes where they overlap.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from metseg.plan.networks import PATHWAY_LAYERS, DeepMedicPlan

FACTORS = (1, 3, 5)
"""Voxels along a side of what each pathway calls a voxel."""

PHASE = 15
"""Answers that start so many voxels apart share the cubes of all pathways: the least common multiple of FACTORS."""

FIFTH_OVERHANG = 2
"""Cubes of a fifth reach so far beyond the answer on each side, so that one has the answer's middle as its own."""

MARGIN = PATHWAY_LAYERS * FACTORS[-1] + FIFTH_OVERHANG
"""Context on every side of the answer: 42."""

PADDED_RIM = 1
"""Outermost answers depend on where the block ends: the first joint layer pads by mirroring."""

SMALLEST_ANSWER = 21
"""The training segments' (Hu et al. 2019); others are larger by multiples of PHASE."""

RESIDUAL_LAYERS = (4, 6, 8)
"""Layers of a pathway (from 1) whose output is added to the input of the layer before them."""

PRELU_SLOPE = 0.01

CLASSES = 2
"""Background and metastasis."""


class DeepMedic(nn.Module):
    """(batch, in_channels, n + 84 along each axis) to log-odds of metastasis (batch, 1, n along each axis).

    n is 21, or larger by a multiple of 15 along any axis. The classifier has the published two classes; the difference
    of their logits is given, whose sigmoid is their softmax and whose binary cross-entropy is their cross-entropy.

    Args:
        plan: widths and dropout.
        in_channels: input channels.
    """

    def __init__(self, plan: DeepMedicPlan, *, in_channels: int) -> None:
        super().__init__()
        self.pathways = nn.ModuleList(_Pathway(in_channels, plan.pathway_features) for _ in FACTORS)
        joined, (first, second) = len(FACTORS) * plan.pathway_features[-1], plan.joint_features
        mirroring = nn.Conv3d(joined, first, 3, padding=PADDED_RIM, padding_mode="reflect", bias=False)
        pointwise = nn.Conv3d(first, second, 1, bias=False)
        self.joint = nn.ModuleList(
            _activated(convolution.in_channels, share, convolution)
            for share, convolution in zip(plan.dropout, (mirroring, pointwise), strict=False)
        )
        self.classifier = _activated(second, plan.dropout[2], nn.Conv3d(second, CLASSES, 1))

    @override
    def forward(self, blocks: Tensor) -> Tensor:
        seen = [pathway(cubes) for pathway, cubes in zip(self.pathways, pathway_inputs(blocks), strict=True)]
        enlarged = [_repeat(features, factor) for features, factor in zip(seen, FACTORS, strict=True)]
        joined = torch.cat([*enlarged[:2], _crop(enlarged[2], FIFTH_OVERHANG)], dim=1)
        first, second = self.joint
        features = _widen_and_add(second(first(joined)), joined)
        logits: Tensor = self.classifier(features)
        return logits[:, 1:] - logits[:, :1]


def pathway_inputs(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the three pathways read: the block's middle, and means over cubes of 3 and of 5 voxels.

    Args:
        blocks: shape (batch, channels, n + 2 MARGIN along each axis).

    Raises:
        ValueError: n is not 21 or larger by a multiple of 15.
    """
    answers = [side - 2 * MARGIN for side in blocks.shape[2:]]
    if any(side < SMALLEST_ANSWER or (side - SMALLEST_ANSWER) % PHASE for side in answers):
        raise ValueError(f"DeepMedic answers for 21 voxels or 15 k more along an axis, not {answers}")
    full = _crop(blocks, MARGIN - PATHWAY_LAYERS)
    # In float32: torch has no such pooling in bfloat16 on a CPU, and means should not be rounded twice.
    wide = blocks.float()
    thirds = functional.avg_pool3d(_crop(wide, MARGIN - PATHWAY_LAYERS * FACTORS[1]), FACTORS[1])
    fifths = functional.avg_pool3d(wide, FACTORS[2])
    return full, thirds.to(blocks.dtype), fifths.to(blocks.dtype)


class _Pathway(nn.Module):
    """Eight valid convolutions; the input itself is neither normalised nor bent."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        first = nn.Conv3d(in_channels, widths[0], 3, bias=False)
        others = [_activated(one, 0.0, nn.Conv3d(one, other, 3, bias=False)) for one, other in pairwise(widths)]
        self.layers = nn.ModuleList([first, *others])

    @override
    def forward(self, voxels: Tensor) -> Tensor:
        before = after = voxels
        for number, layer in enumerate(self.layers, start=1):
            result: Tensor = layer(after)
            if number in RESIDUAL_LAYERS:
                result = _widen_and_add(result, _crop(before, 2))
            before, after = after, result
        return after


def _activated(width: int, dropout: float, convolution: nn.Conv3d) -> nn.Sequential:
    """Batch norm, then PReLU with a slope for each feature, then the convolution."""
    layers: list[nn.Module] = [nn.BatchNorm3d(width), nn.PReLU(width, init=PRELU_SLOPE)]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []), convolution)


def _widen_and_add(wide: Tensor, slim: Tensor) -> Tensor:
    """Adds features to the first of the wider ones."""
    missing = wide.shape[1] - slim.shape[1]
    return wide + functional.pad(slim, [0, 0] * 3 + [0, missing])


def _crop(volume: Tensor, rim: int) -> Tensor:
    return volume[..., rim:-rim, rim:-rim, rim:-rim] if rim else volume


def _repeat(volume: Tensor, factor: int) -> Tensor:
    """Each voxel as a cube."""
    for axis in (2, 3, 4):
        volume = volume.repeat_interleave(factor, dim=axis) if factor > 1 else volume
    return volume
