"""What the report takes from a fresh segmentation: label map, images, votes and probabilities on one grid.

This module alone knows what a segmentation in memory is made of.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from metseg.decide.decision import divide_members
from metseg.decide.threshold import member_labels
from metseg.files.case import Case, Scan
from metseg.labels import LabelMap, Regions
from metseg.plan.plan import Plan
from metseg.report.case_volumes import CaseVolumes, apply_window
from metseg.report.lesions import Votes
from metseg.run.pipeline import Segmented
from metseg.space.blocks import Element
from metseg.space.grid import Affine, FloatVolume, Grid
from metseg.space.resampling import labels_to_source, volume_to_source
from metseg.space.rigid import move_labels, resample_rigid
from metseg.systems import AIR_HU, SOURCE_MODALITY, Modality


def collect_volumes(segmented: Segmented, plan: Plan) -> CaseVolumes:
    """What a fresh segmentation is measured and drawn on.

    Args:
        segmented: with the members' predictions.
        plan: the plan that made it.

    Returns:
        Everything on the label map's grid. A scan that was registered is among the images: the eye can check it.
    """
    case, found, label_grid = segmented.case, segmented.registration, SOURCE_MODALITY
    images: Mapping[Modality, FloatVolume] = case.images
    if found is None:
        votes = collect_votes(segmented, plan)
    else:
        ((modality, scan),) = case.scans.items()
        if segmented.grid is scan.grid:
            label_grid = modality
            votes = _collect_votes_on_scan(segmented, plan, found.mr_to_ct)
        else:
            votes = collect_votes(segmented, plan)
        window_hu = plan.intensity.scan_window_hu or plan.system.window_hu
        source, hounsfield = _align(case, scan, segmented.grid, found.mr_to_ct)
        images = {SOURCE_MODALITY: source, modality: apply_window(hounsfield, window_hu)}
    return CaseVolumes(segmented.grid, segmented.labels, plan.system, images, votes, label_grid=label_grid)


def collect_votes(segmented: Segmented, plan: Plan) -> Votes:
    """Each member's label map and the mean probability of the whole region on the source grid.

    Args:
        segmented: fresh, with the members' predictions.
        plan: gives the threshold and the regions.
    """
    resampling = segmented.resampling
    maps = [
        labels_to_source(_paste(labels, segmented), resampling, plan.regions) for labels in _list_votes(segmented, plan)
    ]
    voting, added = divide_members(maps, segmented.decision.predictions.members, plan)
    return Votes(voting, _restore_probability(segmented, plan, _find_whole_channel(plan)), added)


def restore_probabilities(segmented: Segmented, plan: Plan) -> Mapping[str, FloatVolume]:
    """The mean probability of each region on the source grid, by the region's name; 0 outside the windows."""
    return {region: _restore_probability(segmented, plan, channel) for channel, region in enumerate(plan.regions.names)}


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


def _collect_votes_on_scan(segmented: Segmented, plan: Plan, source_to_scan: Affine) -> Votes:
    """The same as `collect_votes` on the registered scan's grid, which is the segmentation's."""
    network = segmented.resampling.network
    pasted = (_paste(labels, segmented) for labels in _list_votes(segmented, plan))
    maps = [move_labels(labels, network, segmented.grid, source_to_scan, plan.regions) for labels in pasted]
    voting, added = divide_members(maps, segmented.decision.predictions.members, plan)
    joint = _paste(_join_probabilities(segmented, plan, _find_whole_channel(plan)), segmented)
    to_source: Affine = np.linalg.inv(source_to_scan).astype(np.float64)
    return Votes(voting, resample_rigid(joint, network, segmented.grid, to_source, outside=0.0), added)


def _find_whole_channel(plan: Plan) -> int:
    return plan.regions.names.index(plan.regions.whole.name)


def _restore_probability(segmented: Segmented, plan: Plan, channel: int) -> FloatVolume:
    """One region's probability on the source grid, 0 outside the windows."""
    return volume_to_source(_paste(_join_probabilities(segmented, plan, channel), segmented), segmented.resampling)


def _join_probabilities(segmented: Segmented, plan: Plan, channel: int) -> FloatVolume:
    """The mean over the voting members, or an added member's probability where that is larger: as they are fused."""
    predicted = [item.probabilities[channel] for item in segmented.decision.predictions.members]
    voting, added = divide_members(predicted, segmented.decision.predictions.members, plan)
    joint: FloatVolume = np.asarray(np.mean(voting, axis=0, dtype=np.float32))
    for probabilities in added:
        joint = np.maximum(joint, probabilities)
    return joint


def _list_votes(segmented: Segmented, plan: Plan) -> list[LabelMap]:
    """Each member's label map, on the box of the network's grid that the windows cover."""
    members = segmented.decision.predictions.members
    return [member_labels(member.probabilities, plan.threshold, plan.regions) for member in members]


def _paste(box: NDArray[Element], segmented: Segmented) -> NDArray[Element]:
    """A box of the network's grid in the whole grid, 0 around it."""
    return segmented.decision.predictions.layout.paste(box, segmented.resampling.network.shape)
