"""From a case to what the networks read: RAS axes, 1 mm, intensities in [0, 1], the subtraction channel.

Training prepares its volumes with these same functions, so that the two can't drift apart.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.files.case import Case
from metseg.plan.plan import SUBTRACTION, ChannelName, IntensityPlan, IntensityPlans, Plan, Spacing
from metseg.plan.radiosurgery import RadiosurgeryIntensityPlan, RegistrationPlan
from metseg.prepare.channels import Channels, fill_channel
from metseg.prepare.intensities import find_brain, scale_intensities
from metseg.prepare.radiosurgery import prepare_radiosurgery
from metseg.prepare.registration import Registration
from metseg.space.components import Box, bounding_box
from metseg.space.grid import FloatVolume
from metseg.space.resampling import Resampling, find_resampling, to_network
from metseg.systems import MODALITIES


@dataclass(frozen=True, slots=True)
class PreparedCase:
    """One case on the network's grid.

    Attributes:
        case: as read.
        resampling: the way between the source grid and the network's.
        channels: every channel that the case's images give (`channel` has the others), shape (x, y, z) each, RAS axes,
            in [0, 1] (with the radiosurgery system's intensities: of zero mean and unit variance).
        brain: bounding box of the voxels that are not background in some channel.
        registration: where the CT lies; None without one.
        brain_share: of the grid's voxels; see `Channels`.
        on_own_grids: the same case on the grids that single members have for themselves (`MemberPlan.spacing_mm`).
    """

    case: Case
    resampling: Resampling
    channels: Mapping[ChannelName, FloatVolume]
    brain: Box
    registration: Registration | None = None
    brain_share: float | None = None
    on_own_grids: "Mapping[Spacing, PreparedCase]" = field(default_factory=dict)

    @property
    def case_id(self) -> str:
        """See CaseFiles."""
        return self.case.case_id

    def channel(self, name: ChannelName) -> FloatVolume:
        """A network's input channel, shape (x, y, z), whether the case has its image or not; not to be changed."""
        return fill_channel(name, self.channels)

    def on_grid(self, spacing_mm: Spacing | None) -> "PreparedCase":
        """The case on a member's own grid; None for the plan's."""
        return self if spacing_mm is None else self.on_own_grids[spacing_mm]


def prepare(case: Case, plan: Plan) -> PreparedCase:
    """Brings a case to the plan's grid, and to those that members have for themselves.

    A member's own grid is filled from the images, as in its training, not from the plan's grid.

    Raises:
        InputError: as `prepare_case`.
    """
    prepared = prepare_case(
        case, plan.intensity, spacing_mm=plan.spacing_mm, frame=plan.frame, registration=plan.registration
    )
    own = {spacing: prepare_case(case, plan.intensity, spacing_mm=spacing) for spacing in plan.own_spacings}
    return replace(prepared, on_own_grids=own) if own else prepared


def prepare_case(
    case: Case,
    intensity: IntensityPlans,
    *,
    spacing_mm: float | tuple[float, float, float] = 1.0,
    frame: tuple[int, int] | None = None,
    registration: RegistrationPlan | None = None,
) -> PreparedCase:
    """Brings a case to the network's grid and scale (Erdur et al. 2023, section 2.2; Hu et al. 2019, section 3.1).

    Args:
        case: as read.
        intensity: how its images are scaled: decides which of `PREPARERS` does it.
        spacing_mm: see `Plan`.
        frame: see `Plan`.
        registration: see `Plan`.

    Raises:
        InputError: an image has no contrast left between its percentiles, or a scan can't be registered.
    """
    resampling = find_resampling(case.grid, spacing_mm, frame)
    try:
        made = PREPARERS[type(intensity)](case, intensity, resampling, registration)
    except InputError as error:
        raise InputError(f"case {case.shown_id}: {error}", hint=error.hint) from error
    return PreparedCase(case, resampling, made.channels, made.brain, made.registration, made.brain_share)


def prepare_sequences(
    case: Case, intensity: IntensityPlan, resampling: Resampling, _registration: RegistrationPlan | None
) -> Channels:
    """The challenge's sequences, each between its percentiles, and the subtraction channel.

    Raises:
        InputError: an image has no contrast left between its percentiles.
    """
    volumes = {name: to_network(case.images[name], resampling) for name in MODALITIES if name in case.images}
    brain = find_brain(volumes.values())
    channels: dict[ChannelName, FloatVolume] = {}
    for modality in tuple(volumes):
        try:
            channels[modality] = scale_intensities(volumes.pop(modality), intensity, brain)
        except InputError as error:
            raise InputError(f"{modality}: {error}", hint=error.hint) from error
    if "t1c" in channels and "t1n" in channels:
        channels[SUBTRACTION] = subtract(channels["t1c"], channels["t1n"])
    return Channels(channels, brain_box(channels), brain_share=float(brain.mean()))


PREPARERS: Final[Mapping[type, Callable[..., Channels]]] = {
    IntensityPlan: prepare_sequences,
    RadiosurgeryIntensityPlan: prepare_radiosurgery,
}
"""How each kind of intensity section makes channels: (case, section, resampling, registration) to `Channels`."""


def subtract(t1c: FloatVolume, t1n: FloatVolume) -> FloatVolume:
    """The subtraction channel: (t1c - t1n) squared, element-wise, not rescaled (Erdur et al. 2023, section 2.4).

    Args:
        t1c: shape (x, y, z), scaled to [0, 1].
        t1n: same shape and scale.
    """
    difference: FloatVolume = t1c - t1n
    difference *= difference
    return difference


def brain_box(channels: Mapping[ChannelName, FloatVolume]) -> Box:
    """Bounding box of the voxels that are above 0 in some channel: the brain, when the skull is stripped.

    Empty slices where there is none.
    """
    first, *others = channels.values()
    seen: NDArray[np.bool_] = first > 0
    for channel in others:
        np.logical_or(seen, channel > 0, out=seen)
    return bounding_box(seen) or (slice(0, 0), slice(0, 0), slice(0, 0))


def voxel_seed(channels: Mapping[ChannelName, FloatVolume], box: Box) -> int:
    """A seed that depends on the voxels inside `box` alone, not on the case's name or on what ran before."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(channels):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(channels[name][box]).data)
    return int.from_bytes(digest.digest(), "little")
