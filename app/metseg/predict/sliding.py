"""The sliding window over one member's image: the mean logits of all windows and passes."""

import math
from itertools import product
from typing import TYPE_CHECKING

from metseg.predict.engine import Engine, Network
from metseg.predict.passes import CaseNoise, augmented_images, count_passes, flip
from metseg.predict.windows import Layout, gaussian_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def sliding_logits(
    network: Network, image: "Tensor", layout: Layout, engine: Engine, noise: CaseNoise, *, regions: int
) -> "Tensor":
    """Mean logits over the windows that cover a voxel (Gaussian weighted) and over all passes.

    Args:
        network: (batch, channels, x, y, z) to logits (batch, regions, x, y, z).
        image: shape (channels, *layout.shape), float32, in [0, 1]; the sums are kept where it is.
        layout: the windows.
        engine: gives the device and how much of the image it takes at once.
        noise: gives the passes.
        regions: of the network.

    Returns:
        Shape (regions, *layout.shape), float32, where the image is.
    """
    import torch  # noqa: PLC0415 - heavy

    device, store = torch.device(engine.device.name), image.device
    weights = torch.from_numpy(gaussian_weights(layout.window)).to(store)
    total = torch.zeros((regions, *layout.shape), device=store)
    coverage = torch.zeros(layout.shape, device=store)
    passes, at_once = count_passes(noise.plan), max(1, engine.execution.batch_voxels // math.prod(layout.window))
    for origin in layout.origins:
        coverage[layout.window_at(origin)] += weights
    with torch.inference_mode():
        for augmented, flips in augmented_images(image, noise):
            source = augmented.to(engine.device.input_dtype)
            jobs = tuple(product(layout.origins, flips))
            for first in range(0, len(jobs), at_once):
                batch = jobs[first : first + at_once]
                windows = [flip(source[(slice(None), *layout.window_at(at))][None], axes) for at, axes in batch]
                stacked = torch.cat(windows) if len(windows) > 1 else windows[0]
                results = network(_on_device(stacked, device))
                for logits, (at, axes) in zip(results, batch, strict=True):
                    mirrored_back = flip(logits[None], axes)[0].float().to(store)
                    total[(slice(None), *layout.window_at(at))] += mirrored_back.mul_(weights)
        return total.div_(coverage.mul_(passes))


def _on_device(batch: "Tensor", device: "torch.device") -> "Tensor":
    """In the layout that suits the networks there."""
    import torch  # noqa: PLC0415 - heavy

    if device.type == "cpu":
        return batch
    return batch.to(device).contiguous(memory_format=torch.channels_last_3d)
