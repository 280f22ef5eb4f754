"""The members' votes of a fresh segmented, brought to the source grid, where lesions are measured."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.decide.decision import divide_members
from metseg.decide.threshold import member_labels
from metseg.labels import BACKGROUND, REGIONS
from metseg.plan.plan import Plan
from metseg.predict.windows import Element, paste_region
from metseg.report.lesions import Votes
from metseg.run.pipeline import Segmented
from metseg.space.grid import Affine, FloatVolume
from metseg.space.resampling import Resampling, labels_to_source, volume_to_source
from metseg.space.rigid import metastases_to, resample_rigid

WT: Final = REGIONS.index("WT")


def collect_votes(segmented: Segmented, plan: Plan) -> Votes:
    """Each member's label map and the mean probability of WT (or of metastasis) on the source grid.

    Args:
        segmented: fresh, with the members' predictions.
        plan: gives the threshold.
    """
    resampling = segmented.resampling
    maps = [
        labels_to_source(
            _pasted(member_labels(item.probabilities, plan.threshold, plan.regions), segmented, resampling), resampling
        )
        for item in segmented.decision.predictions.members
    ]
    voting, added = divide_members(maps, segmented.decision.predictions.members, plan)
    return Votes(voting, mean_probability(segmented, plan, resampling, WT), added)


def mean_probability(segmented: Segmented, plan: Plan, resampling: Resampling, channel: int) -> FloatVolume:
    """One region's probability on the source grid, 0 outside the windows.

    The mean over the voting members, or an added member's probability where that is larger: as they are fused.
    """
    return volume_to_source(_pasted(_joint_probability(segmented, plan, channel), segmented, resampling), resampling)


def _joint_probability(segmented: Segmented, plan: Plan, channel: int) -> FloatVolume:
    of_members = [item.probabilities[channel] for item in segmented.decision.predictions.members]
    voting, added = divide_members(of_members, segmented.decision.predictions.members, plan)
    joint: FloatVolume = np.asarray(np.mean(voting, axis=0, dtype=np.float32))
    for probabilities in added:
        joint = np.maximum(joint, probabilities)
    return joint


def probability_volumes(segmented: Segmented, plan: Plan) -> Mapping[str, FloatVolume]:
    """The mean probability of each region on the source grid."""
    resampling = segmented.resampling
    return {
        region: mean_probability(segmented, plan, resampling, channel)
        for channel, region in enumerate(plan.regions.names)
    }


def votes_on_ct(segmented: Segmented, plan: Plan, mr_to_ct: Affine) -> Votes:
    """The same on the planning CT's grid, which is the segmentation's.

    Args:
        segmented: fresh, its labels on the CT's grid.
        plan: see `collect_votes`.
        mr_to_ct: see `Registration`.
    """
    network = segmented.resampling
    pasted = (
        _pasted(member_labels(item.probabilities, plan.threshold, plan.regions), segmented, network)
        for item in segmented.decision.predictions.members
    )
    maps = [metastases_to(labels, network.network, segmented.grid, mr_to_ct) for labels in pasted]
    voting, added = divide_members(maps, segmented.decision.predictions.members, plan)
    joint = _pasted(_joint_probability(segmented, plan, WT), segmented, network)
    to_mr: Affine = np.linalg.inv(mr_to_ct).astype(np.float64)
    return Votes(voting, resample_rigid(joint, network.network, segmented.grid, to_mr, outside=0.0), added)


def agreement_volume(votes: Votes) -> FloatVolume:
    """Share of the members that call a voxel WT (or metastasis), 0..1; an added one counts where it does."""
    total = np.zeros(votes.probability.shape, dtype=np.float32, order="F")
    members = np.full_like(total, len(votes.member_maps))
    for labels in votes.member_maps:
        total += labels != BACKGROUND
    for labels in votes.added_maps:
        total += labels != BACKGROUND
        members += labels != BACKGROUND
    total /= members
    return total


def _pasted(region: NDArray[Element], segmented: Segmented, resampling: Resampling) -> NDArray[Element]:
    return paste_region(region, segmented.decision.predictions.layout.start, resampling.network.shape)
