"""What the report takes from a fresh segmentation: label map, images, votes and probabilities on one grid.

This module alone knows what a segmentation in memory is made of.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from metseg.decide.fusion import member_labels
from metseg.files.case import Case, Scan
from metseg.labels import Regions
from metseg.plan.plan import Plan
from metseg.predict.windows import Element, paste_region
from metseg.prepare.registration import AIR_HU
from metseg.report.case_volumes import CaseVolumes, apply_window
from metseg.report.lesions import Votes
from metseg.run.pipeline import Segmentation, divide_members
from metseg.run.record import CaseRecord
from metseg.space.grid import Affine, FloatVolume, Grid
from metseg.space.resampling import Trip, labels_to_source, plan_trip, volume_to_source
from metseg.space.rigid import metastases_to, resample_rigid
from metseg.systems import SOURCE_MODALITY, Modality


def collect_volumes(record: CaseRecord, segmentation: Segmentation, case: Case, plan: Plan) -> CaseVolumes:
    """Collects what a fresh segmentation is measured and drawn on.

    Args:
        record: what became of the case; gives the registration.
        segmentation: with the members' predictions.
        case: as read.
        plan: the plan that made the segmentation.

    Returns:
        Everything on the label map's grid. A scan that was registered is among the images: the eye can check it.
    """
    found, label_grid = record.registration, SOURCE_MODALITY
    images: Mapping[Modality, FloatVolume] = case.images
    if found is None:
        votes = collect_votes(segmentation, case.grid, plan)
    else:
        ((modality, scan),) = case.scans.items()
        if segmentation.grid is scan.grid:
            label_grid = modality
            votes = _collect_votes_on_scan(segmentation, case.grid, plan, found.mr_to_ct)
        else:
            votes = collect_votes(segmentation, case.grid, plan)
        source, hounsfield = _align(case, scan, segmentation.grid, found.mr_to_ct)
        images = {SOURCE_MODALITY: source, modality: apply_window(hounsfield, plan.system.window_hu)}
    return CaseVolumes(segmentation.grid, segmentation.labels, plan.system, images, votes, label_grid=label_grid)


def collect_votes(segmentation: Segmentation, grid: Grid, plan: Plan) -> Votes:
    """Each member's label map and the mean probability of the whole region on the source grid.

    Args:
        segmentation: fresh, with the members' predictions.
        grid: the source grid.
        plan: gives the threshold, the regions and the network's grid.
    """
    trip = plan_trip(grid, plan.spacing_mm, plan.frame)
    maps = [
        labels_to_source(_paste(member_labels(item.probabilities, plan.threshold), segmentation, trip), trip)
        for item in segmentation.predictions
    ]
    voting, added = divide_members(maps, segmentation.predictions, plan)
    return Votes(voting, _restore_probability(segmentation, plan, trip, _find_whole_channel(plan)), added)


def restore_probabilities(segmentation: Segmentation, grid: Grid, plan: Plan) -> Mapping[str, FloatVolume]:
    """The mean probability of each region on the source grid, by the region's name; 0 outside the windows."""
    trip = plan_trip(grid, plan.spacing_mm, plan.frame)
    return {
        region: _restore_probability(segmentation, plan, trip, channel)
        for channel, region in enumerate(plan.regions.names)
    }


def compute_agreement(votes: Votes, regions: Regions) -> FloatVolume:
    """Share of the members that call a voxel part of a lesion, 0..1; an added member counts where it does."""
    total = np.zeros(votes.probability.shape, dtype=np.float32, order="F")
    members = np.full_like(total, len(votes.member_maps))
    for labels in votes.member_maps:
        total += regions.whole_mask(labels)
    for labels in votes.added_maps:
        called = regions.whole_mask(labels)
        total += called
        members += called
    total /= members
    return total


def _align(case: Case, scan: Scan, grid: Grid, source_to_scan: Affine) -> tuple[FloatVolume, FloatVolume]:
    """The source image and a registered scan on the label map's grid, which is that of one of the two."""
    source = case.images[SOURCE_MODALITY]
    if grid is scan.grid:
        to_source: Affine = np.linalg.inv(source_to_scan).astype(np.float64)
        return resample_rigid(source, case.grid, grid, to_source, outside=0.0), scan.voxels
    return source, resample_rigid(scan.voxels, scan.grid, grid, source_to_scan, outside=AIR_HU)


def _collect_votes_on_scan(segmentation: Segmentation, grid: Grid, plan: Plan, source_to_scan: Affine) -> Votes:
    """The same as `collect_votes` on the registered scan's grid, which is the segmentation's."""
    network = plan_trip(grid, plan.spacing_mm, plan.frame)
    pasted = (
        _paste(member_labels(item.probabilities, plan.threshold), segmentation, network)
        for item in segmentation.predictions
    )
    maps = [metastases_to(labels, network.network, segmentation.grid, source_to_scan) for labels in pasted]
    voting, added = divide_members(maps, segmentation.predictions, plan)
    joint = _paste(_join_probabilities(segmentation, plan, _find_whole_channel(plan)), segmentation, network)
    to_source: Affine = np.linalg.inv(source_to_scan).astype(np.float64)
    return Votes(voting, resample_rigid(joint, network.network, segmentation.grid, to_source, outside=0.0), added)


def _find_whole_channel(plan: Plan) -> int:
    return plan.regions.names.index(plan.regions.whole.name)


def _restore_probability(segmentation: Segmentation, plan: Plan, trip: Trip, channel: int) -> FloatVolume:
    """One region's probability on the source grid, 0 outside the windows."""
    return volume_to_source(_paste(_join_probabilities(segmentation, plan, channel), segmentation, trip), trip)


def _join_probabilities(segmentation: Segmentation, plan: Plan, channel: int) -> FloatVolume:
    """The mean over the voting members, or an added member's probability where that is larger: as they are fused."""
    predicted = [item.probabilities[channel] for item in segmentation.predictions]
    voting, added = divide_members(predicted, segmentation.predictions, plan)
    joint: FloatVolume = np.asarray(np.mean(voting, axis=0, dtype=np.float32))
    for probabilities in added:
        joint = np.maximum(joint, probabilities)
    return joint


def _paste(region: NDArray[Element], segmentation: Segmentation, trip: Trip) -> NDArray[Element]:
    """A block of the network's grid in the whole grid, 0 around it."""
    return paste_region(region, segmentation.region_start, trip.network.shape)
