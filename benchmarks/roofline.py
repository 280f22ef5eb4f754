"""What a case must cost on a card at the least, from the counted network: nothing is computed, only shapes are.

    python benchmarks/roofline.py [--weights weights/mets] [--plan paper] [--filters 16] [--box 144 176 136] [--bytes 2]

Every window of the plan over a brain's box goes through each member on torch's `meta` device, where tensors have a
shape and no content. The multiply-adds over the card's peak rate, and the bytes that the layers read and write, each
by itself, over its memory bandwidth, are lower bounds of a case; the third adds up the larger of both layer by layer.
Peaks are the makers' published ones (docs/performance.md names the sources); nobody reaches them.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from stage_clock import StageClock, cover_network

from metseg.network import build_network
from metseg.plan.bundle import bundle_folder, open_bundle
from metseg.plan.networks import SegResNetPlan
from metseg.plan.plan import MemberPlan, sides_of
from metseg.predict.passes import count_passes
from metseg.predict.windows import lay_windows

GIGA: Final = 1e9
MARGIN: Final = 40
"""Voxels around the box: the volume is larger than the brain."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU's published peaks.

    Attributes:
        name: the maker's.
        rate: dense float16 tensor operations a second, a multiply-add counts as two.
        bandwidth: bytes a second.
    """

    name: str
    rate: float
    bandwidth: float


CARDS: Final = (Card("H200 SXM", 989e12, 4.8e12), Card("A10G", 70e12, 0.6e12))


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer of one window does."""

    operations: float
    moved_bytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=bundle_folder())
    parser.add_argument("--plan", default="paper")
    parser.add_argument("--filters", type=int, default=None, help="of a SegResNet, instead of the bundle's")
    parser.add_argument("--box", type=int, nargs=3, default=(144, 176, 136), help="of the brain, in voxels")
    parser.add_argument("--bytes", type=int, choices=[2, 4], default=2, help="of a number")
    arguments = parser.parse_args()
    plan = open_bundle(arguments.weights, arguments.plan).plan
    members = [with_filters(member, arguments.filters) for member in plan.members]
    dtype = torch.float16 if arguments.bytes == 2 else torch.float32
    print(f"plan {plan.name}, box {tuple(arguments.box)}, {8 * arguments.bytes} bits a number")
    counted: list[tuple[int, Layer]] = []
    for member in members:
        sides = zip(arguments.box, plan.sides_mm, sides_of(plan.spacing_of(member)), strict=True)
        box = [math.ceil(voxels * shared / own) for voxels, shared, own in sides]
        x, y, z = (side + MARGIN for side in box)
        brain = tuple(slice(MARGIN // 2, MARGIN // 2 + side) for side in box)
        layout = lay_windows((x, y, z), brain, plan.window_of(member), plan.side_multiples)
        calls = len(layout.origins) * count_passes(plan.tta)
        print(f"  {member.name}: window {layout.window}, {calls} calls")
        counted += [(calls, layer) for layer in count_layers(member, layout.window, dtype)]
    operations = math.fsum(calls * layer.operations for calls, layer in counted)
    moved_bytes = math.fsum(calls * layer.moved_bytes for calls, layer in counted)
    print(f"a case: {operations / GIGA:.0f} G operations, {moved_bytes / GIGA:.1f} GB")
    print(f"{'':12}{'operations s':>14}{'bytes s':>10}{'by layer s':>12}")
    for card in CARDS:
        by_layer = math.fsum(
            calls * max(layer.operations / card.rate, layer.moved_bytes / card.bandwidth) for calls, layer in counted
        )
        print(f"{card.name:12}{operations / card.rate:14.3f}{moved_bytes / card.bandwidth:10.3f}{by_layer:12.3f}")


def with_filters(member: MemberPlan, filters: int | None) -> MemberPlan:
    if filters is None or not isinstance(member.network, SegResNetPlan):
        return member
    return member.model_copy(update={"network": member.network.model_copy(update={"init_filters": filters})})


def count_layers(member: MemberPlan, window: tuple[int, int, int], dtype: torch.dtype) -> list[Layer]:
    """Every kind of layer on every level of one window through one member, as torch builds it."""
    clock = StageClock()
    with torch.device("meta"), torch.inference_mode():
        network = build_network(member.network, in_channels=len(member.channels), out_channels=len(member.regions))
        network = network.to(dtype).eval()
        with cover_network(clock, network):
            network(torch.empty(1, len(member.channels), *window, dtype=dtype))
    return [Layer(item.operations, item.moved_bytes) for item in clock.accounts.values()]


if __name__ == "__main__":
    main()
