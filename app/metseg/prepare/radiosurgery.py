"""From a planning CT and a contrast T1 to what the radiosurgery system's networks read (Hu et al. 2019, section 3.1).

Training and inference prepare their volumes here, so that the two can't drift apart.
"""

from typing import Final

import numpy as np

from metseg.errors import InputError
from metseg.files.case import Case
from metseg.plan.plan import ChannelName, IntensityPlan
from metseg.plan.radiosurgery import RadiosurgeryIntensityPlan, RegistrationPlan
from metseg.prepare.channels import Channels
from metseg.prepare.intensities import scale_intensities
from metseg.prepare.registration import register
from metseg.prepare.registration_check import HEAD_HU, skull_cavity
from metseg.space.components import Box, bounding_box
from metseg.space.grid import FloatVolume
from metseg.space.resampling import Resampling, to_network
from metseg.space.rigid import resample_rigid
from metseg.systems import AIR_HU

BOX_STEP: Final = 4
"""Every how many voxels in plane the brain is looked for: 2.4 mm."""

BOX_MARGIN: Final = 6
"""Voxels around what was found: the search leaves the brain's rim out."""

SMALLEST_BRAIN_SHARE: Final = 0.2
"""Of the head: a cavity smaller than this is not the brain, and the head's box is taken."""


def prepare_radiosurgery(
    case: Case,
    intensity: RadiosurgeryIntensityPlan,
    resampling: Resampling,
    registration: RegistrationPlan | None,
) -> Channels:
    """Registers, resamples and scales a case.

    Args:
        case: with the MR among its images and, where `registration` is given, the CT among its scans.
        intensity: windows and equalisation.
        resampling: the way to the network's grid.
        registration: how the CT is found; None leaves it out.

    Returns:
        The channels on the network's grid, each with zero mean and unit variance; the brain's box; where the CT lies.

    Raises:
        InputError: an image has no contrast, or the CT can't be registered.
    """
    mr = to_network(case.images["t1c"], resampling)
    channels: dict[ChannelName, FloatVolume] = {"t1c": standardise(equalise(mr, intensity))}
    if registration is None or not case.scans:
        return Channels(channels, head_box(mr))
    ((name, ct),) = case.scans.items()
    found = register(ct, case.images["t1c"], case.grid, registration)
    hounsfield = resample_rigid(ct.voxels, ct.grid, resampling.network, found.mr_to_ct, outside=AIR_HU)
    channels[name] = standardise(window_hounsfield(hounsfield, intensity))
    return Channels(channels, brain_box_of_ct(hounsfield), found)


def window_hounsfield(hounsfield: FloatVolume, plan: RadiosurgeryIntensityPlan) -> FloatVolume:
    """The CT in its window: [0, 1] from its lower to its upper end, clipped."""
    lower = plan.ct_level_hu - plan.ct_width_hu / 2
    scaled = (hounsfield - np.float32(lower)) * np.float32(1 / plan.ct_width_hu)
    return np.clip(scaled, 0, 1, out=scaled)


def equalise(volume: FloatVolume, plan: RadiosurgeryIntensityPlan) -> FloatVolume:
    """Contrast-limited adaptive histogram equalisation, slice by slice along z.

    Args:
        volume: shape (x, y, z), any unit.
        plan: limit, tiles, and the percentiles that become 0 and 1 first.

    Returns:
        Same shape, float32 in [0, 1]; a slice without contrast is 0.

    Raises:
        InputError: the volume has no contrast.
    """
    from skimage.exposure import equalize_adapthist  # noqa: PLC0415 - heavy

    limits = IntensityPlan(lower_percentile=plan.lower_percentile, upper_percentile=plan.upper_percentile)
    scaled = scale_intensities(volume, limits)
    tile = [max(1, side // tiles) for side, tiles in zip(volume.shape, plan.equalisation_tiles, strict=False)]
    equalised = np.zeros_like(scaled)
    for z in range(volume.shape[2]):
        if scaled[:, :, z].max() > scaled[:, :, z].min():
            equalised[:, :, z] = equalize_adapthist(scaled[:, :, z], tile, plan.equalisation_clip)
    return equalised


def standardise(volume: FloatVolume) -> FloatVolume:
    """Zero mean and unit variance over all voxels.

    Raises:
        InputError: every voxel is the same.
    """
    mean, deviation = float(volume.mean(dtype=np.float64)), float(volume.std(dtype=np.float64))
    if not deviation > 0:
        raise InputError("no contrast: every voxel is the same after windowing", hint="Check the image's units.")
    return np.asarray((volume - np.float32(mean)) * np.float32(1 / deviation), dtype=np.float32)


def brain_box_of_ct(hounsfield: FloatVolume) -> Box:
    """Box of the skull's inside, with a margin; of the head where no closed skull is found.

    Args:
        hounsfield: shape (x, y, z), on a grid of about 0.6 x 0.6 x 2 mm.
    """
    coarse = hounsfield[::BOX_STEP, ::BOX_STEP]
    head, cavity = coarse > HEAD_HU, skull_cavity(coarse)
    found = cavity if cavity.sum() >= SMALLEST_BRAIN_SHARE * head.sum() else head
    return _grown(bounding_box(found), hounsfield.shape)


def head_box(mr: FloatVolume) -> Box:
    """Box of what is brighter than an MR's background."""
    coarse = mr[::BOX_STEP, ::BOX_STEP]
    low, high = np.percentile(coarse, (5, 98))
    return _grown(bounding_box(coarse > low + 0.1 * (high - low)), mr.shape)


def _grown(box: Box | None, shape: tuple[int, ...]) -> Box:
    if box is None:
        return tuple(slice(0, side) for side in shape)
    steps = (BOX_STEP, BOX_STEP, 1)
    margins = (BOX_MARGIN * BOX_STEP // 2, BOX_MARGIN * BOX_STEP // 2, BOX_MARGIN // 2)
    return tuple(
        slice(max(side.start * step - margin, 0), min(side.stop * step + margin, limit))
        for side, step, margin, limit in zip(box, steps, margins, shape, strict=True)
    )
