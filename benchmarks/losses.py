"""Blob loss in one pass beside the published way, a loop over blobs: equality, seconds, and growth with blobs.

    python -m benchmarks.losses [--repeats 3] [--threads 1] [--device cpu]

Forward and backward on one crop of 192x192x32 with three channels of 1, 10, 50 and 200 blobs each. For each blob the
loop masks the other blobs out after the sigmoid and computes Dice over the whole crop, as the paper's authors do. Exits
with an error if values or gradients differ.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from training.losses import BlobLoss

SHAPE = (192, 192, 32)
SMOOTHING = 1e-5
TOLERANCE = 1e-5


def crop_with_blobs(count: int) -> Tensor:
    """Component numbers, shape (1, 3, *SHAPE): so many separate balls of radius 1 to 4 in each channel."""
    generator = np.random.default_rng(count)
    volume = np.zeros((1, 3, *SHAPE), dtype=np.int32)
    places = [(x, y, z) for x in range(6, 186, 12) for y in range(6, 186, 12) for z in (6, 18)]
    offsets = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"))
    distance = np.sqrt((offsets**2).sum(0))
    for channel in range(3):
        for number, index in enumerate(generator.permutation(len(places))[:count], start=1):
            x, y, z = places[index]
            ball = distance <= generator.uniform(1, 4)
            volume[0, channel, x - 4 : x + 5, y - 4 : y + 5, z - 4 : z + 5][ball] = number
    return torch.from_numpy(volume)


def looped_blob_loss(logits: Tensor, components: Tensor) -> Tensor:
    """The plain loop."""
    channels = []
    for channel in range(logits.shape[1]):
        numbers = components[0, channel]
        probability = logits[0, channel].sigmoid()
        losses = []
        for number in numbers.unique().tolist():
            if number == 0:
                continue
            target = (numbers == number).to(probability.dtype)
            masked = probability * ((numbers == 0) | (numbers == number))
            dice = (2 * (masked * target).sum() + SMOOTHING) / (masked.sum() + target.sum() + SMOOTHING)
            losses.append(1 - dice)
        channels.append(torch.stack(losses).mean())
    return torch.stack(channels).mean()


def timed(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, components: Tensor) -> tuple[float, float, Tensor]:
    """Value, seconds of forward and backward, gradient."""
    logits = logits.detach().requires_grad_()
    if logits.is_cuda:
        torch.cuda.synchronize()
    before = time.perf_counter()
    value = loss(logits, components)
    value.backward()
    if logits.is_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - before
    return value.item(), seconds, logits.grad if logits.grad is not None else torch.zeros_like(logits)


def main() -> None:
    """Prints one line for each number of blobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logits = torch.randn((1, 3, *SHAPE), generator=torch.Generator().manual_seed(0)).to(options.device)
    one_pass = BlobLoss(SMOOTHING)
    timed(one_pass, logits, crop_with_blobs(1).to(options.device))  # warms up
    print(f"crop {SHAPE}, 3 channels, {options.device}, {options.threads} thread(s), median of {options.repeats}")
    print("blobs a channel   one pass s   loop s   ratio   value difference   gradient difference (of largest)")
    seconds_of: dict[int, float] = {}
    for blobs in (1, 10, 50, 200):
        components = crop_with_blobs(blobs).to(options.device)
        rounds = [
            (timed(one_pass, logits, components), timed(looped_blob_loss, logits, components))
            for _ in range(options.repeats)
        ]
        ours, loop = (statistics.median(entry[side][1] for entry in rounds) for side in (0, 1))
        (value, _, gradient), (expected, _, expected_gradient) = rounds[0]
        apart = (gradient - expected_gradient).abs().max().item() / expected_gradient.abs().max().item()
        seconds_of[blobs] = ours
        print(f"{blobs:15d} {ours:12.4f} {loop:8.3f} {loop / ours:7.1f} {abs(value - expected):18.1e} {apart:20.1e}")
        if not (abs(value - expected) < TOLERANCE and apart < TOLERANCE):
            raise SystemExit("the two losses differ")
    print(f"one pass, 200 blobs against 1: {seconds_of[200] / seconds_of[1]:.2f} times as long")


if __name__ == "__main__":
    main()
