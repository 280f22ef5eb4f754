"""The members' votes of a fresh segmentation, brought to the source grid, where lesions are measured."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.decide.fusion import member_labels
from metseg.labels import BACKGROUND, REGIONS
from metseg.plan.plan import Plan
from metseg.predict.windows import Element, paste_region
from metseg.report.lesions import Votes
from metseg.run.pipeline import Segmentation, divide_members
from metseg.space.grid import Affine, FloatVolume, Grid
from metseg.space.resampling import Resampling, labels_to_source, plan_resampling, volume_to_source
from metseg.space.rigid import move_labels, resample_rigid

WT: Final = REGIONS.index("WT")


def collect_votes(segmentation: Segmentation, grid: Grid, plan: Plan) -> Votes:
    """Each member's label map and the mean probability of WT (or of metastasis) on the source grid.

    Args:
        segmentation: fresh, with the members' predictions.
        grid: the source grid.
        plan: gives the threshold and the network's spacing.
    """
    resampling = plan_resampling(grid, plan.spacing_mm, plan.frame)
    maps = [
        labels_to_source(
            _pasted(member_labels(item.probabilities, plan.threshold), segmentation, resampling),
            resampling,
            plan.regions,
        )
        for item in segmentation.predictions
    ]
    voting, added = divide_members(maps, segmentation.predictions, plan)
    return Votes(voting, mean_probability(segmentation, plan, resampling, WT), added)


def mean_probability(segmentation: Segmentation, plan: Plan, resampling: Resampling, channel: int) -> FloatVolume:
    """One region's probability on the source grid, 0 outside the windows.

    The mean over the voting members, or an added member's probability where that is larger: as they are fused.
    """
    return volume_to_source(
        _pasted(_joint_probability(segmentation, plan, channel), segmentation, resampling), resampling
    )


def _joint_probability(segmentation: Segmentation, plan: Plan, channel: int) -> FloatVolume:
    of_members = [item.probabilities[channel] for item in segmentation.predictions]
    voting, added = divide_members(of_members, segmentation.predictions, plan)
    joint: FloatVolume = np.asarray(np.mean(voting, axis=0, dtype=np.float32))
    for probabilities in added:
        joint = np.maximum(joint, probabilities)
    return joint


def probability_volumes(segmentation: Segmentation, grid: Grid, plan: Plan) -> Mapping[str, FloatVolume]:
    """The mean probability of each region on the source grid."""
    resampling = plan_resampling(grid, plan.spacing_mm, plan.frame)
    return {
        region: mean_probability(segmentation, plan, resampling, channel)
        for channel, region in enumerate(plan.regions.names)
    }


def votes_on_ct(segmentation: Segmentation, grid: Grid, plan: Plan, mr_to_ct: Affine) -> Votes:
    """The same on the planning CT's grid, which is the segmentation's.

    Args:
        segmentation: fresh, its labels on the CT's grid.
        grid: the source grid.
        plan: see `collect_votes`.
        mr_to_ct: see `Registration`.
    """
    network = plan_resampling(grid, plan.spacing_mm, plan.frame)
    pasted = (
        _pasted(member_labels(item.probabilities, plan.threshold), segmentation, network)
        for item in segmentation.predictions
    )
    maps = [move_labels(labels, network.network, segmentation.grid, mr_to_ct, plan.regions) for labels in pasted]
    voting, added = divide_members(maps, segmentation.predictions, plan)
    joint = _pasted(_joint_probability(segmentation, plan, WT), segmentation, network)
    to_mr: Affine = np.linalg.inv(mr_to_ct).astype(np.float64)
    return Votes(voting, resample_rigid(joint, network.network, segmentation.grid, to_mr, outside=0.0), added)


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


def _pasted(region: NDArray[Element], segmentation: Segmentation, resampling: Resampling) -> NDArray[Element]:
    return paste_region(region, segmentation.region_start, resampling.network.shape)
