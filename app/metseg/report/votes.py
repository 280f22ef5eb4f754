"""The members' votes of a fresh segmentation, brought to the source grid, where lesions are measured."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.domain import Affine, FloatVolume, Grid
from metseg.fusion import member_labels
from metseg.geometry import Trip, labels_to_source, plan_trip, volume_to_source
from metseg.labels import BACKGROUND, REGIONS
from metseg.pipeline import Segmentation
from metseg.plan import Plan
from metseg.report.lesions import Votes
from metseg.rigid import metastases_to, resample_rigid
from metseg.windows import Element, paste_region

WT: Final = REGIONS.index("WT")


def collect_votes(segmentation: Segmentation, grid: Grid, plan: Plan) -> Votes:
    """Each member's label map and the mean probability of WT (or of metastasis) on the source grid.

    Args:
        segmentation: fresh, with the members' predictions.
        grid: the source grid.
        plan: gives the threshold and the network's spacing.
    """
    trip = plan_trip(grid, plan.spacing_mm, plan.frame)
    maps = (
        labels_to_source(_pasted(member_labels(item.probabilities, plan.threshold), segmentation, trip), trip)
        for item in segmentation.predictions
    )
    return Votes(tuple(maps), mean_probability(segmentation, trip, WT))


def mean_probability(segmentation: Segmentation, trip: Trip, channel: int) -> FloatVolume:
    """Mean over the members of one region's probability, on the source grid, 0 outside the windows."""
    return volume_to_source(_pasted(_mean_over_members(segmentation, channel), segmentation, trip), trip)


def _mean_over_members(segmentation: Segmentation, channel: int) -> FloatVolume:
    members = [item.probabilities[channel] for item in segmentation.predictions]
    mean: FloatVolume = np.asarray(np.mean(members, axis=0, dtype=np.float32))
    return mean


def probability_volumes(segmentation: Segmentation, grid: Grid, plan: Plan) -> Mapping[str, FloatVolume]:
    """The mean probability of each region on the source grid."""
    trip = plan_trip(grid, plan.spacing_mm, plan.frame)
    return {region: mean_probability(segmentation, trip, channel) for channel, region in enumerate(plan.regions)}


def votes_on_ct(segmentation: Segmentation, grid: Grid, plan: Plan, mr_to_ct: Affine) -> Votes:
    """The same on the planning CT's grid, which is the segmentation's.

    Args:
        segmentation: fresh, its labels on the CT's grid.
        grid: the source grid.
        plan: see `collect_votes`.
        mr_to_ct: see `Registration`.
    """
    network = plan_trip(grid, plan.spacing_mm, plan.frame)
    pasted = (
        _pasted(member_labels(item.probabilities, plan.threshold), segmentation, network)
        for item in segmentation.predictions
    )
    maps = tuple(metastases_to(labels, network.network, segmentation.grid, mr_to_ct) for labels in pasted)
    mean = _pasted(_mean_over_members(segmentation, WT), segmentation, network)
    to_mr: Affine = np.linalg.inv(mr_to_ct).astype(np.float64)
    return Votes(maps, resample_rigid(mean, network.network, segmentation.grid, to_mr, outside=0.0))


def agreement_volume(votes: Votes) -> FloatVolume:
    """Share of the members that call a voxel WT (or metastasis), 0..1."""
    total = np.zeros(votes.probability.shape, dtype=np.float32, order="F")
    for labels in votes.member_maps:
        total += labels != BACKGROUND
    total /= len(votes.member_maps)
    return total


def _pasted(region: NDArray[Element], segmentation: Segmentation, trip: Trip) -> NDArray[Element]:
    return paste_region(region, segmentation.region_start, trip.network.shape)
