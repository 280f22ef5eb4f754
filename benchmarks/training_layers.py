"""Forward and backward of one crop on a CPU: torch's layers beside those of training.

    python -m benchmarks.training_layers [--recipe mets_coarse] [--threads 1] [--repeats 5]

Processor seconds; with one thread they hold beside other work. Both networks have the same weights, channels last, and
the recipe's loss, and take turns. The gradients of both are compared with those of torch's layers in float64: the
largest difference of any parameter, in parts of the largest element of its gradient.
"""

import argparse
import copy
import statistics
import time

import torch
from torch import Tensor, nn

from training.losses import build_objective, count_terms
from training.losses.objective import Objective
from training.network import TrainingNetwork
from training.recipe import load_recipe
from training.train.cpu_layers import arrange_for_cpu


def crop_with_lesions(channels: int, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Images of noise, and two lesions in each region."""
    images = torch.rand(1, channels, *size).contiguous(memory_format=torch.channels_last_3d)
    components = torch.zeros(1, 3, *size, dtype=torch.int32)
    components[:, :, 8:16, 8:16, 8:16], components[:, :, 20:24, 20:24, 20:24] = 1, 2
    return images, components


def backward(
    network: nn.Module, objective: Objective, crop: tuple[Tensor, Tensor], *, half: bool
) -> tuple[float, dict[str, Tensor]]:
    """Processor seconds, and the parameters' gradients."""
    images, components = crop
    images = images.to(next(network.parameters()).dtype)
    weights = torch.ones(1)
    network.zero_grad()
    before = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        outputs = network(images, None)
    objective(outputs, images, components, weights, count_terms(components, weights)).total.backward()
    seconds = time.process_time() - before
    return seconds, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def largest_difference(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """Over all parameters, in parts of the largest element of each."""
    return max(float((found[name] - exact[name]).abs().max() / exact[name].abs().max()) for name in exact)


def main() -> None:
    """Prints a line for each crop size of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mets_coarse")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    recipe = load_recipe(options.recipe)
    if recipe.loss.vae_weight:
        raise SystemExit(f"recipe {recipe.name}: expected one without the VAE branch, such as mets_coarse")
    objective = build_objective(recipe.loss, recipe.regions.names)
    network = TrainingNetwork(recipe).train()
    arranged = arrange_for_cpu(copy.deepcopy(network))
    plain = network.to(memory_format=torch.channels_last_3d)
    exact_network = copy.deepcopy(network).double()
    print("crop          torch's layers, s   these, s   times   gradients off by: torch's   these   bfloat16: both")
    for size in (recipe.crops.size, *recipe.crops.other_sizes):
        crop = crop_with_lesions(len(recipe.data.channels), size)
        _, exact = backward(exact_network, objective, crop, half=False)
        off = [
            largest_difference(backward(one, objective, crop, half=half)[1], exact)
            for half in (False, True)
            for one in (plain, arranged)
        ]
        turns = [
            [backward(one, objective, crop, half=True)[0] for one in (plain, arranged)] for _ in range(options.repeats)
        ]
        before, after = (statistics.median(column) for column in zip(*turns, strict=True))
        seconds = f"{before:17.3f} {after:10.3f} {before / after:7.2f}"
        print(f"{'x'.join(map(str, size)):13s} {seconds} {off[0]:26.1e} {off[1]:7.1e} {off[2]:10.1e} {off[3]:7.1e}")


if __name__ == "__main__":
    main()
