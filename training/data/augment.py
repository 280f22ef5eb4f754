"""Random changes of a crop, all drawn from one numpy generator (Erdur et al. 2023, Table 1, and robustness fields).

Images are (modalities, x, y, z) float32 tensors in [0, 1] in which 0 is background; components (regions, x, y, z).
"""

import math
from collections.abc import Container, Sequence
from functools import partial

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

from metseg.plan.plan import SUBTRACTION, ChannelName
from metseg.prepare.channels import fill_channel, find_constant
from metseg.prepare.prepare import subtract
from metseg.space.blocks import cut_padded, cut_repeated
from metseg.space.grid import FloatVolume
from metseg.systems import Modality
from training.data.crops import Start
from training.data.prepared import TrainingCase
from training.recipe_sections import AugmentationRecipe, CropRecipe, DataRecipe

BIAS_NODES = 4
"""Nodes along each axis of the smooth field: one every few centimetres."""


def augmented_crop(
    case: TrainingCase, start: Start, crops: CropRecipe, recipe: AugmentationRecipe, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Cuts a crop with its spatial augmentation.

    Returns:
        The images, shape (n, *crops.read_size), and the components, shape (n, *crops.size), int32.
    """
    size = crops.size
    if recipe.affine_probability > 0 and generator.random() < recipe.affine_probability:
        images, components = _affine_crop(case, start, size, recipe, generator)
    else:
        margin = crops.context or 0
        x, y, z = (first - margin for first in start)
        # Outside a stripped brain every channel is 0; a whole head goes on beyond its volume.
        cut = cut_padded if case.brain is None else cut_repeated
        images = torch.from_numpy(cut(case.images, (x, y, z), crops.read_size).astype(np.float32))
        components = torch.from_numpy(cut_padded(case.components, start, size).astype(np.int32))
    flipped = [axis + 1 for axis in recipe.flip_axes if generator.random() < recipe.flip_probability]
    if flipped:
        images, components = images.flip(flipped), components.flip(flipped)
    return images, components


def _affine_crop(
    case: TrainingCase, start: Start, size: tuple[int, int, int], recipe: AugmentationRecipe, generator: Generator
) -> tuple[Tensor, Tensor]:
    """A crop through a rotation and scaling about its centre: images linear, components nearest."""
    matrix = rotation_matrix([generator.uniform(-limit, limit) for limit in recipe.rotation_degrees])
    matrix *= 1 + generator.uniform(-recipe.scaling, recipe.scaling)
    # The source block that holds the turned crop.
    reach = np.ceil(np.abs(matrix) @ (np.array(size) / 2)).astype(int) + 1
    centre = np.array(start) + np.array(size) // 2
    block_start = centre - reach
    x, y, z = (int(first) for first in block_start)
    block_size = (int(2 * reach[0]), int(2 * reach[1]), int(2 * reach[2]))
    images = torch.from_numpy(cut_padded(case.images, (x, y, z), block_size).astype(np.float32))
    components = torch.from_numpy(cut_padded(case.components, (x, y, z), block_size).astype(np.float32))
    grid = _sampling_grid(matrix, size, block_size)
    sample = partial(functional.grid_sample, grid=grid, padding_mode="zeros", align_corners=False)
    turned = sample(images[None], mode="bilinear")[0]
    numbers = sample(components[None], mode="nearest")[0]
    return turned, numbers.to(torch.int32)


def _sampling_grid(matrix: np.ndarray, size: Sequence[int], block_size: Sequence[int]) -> Tensor:
    """`grid_sample`'s grid: for each output voxel its place in the block, in [-1, 1], last axis first."""
    offsets = [torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in size]
    shaped = [offsets[0].view(-1, 1, 1), offsets[1].view(1, -1, 1), offsets[2].view(1, 1, -1)]
    axes = [
        sum(
            (float(matrix[axis, other]) * 2 / block_size[axis] * shaped[other] for other in range(3)),
            start=torch.zeros(()),
        )
        for axis in (2, 1, 0)
    ]
    return torch.stack(axes, dim=-1)[None]


def rotation_matrix(degrees: Sequence[float]) -> np.ndarray:
    """Rotation about x, then y, then z."""
    result = np.eye(3)
    for axis, angle in enumerate(degrees):
        one, other = [index for index in range(3) if index != axis]
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = math.cos(math.radians(angle))
        turn[one, other] = -math.sin(math.radians(angle))
        turn[other, one] = math.sin(math.radians(angle))
        result = turn @ result
    return result


def change_intensities(images: Tensor, recipe: AugmentationRecipe, generator: Generator) -> Tensor:
    """Makes each modality look as if from another scanner or protocol; background stays 0, the rest in [0, 1]."""
    head = (images > 0).any(0)
    changed = []
    for source in images:
        image = source
        if _chance(recipe.coarse_probability, generator):
            image = _coarse(image, generator.uniform(1, recipe.coarse_factor_max))
        if _chance(recipe.blur_probability, generator):
            image = _blur(image, generator.uniform(0, recipe.blur_std_max))
        if _chance(recipe.gamma_probability, generator):
            image = image.clamp(min=0) ** math.exp(generator.uniform(-recipe.gamma_log_max, recipe.gamma_log_max))
        if _chance(recipe.contrast_probability, generator):
            factor = math.exp(generator.uniform(-recipe.contrast_log_max, recipe.contrast_log_max))
            mean = image.sum() / head.sum().clamp(min=1)
            image = (image - mean) * factor + mean
        if _chance(recipe.brightness_probability, generator):
            image = image + generator.uniform(-recipe.brightness_max, recipe.brightness_max)
        if _chance(recipe.bias_probability, generator):
            image = image * _bias(image.shape, recipe.bias_log_max, generator)
        changed.append(image if image is source else (image * head).clamp(0, 1))
    return torch.stack(changed)


def drop_images(
    images: Tensor, modalities: Sequence[Modality], missing: Container[Modality]
) -> tuple[Tensor, tuple[Modality, ...]]:
    """A crop without some of its images.

    Args:
        images: shape (modalities, x, y, z).
        modalities: their names.
        missing: names of those that go.

    Returns:
        The others, and their names.
    """
    kept = [place for place, name in enumerate(modalities) if name not in missing]
    return images[kept] if len(kept) < len(modalities) else images, tuple(modalities[place] for place in kept)


def add_noise(
    channels: Tensor, recipe: AugmentationRecipe, generator: Generator, constant: Sequence[int] = ()
) -> Tensor:
    """Gaussian noise of one random strength on every voxel of every channel (Table 1).

    Args:
        channels: shape (channels, x, y, z).
        recipe: how often and how strong.
        generator: drawn from.
        constant: places of the channels that hold no image, and get none.
    """
    if not _chance(recipe.noise_probability, generator):
        return channels
    std = generator.uniform(0, recipe.noise_std_max)
    source = torch.Generator().manual_seed(int(generator.integers(2**62)))
    noisy = channels + std * torch.randn(channels.shape, generator=source)
    for place in constant:
        noisy[place] = channels[place]
    return noisy


def stack_channels(
    images: Tensor, modalities: Sequence[Modality], channels: Sequence[ChannelName], missing_t2w: str
) -> Tensor:
    """The network's input: the recipe's channels, the subtraction computed from the augmented t1c and t1n.

    Args:
        images: shape (modalities, x, y, z).
        modalities: their names; of those that are missing `metseg.prepare.channels.fill_channel` says what stands in.
        channels: what the network reads.
        missing_t2w: `t2f` where that stands in for t2w.
    """
    image_of: dict[ChannelName, FloatVolume] = dict(zip(modalities, images.numpy(), strict=True))
    if SUBTRACTION in channels and {"t1c", "t1n"} <= set(modalities):
        image_of[SUBTRACTION] = subtract(image_of["t1c"], image_of["t1n"])
    if missing_t2w == "t2f" and "t2w" not in image_of:
        image_of["t2w"] = image_of["t2f"]
    return torch.from_numpy(np.stack([fill_channel(channel, image_of) for channel in channels]))


def find_constant_channels(modalities: Sequence[Modality], data: DataRecipe) -> tuple[int, ...]:
    """Places of the recipe's channels that hold no image in a crop of these modalities."""
    images: set[ChannelName] = {*modalities}
    if {"t1c", "t1n"} <= images:
        images.add(SUBTRACTION)
    if data.missing_t2w == "t2f":
        images.add("t2w")
    return find_constant(data.channels, images) if data.drop_channels else ()


def _chance(probability: float, generator: Generator) -> bool:
    return probability > 0 and bool(generator.random() < probability)


def _coarse(image: Tensor, factor: float) -> Tensor:
    depth = max(int(image.shape[2] / factor), 2)
    flat = image.reshape(1, -1, image.shape[2])
    down = functional.adaptive_avg_pool1d(flat, depth)
    return functional.interpolate(down, size=image.shape[2], mode="linear").reshape(image.shape)


def _blur(image: Tensor, std: float) -> Tensor:
    if std < 0.1:  # noqa: PLR2004 - narrower than a voxel can show
        return image
    radius = max(math.ceil(2.5 * std), 1)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / std) ** 2)
    weights = weights / weights.sum()
    for axis in range(3):
        shifted = functional.pad(image, [0, 0] * (2 - axis) + [radius, radius] + [0, 0] * axis)
        side = image.shape[axis]
        image = sum(
            (float(weight) * shifted.narrow(axis, index, side) for index, weight in enumerate(weights)),
            start=torch.zeros(()),
        )
    return image


def _bias(shape: Sequence[int], log_max: float, generator: Generator) -> Tensor:
    nodes = torch.from_numpy(generator.uniform(-log_max, log_max, (1, 1, *[BIAS_NODES] * 3)).astype(np.float32))
    return functional.interpolate(nodes, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0].exp()
