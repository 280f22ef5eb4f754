"""Where a crop lies in a prepared case."""

from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.prepared import TrainingCase
from training.recipe_sections import CropRecipe

Start = tuple[int, int, int]
"""First voxel of a crop in the brain's box; negative where the crop overhangs it."""


NOWHERE: Final = np.zeros((0, 4), dtype=np.int32)
"""No component to centre a crop on."""


def draw_start(
    case: TrainingCase,
    recipe: CropRecipe,
    generator: Generator,
    *,
    channel: int,
    false_positives: NDArray[np.int32] = NOWHERE,
) -> Start:
    """Draws a crop's place.

    With chance `lesion_probability`, in a case that has a lesion, the crop holds a voxel of a lesion at a uniformly
    drawn place inside the crop, and with chance `false_positive_probability` likewise one of a false positive; the crop
    then stays inside the domain, as every other crop. Where the domain is smaller than the crop along an axis, the crop
    covers all of it, at a uniformly drawn place.

    Args:
        case: where.
        recipe: size, domain, chances.
        generator: drawn from.
        channel: of the region whose components are lesions (`Recipe.lesion_channel`).
        false_positives: shape (n, 4): component, and x, y, z inside the case's box.
    """
    lesions = case.lesion_voxels[case.lesion_voxels[:, 0] == channel]
    target: NDArray[np.int32] | None = None
    chance = generator.random()
    if chance < recipe.lesion_probability and len(lesions):
        target = _draw_voxel(lesions[:, 1:], generator)
    elif chance < recipe.lesion_probability + (recipe.false_positive_probability or 0) and len(false_positives):
        target = _draw_voxel(false_positives, generator)
    start = []
    brain = case.brain or case.box
    for axis, size in enumerate(recipe.size):
        first = case.box[axis][0]
        inside = brain[axis] if recipe.domain == "brain" else (0, case.volume_shape[axis])
        low, high = inside[0] - first, inside[1] - first
        lowest, highest = sorted((low, high - size))
        if target is None:
            start.append(int(generator.integers(lowest, highest + 1)))
        else:
            wish = int(target[axis]) - int(generator.integers(0, size))
            start.append(min(max(wish, lowest), highest))
    return start[0], start[1], start[2]


def _draw_voxel(components: NDArray[np.int32], generator: Generator) -> NDArray[np.int32]:
    """A voxel (x, y, z) of one component, each component with the same chance."""
    number = generator.choice(np.unique(components[:, 0]))
    voxel: NDArray[np.int32] = generator.choice(components[components[:, 0] == number])[1:]
    return voxel
