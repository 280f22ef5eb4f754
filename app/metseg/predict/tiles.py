"""DeepMedic over a box: tiles whose coarse voxels coincide, so that it doesn't matter how they are laid.

A tile answers for its middle and reads MARGIN voxels around it. Its outermost answers, which padding has touched, are
dropped, and tiles start a multiple of PHASE voxels apart: then every voxel's answer is the same in every tiling of that
phase, to rounding.
"""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from metseg.predict.device import Device
from metseg.predict.engine import Network
from metseg.predict.windows import Layout
from metseg.space.blocks import cut_repeated

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_ANSWER: Final = 66
"""Voxels along a side: 21 + 3 x 15. A tile then takes about 0.5 GB in float32 at the paper's width; larger ones gain
little, as the context they read is already less than what they answer for."""


def tiled_logits(
    network: Network,
    channels: Sequence[NDArray[np.float32]],
    layout: Layout,
    device: Device,
    *,
    largest_answer: int = LARGEST_ANSWER,
) -> "Tensor":
    """Log-odds over a box.

    Args:
        network: DeepMedic on the device (`metseg.network.deepmedic`).
        channels: its input channels on the whole grid, shape (x, y, z) each; beyond their border it is repeated.
        layout: gives the box; its windows are not used.
        device: where, and in which precision.
        largest_answer: 21 + 15 k; changes the result by rounding only.

    Returns:
        Shape (1, *layout.shape), float32, on the device.
    """
    import torch  # noqa: PLC0415 - heavy

    from metseg.network.deepmedic import MARGIN, PADDED_RIM  # noqa: PLC0415 - needs torch

    place = torch.device(device.name)
    total = torch.zeros((1, *layout.shape), device=place)
    axes = [lay_tiles(length, largest_answer) for length in layout.shape]
    reach = MARGIN + PADDED_RIM
    sides = (axes[0][1] + 2 * reach, axes[1][1] + 2 * reach, axes[2][1] + 2 * reach)
    with torch.inference_mode():
        for origin in product(*(origins for origins, _ in axes)):
            x, y, z = (start + offset - reach for start, offset in zip(layout.start, origin, strict=True))
            block = torch.from_numpy(np.stack([cut_repeated(channel, (x, y, z), sides) for channel in channels]))
            block = block[None].to(device=place, dtype=device.input_dtype)
            answer = network(block)[0, :, PADDED_RIM:-PADDED_RIM, PADDED_RIM:-PADDED_RIM, PADDED_RIM:-PADDED_RIM]
            inside = tuple(
                slice(first, min(first + kept, length))
                for first, (_, kept), length in zip(origin, axes, layout.shape, strict=True)
            )
            part = tuple(slice(side.stop - side.start) for side in inside)
            total[(slice(None), *inside)] = answer[(slice(None), *part)].float()
    return total


def lay_tiles(length: int, largest_answer: int = LARGEST_ANSWER) -> tuple[tuple[int, ...], int]:
    """Tiles along one axis.

    Args:
        length: voxels to cover.
        largest_answer: of one tile.

    Returns:
        First voxel of each tile's kept answers, multiples of PHASE, and how many each keeps.
    """
    from metseg.network.deepmedic import PADDED_RIM, PHASE, SMALLEST_ANSWER  # noqa: PLC0415 - needs torch

    steps = max(0, -(-(length + 2 * PADDED_RIM - SMALLEST_ANSWER) // PHASE))
    answer = min(largest_answer, SMALLEST_ANSWER + PHASE * steps)
    kept = answer - 2 * PADDED_RIM
    step = kept // PHASE * PHASE
    count = max(1, -(-(length - kept) // step) + 1)
    return tuple(number * step for number in range(count)), kept
