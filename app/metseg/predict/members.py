"""The members of the ensemble, one after the other: each one's probabilities of the regions.

Shapes: an image is (channels, x, y, z), a batch (passes, channels, x, y, z), logits and probabilities
(regions, x, y, z).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metseg.errors import NotFiniteError
from metseg.findings import printable
from metseg.predict.between_grids import logits_between_grids
from metseg.predict.cpu import give_back_memory
from metseg.predict.engine import Engine, Member
from metseg.predict.inputs import Inputs
from metseg.predict.sliding import sliding_logits
from metseg.predict.tiles import tiled_logits
from metseg.predict.windows import Layout
from metseg.prepare.channels import find_constant

if TYPE_CHECKING:
    from torch import Tensor

Probabilities = NDArray[np.float32]
"""Shape (regions, x, y, z), in [0, 1]."""


@dataclass(frozen=True, slots=True)
class MemberPrediction:
    """What one member says of one case.

    Attributes:
        name: the member's.
        probabilities: on the layout's box of the network's grid.
    """

    name: str
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the members say of one case.

    Attributes:
        members: one prediction per member that could run, in the plan's order.
        layout: its box of the network's grid is what they cover.
    """

    members: tuple[MemberPrediction, ...]
    layout: Layout


def predict_members(inputs: Inputs, engine: Engine) -> Predictions:
    """Runs every usable member on a case.

    Returns:
        No prediction where the case lacks what every member reads.

    Raises:
        NotFiniteError: a member's logits are not all finite.
    """
    usable = engine.usable_members(inputs.prepared)
    return Predictions(tuple(_predict_member(member, inputs, engine) for member in usable), inputs.layout)


def _predict_member(member: Member, inputs: Inputs, engine: Engine) -> MemberPrediction:
    try:
        logits, own = _member_logits(member, inputs, engine)
    finally:
        member.rest()
        give_back_memory()
    if not bool(logits.isfinite().all()):  # compared with a threshold, what is no number would be no tumour
        raise NotFiniteError(
            f"case {printable(inputs.prepared.case_id)}: member {member.plan.name} gives numbers that are not finite, "
            f"in {engine.device.precision} on {engine.device.description}",
            hint="Run this case with --device cpu; if that says the same, look at its images.",
        )
    probabilities = own.move(logits.sigmoid_().cpu().numpy(), inputs.layout)
    probabilities = choose_regions(probabilities, member.plan.regions, engine.plan.regions.names)
    return MemberPrediction(member.plan.name, probabilities)


def choose_regions(probabilities: Probabilities, found: Sequence[str], wanted: Sequence[str]) -> Probabilities:
    """The probabilities of the plan's regions; 0 for one that the member does not know.

    Args:
        probabilities: shape (found regions, x, y, z).
        found: the member's regions.
        wanted: the plan's.

    Returns:
        Shape (wanted regions, x, y, z).
    """
    if tuple(found) == tuple(wanted):
        return probabilities
    chosen = np.zeros((len(wanted), *probabilities.shape[1:]), probabilities.dtype)
    for place, name in enumerate(wanted):
        if name in found:
            chosen[place] = probabilities[found.index(name)]
    return chosen


def _member_logits(member: Member, inputs: Inputs, engine: Engine) -> "tuple[Tensor, Layout]":
    """A member's logits, and the layout whose box they are on."""
    import torch  # noqa: PLC0415 - heavy

    prepared, plan = inputs.prepared, member.plan
    if plan.network.runs_in_tiles:
        whole = [prepared.channels[channel] for channel in plan.channels]
        return tiled_logits(member.network, whole, inputs.layout, engine.device), inputs.layout
    own, spacing = inputs.layout_of_member(plan, engine.plan), plan.spacing_mm
    image = torch.stack([inputs.channel(name, spacing, own, engine.store) for name in plan.channels])
    noise = inputs.noise.sparing(find_constant(plan.channels, prepared.channels))
    logits = sliding_logits(member.network, image, own, engine, noise, regions=len(plan.regions))
    if spacing is None:
        return logits, own
    there = prepared.on_grid(spacing).resampling
    return logits_between_grids(logits, own, there, inputs.layout, prepared.resampling), inputs.layout
