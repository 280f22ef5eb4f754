"""A prepared case on its whole volume, as inference sees it."""

import numpy as np
import torch
from numpy.typing import NDArray

from metseg.labels import LabelMap
from metseg.space.blocks import paste
from metseg.space.components import Box
from training.data.augment import stack_channels
from training.data.prepared import TrainingCase
from training.recipe import Recipe


def lay_out_channels(case: TrainingCase, recipe: Recipe) -> tuple[NDArray[np.float32], LabelMap, Box]:
    """The network's input channels and the labels on the whole volume, and the brain's box in it.

    The windows of inference reach into the background around the brain: so must these.
    """
    x, y, z = (first for first, _ in case.box)
    images = torch.from_numpy(paste(case.images, (x, y, z), case.volume_shape).astype(np.float32))
    channels = stack_channels(images, case.modalities, recipe.data.channels, recipe.data.missing_t2w).numpy()
    brain = tuple(slice(first, end) for first, end in case.brain or case.box)
    labels = paste(recipe.regions.decode(case.components > 0), (x, y, z), case.volume_shape)
    return channels, labels, brain
