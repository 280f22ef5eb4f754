"""The probability of brain by deepbet's two networks (Fisch et al. 2024, section 2.3).

The first network sees the whole field of view in 128^3 samples and locates the brain. The second sees the brain's box
with a margin, in 256^3 samples. Samples are taken along the axes of the patient, so the grid may be oblique.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.predict.brain_networks import BrainNetworks
from metseg.space.components import largest_component
from metseg.space.grid import FloatVolume, Grid
from metseg.space.rigid import resample_rigid

if TYPE_CHECKING:
    from torch import nn

BRAIN_MASK_HINT: Final = "Give a brain mask of your own: --brain-mask FILE."

LOCATE_SIDE: Final = 128
SEGMENT_SIDE: Final = 256
"""Samples along each axis, of the first and of the second network."""

PERCENTILES: Final = (0.5, 99.5)
"""Of the field of view, as the first network sees it: what becomes 0 and 1."""

MEAN, STD = 0.449, 0.226
"""Of an image as the networks read it."""

MARGIN: Final = 0.1
"""Around the brain's box on either side, as a share of its side."""

LEAST_SHARE: Final = 0.02
"""A plane belongs to the brain's box where so much of it is brain."""

HALF: Final = 0.5


class BrainNotFoundError(InputError):
    """There is no brain on the image, or none that the networks know."""


def predict_brain(image: FloatVolume, grid: Grid, networks: BrainNetworks) -> FloatVolume:
    """The probability of brain.

    Args:
        image: shape `grid.shape`: a T1 of the whole head, with or without contrast agent; finite.
        grid: any orientation, oblique or not, any spacing.
        networks: see `metseg.predict.brain_networks`.

    Returns:
        Shape `grid.shape`, 0..1; linear between the second network's samples, 0 outside its box.

    Raises:
        BrainNotFoundError: the image is constant, or the first network finds no brain.
    """
    air = float(image.min())
    view = _patient_box(grid)
    seen = resample_rigid(image, grid, view, np.eye(4), outside=air)
    low, high = (float(value) for value in np.percentile(seen, PERCENTILES))
    if not high > low:
        raise BrainNotFoundError("t1c: nearly all voxels have the same value, expected a head", hint=BRAIN_MASK_HINT)
    box = _locate(_run(networks.locate, _scale(seen, low, high)), view)
    close = resample_rigid(image, grid, box, np.eye(4), outside=air)
    probability = _run(networks.segment, _scale(close, low, high))
    return resample_rigid(probability, box, grid, np.eye(4), outside=0.0)


def _patient_box(grid: Grid) -> Grid:
    """The field of view as a box along R, A and S, in LOCATE_SIDE samples a side."""
    corners = np.array([[x, y, z, 1] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    sizes = np.array([*grid.shape, 1.0])
    middle = (np.array(grid.shape) - 1) / 2
    places = (corners * sizes)[:, :3] + middle
    world = places @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return _sampled_box(world.min(axis=0), world.max(axis=0), LOCATE_SIDE)


def _sampled_box(low_mm: NDArray[np.float64], high_mm: NDArray[np.float64], side: int) -> Grid:
    """A box between two corners, RAS millimetres, as `side` samples a side."""
    steps = (high_mm - low_mm) / side
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = low_mm + steps / 2
    return Grid((side, side, side), affine)


def _scale(image: FloatVolume, low: float, high: float) -> FloatVolume:
    """An image as the networks read it."""
    clipped = np.clip((image - low) / (high - low), 0, 1)
    deviation = float(clipped.std(dtype=np.float64)) or 1.0
    scaled: FloatVolume = (STD * (clipped - clipped.mean(dtype=np.float64)) / deviation + MEAN).astype(np.float32)
    return scaled


def _run(network: "nn.Module", image: FloatVolume) -> FloatVolume:
    import torch  # noqa: PLC0415 - heavy

    with torch.inference_mode():
        found: FloatVolume = network(torch.from_numpy(image)[None, None])[0].numpy()
    return found


def _locate(probability: FloatVolume, view: Grid) -> Grid:
    """The box of the largest component with its margin, within the field of view."""
    brain = largest_component(probability > HALF)
    shares = (brain.mean(axis=(1, 2)), brain.mean(axis=(0, 2)), brain.mean(axis=(0, 1)))
    ends = [np.flatnonzero(share > LEAST_SHARE)[[0, -1]] for share in shares if (share > LEAST_SHARE).any()]
    if len(ends) < len(shares):
        raise BrainNotFoundError("t1c: no brain found, expected a head with a brain", hint=BRAIN_MASK_HINT)
    first, last = np.array(ends, dtype=np.float64).T
    margin = MARGIN * (last + 1 - first)
    low, high = np.maximum(first - margin, 0), np.minimum(last + 1 + margin, LOCATE_SIDE)
    spacing, origin = np.diag(view.affine)[:3], view.affine[:3, 3]
    return _sampled_box(origin + (low - 0.5) * spacing, origin + (high - 0.5) * spacing, SEGMENT_SIDE)
