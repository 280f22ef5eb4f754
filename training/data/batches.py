"""Which cases each step visits, and the loader that brings them.

Everything random about a sample is a function of (recipe's seed, epoch, place in the epoch). A run that continues from
a checkpoint draws what the uninterrupted one would have drawn. Two ranks draw what one would have drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from metseg.network.segresnet import VAE_LATENT
from training.data.augment import (
    add_noise,
    augmented_crop,
    change_intensities,
    drop_images,
    find_constant_channels,
    stack_channels,
)
from training.data.cache import open_entry
from training.data.crops import NOWHERE, draw_start
from training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Slot:
    """One visit of one case.

    Attributes:
        epoch: from 0.
        place: in the epoch's order, from 0; past the last case for a duplicate that fills up a rank.
        case_id: whose turn it is.
        weight: 1, or 0 for such a duplicate.
        step: of the run, from 0.
    """

    epoch: int
    place: int
    case_id: str
    weight: float
    step: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of a step.

    Attributes:
        images: shape (crops, channels, x, y, z), float32.
        components: shape (crops, regions, x, y, z), int32: 0 or the component's number; its volume instead, the voxels
            of the whole tumour, where the loss reads volumes.
        weights: shape (crops,), float32.
        noise: standard normal, for the VAE branch: shape (crops, VAE_LATENT), or (crops, 0) without it.
        case_ids: of each crop.
    """

    images: Tensor
    components: Tensor
    weights: Tensor
    noise: Tensor
    case_ids: tuple[str, ...]


class Schedule:
    """The order of cases, step by step.

    Args:
        case_ids: the training cases; one that is there twice is visited twice an epoch.
        batch_cases: cases of one step over all ranks; not more than there are.
        seed: the recipe's.
    """

    def __init__(self, case_ids: Sequence[str], batch_cases: int, seed: int) -> None:
        self.case_ids = tuple(case_ids)
        self.batch_cases = min(batch_cases, len(self.case_ids))
        self.seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every one of `case_ids` has its turn."""
        return -(-len(self.case_ids) // self.batch_cases)

    def slots(self, step: int, rank: int = 0, world: int = 1) -> tuple[Slot, ...]:
        """What one rank visits in a step, counted from 0; every rank gets as many slots as the others, one at least."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.case_ids))
        first = within * self.batch_cases
        places = list(range(first, min(first + self.batch_cases, len(order))))
        real = len(places)
        places += [places[0]] * (-real % world)
        return tuple(
            Slot(epoch, place, self.case_ids[int(order[place])], 1.0 if index < real else 0.0, step)
            for index, place in enumerate(places)
            if index % world == rank
        )


class CropDataset(Dataset[Batch]):
    """The crops of one slot.

    Args:
        entries: folder of each training case's cache entry.
        recipe: of the run.
        false_positives: by case ID, where crops shall go (`training.data.false_positives`).
    """

    def __init__(
        self,
        entries: Mapping[str, Path],
        recipe: Recipe,
        false_positives: Mapping[str, NDArray[np.int32]] | None = None,
    ) -> None:
        self.entries = entries
        self.recipe = recipe
        self.false_positives = false_positives or {}

    def __getitem__(self, slot: Slot) -> Batch:
        recipe = self.recipe
        case = open_entry(self.entries[slot.case_id])
        images, components, noises = [], [], []
        crops = recipe.crops.draw_size(slot.step, recipe.seed)
        latent = VAE_LATENT if recipe.loss.vae_weight > 0 else 0
        for number in range(crops.per_case):
            generator = np.random.default_rng([recipe.seed, slot.epoch, slot.place, number])
            start = draw_start(
                case,
                crops,
                generator,
                channel=recipe.lesion_channel,
                false_positives=self.false_positives.get(slot.case_id, NOWHERE),
            )
            cut, numbers = augmented_crop(case, start, crops, recipe.augmentation, generator)
            missing = recipe.data.draw_missing(recipe.seed, slot.epoch, slot.place, number)
            cut, present = drop_images(cut, case.modalities, missing)
            cut = change_intensities(cut, recipe.augmentation, generator)
            channels = stack_channels(cut, present, recipe.data.channels, recipe.data.missing_t2w)
            constant = find_constant_channels(present, recipe.data)
            images.append(add_noise(channels, recipe.augmentation, generator, constant))
            if recipe.loss.reads_volumes:
                numbers = torch.from_numpy(case.volumes)[numbers.long()].to(torch.int32)
            components.append(numbers)
            noises.append(torch.from_numpy(generator.standard_normal(latent, dtype=np.float32)))
        weights = torch.full((len(images),), slot.weight)
        return Batch(
            images=torch.stack(images),
            components=torch.stack(components),
            weights=weights,
            noise=torch.stack(noises),
            case_ids=(slot.case_id,) * len(images),
        )


class _StepSampler(Sampler[list[Slot]]):
    def __init__(self, schedule: Schedule, first_step: int, total_steps: int, rank: int, world: int) -> None:
        self.schedule, self.first_step, self.total_steps = schedule, first_step, total_steps
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[list[Slot]]:
        for step in range(self.first_step, self.total_steps):
            yield list(self.schedule.slots(step, self.rank, self.world))

    def __len__(self) -> int:
        return max(self.total_steps - self.first_step, 0)


def collate(batches: Sequence[Batch]) -> Batch:
    """Joins the slots of a step."""
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        components=torch.cat([batch.components for batch in batches]),
        weights=torch.cat([batch.weights for batch in batches]),
        noise=torch.cat([batch.noise for batch in batches]),
        case_ids=tuple(case_id for batch in batches for case_id in batch.case_ids),
    )


def batch_loader(
    dataset: CropDataset,
    schedule: Schedule,
    *,
    first_step: int,
    total_steps: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> "DataLoader[Batch]":
    """Loads steps `first_step` to `total_steps` - 1 for one rank, ahead of use where there are worker processes."""
    sampler = _StepSampler(schedule, first_step, total_steps, rank, world)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate)
