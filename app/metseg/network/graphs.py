"""The networks as OpenVINO's graphs, which a CPU runs: made from the frozen parameters, without torch's modules.

A graph is made for one shape of input and a batch of one. It computes what `build_network`'s module computes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as ops

from metseg.network.deepmedic import (
    FACTORS,
    FIFTH_OVERHANG,
    MARGIN,
    PADDED_RIM,
    RESIDUAL_LAYERS,
)
from metseg.network.graph_layers import (
    Node,
    Parameters,
    batch_norm,
    by_channel,
    constant,
    convolution,
    crop,
    cube_means,
    enlarge,
    group_norm,
    repeat,
)
from metseg.plan.networks import HALVING, PATHWAY_LAYERS, DeepMedicPlan, NetworkPlan, SegResNetPlan, UNet3dPlan

FLAT: Final = [0, 0, 0]
"""No padding."""


def build_graph(
    plan: NetworkPlan,
    state: Mapping[str, NDArray[np.float32]],
    *,
    in_channels: int,
    sides: Sequence[int],
    in_float32: bool,
) -> ov.Model:
    """Builds the graph that a plan's member describes.

    Args:
        plan: the architecture.
        state: the parameters by the names that torch's module has for them, float32.
        in_channels: input channels.
        sides: of the volume that the network reads.
        in_float32: whether it will run so, or in half precision.

    Returns:
        (1, in_channels, *sides) to logits (1, regions, x, y, z), as `build_network` describes them.
    """
    volume = ops.parameter([1, in_channels, *sides], np.float32)
    parameters = Parameters(state)
    match plan:
        case SegResNetPlan():
            logits = _segresnet(volume, parameters, _NormAndMish(plan.norm_groups, in_float32), plan)
        case UNet3dPlan():
            logits = _unet3d(volume, parameters, plan)
        case DeepMedicPlan():
            logits = _deepmedic(volume, parameters, plan)
    return ov.Model([logits], [volume], plan.architecture)


# ---- SegResNet, metseg.network.segresnet


@dataclass(frozen=True, slots=True)
class _NormAndMish:
    groups: int
    in_float32: bool

    def __call__(self, features: Node, parameters: Parameters) -> Node:
        return ops.mish(group_norm(features, parameters, groups=self.groups, in_float32=self.in_float32))


def _segresnet(volume: Node, parameters: Parameters, activate: _NormAndMish, plan: SegResNetPlan) -> Node:
    features = convolution(volume, parameters.part("convInit.conv"))
    skipped = []
    for level, blocks in enumerate(plan.blocks_down):
        part = parameters.part(f"down_layers.{level}")
        if level:
            features = convolution(features, part.part("0.conv"), stride=2)
        for block in range(1, blocks + 1):
            features = _residual_block(features, part.part(str(block)), activate)
        skipped.append(features)
    for level, blocks in enumerate(plan.blocks_up):
        narrowed = convolution(features, parameters.part(f"up_samples.{level}.0.conv"))
        features = ops.add(enlarge(narrowed, 2), skipped[-2 - level])
        for block in range(blocks):
            features = _residual_block(features, parameters.part(f"up_layers.{level}.{block}"), activate)
    last = parameters.part("conv_final")
    return convolution(activate(features, last.part("0")), last.part("2.conv"))


def _residual_block(features: Node, parameters: Parameters, activate: _NormAndMish) -> Node:
    result = features
    for number in (1, 2):
        result = activate(result, parameters.part(f"norm{number}"))
        result = convolution(result, parameters.part(f"conv{number}.conv"))
    return ops.add(result, features)


# ---- the U-Net, metseg.network.unet3d


def _unet3d(volume: Node, parameters: Parameters, plan: UNet3dPlan) -> Node:
    features, skipped = volume, []
    for level in range(len(plan.filters)):
        if level:
            features = _pool(features)
        features = _two_convolutions(features, parameters.part(f"down.{level}"))
        skipped.append(features)
    for level in reversed(range(len(plan.filters) - 1)):
        enlarged = _up_convolution(features, parameters.part(f"enlarge.{level}"))
        joined = ops.concat([skipped[level], enlarged], 1)
        features = _two_convolutions(joined, parameters.part(f"up.{level}"))
    return convolution(features, parameters.part("classifier"))


def _two_convolutions(features: Node, parameters: Parameters) -> Node:
    for convolved, normalised in (("0", "1"), ("3", "4")):
        features = convolution(features, parameters.part(convolved))
        features = ops.relu(batch_norm(features, parameters.part(normalised)))
    return features


def _pool(features: Node) -> Node:
    halving = list(HALVING)
    return ops.max_pool(features, halving, [1] * 3, FLAT, FLAT, halving).output(0)


def _up_convolution(features: Node, parameters: Parameters) -> Node:
    weight = constant(parameters["weight"])
    enlarged = ops.convolution_backprop_data(features, weight, list(HALVING), None, FLAT, FLAT, [1] * 3)
    return ops.add(enlarged, by_channel(parameters["bias"]))


# ---- DeepMedic, metseg.network.deepmedic


def _deepmedic(block: Node, parameters: Parameters, plan: DeepMedicPlan) -> Node:
    reach = [MARGIN - PATHWAY_LAYERS * factor for factor in FACTORS[:-1]]
    read = [crop(block, reach[0]), cube_means(crop(block, reach[1]), FACTORS[1]), cube_means(block, FACTORS[2])]
    seen = [_pathway(cubes, parameters.part(f"pathways.{number}.layers")) for number, cubes in enumerate(read)]
    full, thirds, fifths = (repeat(features, factor) for features, factor in zip(seen, FACTORS, strict=True))
    joined = ops.concat([full, thirds, crop(fifths, FIFTH_OVERHANG)], 1)
    first = _activated(joined, parameters.part("joint.0"), dropout=plan.dropout[0], convolve=_mirrored)
    second = _activated(first, parameters.part("joint.1"), dropout=plan.dropout[1])
    logits = _activated(_widen_and_add(second, joined), parameters.part("classifier"), dropout=plan.dropout[2])
    background, metastasis = ops.split(logits, constant(1, np.int64), 2).outputs()
    return ops.subtract(metastasis, background)


_Convolve = Callable[[Node, Parameters], Node]


def _valid(features: Node, parameters: Parameters) -> Node:
    return convolution(features, parameters, padded=False)


def _mirrored(features: Node, parameters: Parameters) -> Node:
    rims = constant([0, 0, *[PADDED_RIM] * 3], np.int64)
    return convolution(ops.pad(features, rims, rims, "reflect"), parameters, padded=False)


def _pathway(cubes: Node, parameters: Parameters) -> Node:
    before = after = cubes
    for number in range(1, PATHWAY_LAYERS + 1):
        part = parameters.part(str(number - 1))
        result = _valid(after, part) if number == 1 else _activated(after, part)
        if number in RESIDUAL_LAYERS:
            result = _widen_and_add(result, crop(before, 2))
        before, after = after, result
    return after


def _activated(features: Node, parameters: Parameters, *, dropout: float = 0.0, convolve: _Convolve = _valid) -> Node:
    """Batch norm, PReLU and a convolution; a dropout before the last, which only training has, takes a number."""
    normalised = batch_norm(features, parameters.part("0"))
    bent = ops.prelu(normalised, constant(parameters.part("1")["weight"]))
    return convolve(bent, parameters.part("3" if dropout else "2"))


def _widen_and_add(wide: Node, slim: Node) -> Node:
    """Adds features to the first of the wider ones."""
    missing = wide.shape[1] - slim.shape[1]
    if missing:
        slim = ops.pad(slim, constant([0] * 5, np.int64), constant([0, missing, 0, 0, 0], np.int64), "constant")
    return ops.add(wide, slim)
