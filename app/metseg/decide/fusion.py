"""Fusion: several members' label maps or probabilities into one label map.

Label maps are fused on their joint vote patterns (`metseg.decide.patterns`): one pass counts the patterns, a method
decides on those few, however often it iterates, and the decision is written back. A case takes milliseconds.

Sources: Erdur et al. 2023 (arXiv 2310.02829), section 2.7; SIMPLE as BraTS Toolkit computes it (Kofler et al. 2020,
doi 10.3389/fnins.2020.00125); Langerak et al. 2010 (doi 10.1109/TMI.2010.2057442).
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.decide.patterns import VotePatterns, count_patterns
from metseg.errors import InputError, UsageError
from metseg.labels import BRATS_REGIONS, LabelMap, RegionMasks, Regions
from metseg.plan.plan import FusionPlan
from metseg.predict.members import Probabilities

MaskFinder = Callable[[NDArray[np.bool_], NDArray[np.intp], FusionPlan], NDArray[np.bool_]]
"""(voters, voxel counts, plan) to where a label wins; see `_simple_mask`."""

ROUNDING: Final = 1e-12
"""A score must be lower than a threshold by more than this: equal scores must not fall under their own mean."""


def fuse_labels(label_maps: Sequence[LabelMap], plan: FusionPlan, regions: Regions = BRATS_REGIONS) -> LabelMap:
    """Fuses label maps: methods `simple`, `simple_langerak`, `majority`, and `maximum` (of the region masks).

    Args:
        label_maps: one per member, uint8, all of one shape, labels 0..255. One map, or equal ones, come back as they
            are, except that `maximum` knows the labels of the regions only.
        plan: method and its parameters.
        regions: of which `maximum` takes the union.

    Returns:
        The fused map, same shape, a new array.

    Raises:
        ValueError: there is no map, or the maps differ in shape or are not uint8.
        UsageError: the method is `mean`, which needs probabilities.
        InputError: the method is `maximum` and a map has a label that belongs to no region, such as 4.
    """
    fuse_patterns = _LABEL_METHODS.get(plan.method)
    if fuse_patterns is None:
        raise UsageError(
            f"fusion method {plan.method!r} needs probabilities, found label maps",
            hint=f"Choose one of {', '.join(sorted(_LABEL_METHODS))}.",
        )
    patterns = count_patterns(label_maps)
    return patterns.to_label_map(fuse_patterns(patterns, plan, regions))


def _simple(patterns: VotePatterns, plan: FusionPlan, _regions: Regions) -> NDArray[np.uint8]:
    """SIMPLE as BraTS Toolkit computes it."""
    return _label_by_label(patterns, plan, _simple_mask)


def _label_by_label(patterns: VotePatterns, plan: FusionPlan, find_mask: MaskFinder) -> NDArray[np.uint8]:
    """One label against the rest, ascending; a later label overwrites an earlier one."""
    fused = np.zeros(patterns.voxel_counts.size, dtype=np.uint8)
    for label in patterns.labels:
        fused[find_mask(patterns.votes == label, patterns.voxel_counts, plan)] = label
    return fused


def _simple_mask(voters: NDArray[np.bool_], voxel_counts: NDArray[np.intp], plan: FusionPlan) -> NDArray[np.bool_]:
    """SIMPLE for one label, as BraTS Toolkit computes it; its drop threshold can never fire, so there is none.

    Args:
        voters: shape (members, patterns): who votes for the label.
        voxel_counts: shape (patterns,).
        plan: when to stop.

    Returns:
        Shape (patterns,): where the label wins.
    """
    estimate = _weighted_vote(voters, [1.0] * len(voters))
    voxels = int(voxel_counts[estimate].sum())
    for _ in range(plan.max_iterations):
        weights = [(1.0 + _dice(voter, estimate, voxel_counts)) ** 2 for voter in voters]
        estimate = _weighted_vote(voters, weights)
        last_voxels, voxels = voxels, int(voxel_counts[estimate].sum())
        if abs(voxels - last_voxels) < plan.min_change_voxels:
            break
    return estimate


def _simple_langerak(patterns: VotePatterns, plan: FusionPlan, _regions: Regions) -> NDArray[np.uint8]:
    """SIMPLE as Langerak et al. 2010 wrote it."""
    return _label_by_label(patterns, plan, _langerak_mask)


def _langerak_mask(voters: NDArray[np.bool_], voxel_counts: NDArray[np.intp], plan: FusionPlan) -> NDArray[np.bool_]:
    """SIMPLE for one label after Langerak et al. 2010: arguments and result as in `_simple_mask`.

    Members that score under mean - alpha * standard deviation (of the population) of those still in leave for good;
    the scores are the weights; it ends when an estimate comes back, at the latest after `max_iterations`.
    """
    estimate = _weighted_vote(voters, [1.0] * len(voters))
    seen = {estimate.tobytes()}
    for _ in range(plan.max_iterations):
        scores = np.array([_dice(voter, estimate, voxel_counts) for voter in voters])
        stays = scores >= scores.mean() - plan.langerak_alpha * scores.std() - ROUNDING
        voters = voters[stays]
        estimate = _weighted_vote(voters, scores[stays].tolist())
        if estimate.tobytes() in seen:
            break
        seen.add(estimate.tobytes())
    return estimate


def _majority(patterns: VotePatterns, _plan: FusionPlan, _regions: Regions) -> NDArray[np.uint8]:
    """Labels descending, so the smaller one wins a tie."""
    fused = np.zeros(patterns.voxel_counts.size, dtype=np.uint8)
    for label in reversed(patterns.labels):
        voters = patterns.votes == label
        fused[2 * voters.sum(axis=0) >= len(voters)] = label
    return fused


def _maximum(patterns: VotePatterns, _plan: FusionPlan, regions: Regions) -> NDArray[np.uint8]:
    """Union per region, decoded like a member; never the maximum of label numbers, which mean nothing."""
    unknown = sorted(set(patterns.labels) - set(regions.labels))
    if unknown:
        raise InputError(
            f"fusion method 'maximum' works on the regions {', '.join(regions.names)} = labels "
            f"{list(regions.labels)}; found label {unknown[0]}",
            hint="Choose simple, simple_langerak or majority, which take any label.",
        )
    return regions.decode(np.logical_or.reduce(regions.split(patterns.votes), axis=1))


_LABEL_METHODS: Final[dict[str, Callable[[VotePatterns, FusionPlan, Regions], NDArray[np.uint8]]]] = {
    "simple": _simple,
    "simple_langerak": _simple_langerak,
    "majority": _majority,
    "maximum": _maximum,
}


def _weighted_vote(voters: NDArray[np.bool_], weights: Sequence[float]) -> NDArray[np.bool_]:
    """Where the weighted votes reach half of the total weight; a tie is foreground; no weight at all, no foreground.

    The sums run member by member, as in the published program, so that a vote equal to half to rounding falls alike.
    """
    votes = np.zeros(voters.shape[1])
    total = 0.0
    for voter, weight in zip(voters, weights, strict=True):
        votes += weight * voter
        total += weight
    return (votes >= total / 2) & (total > 0)


def _dice(mask: NDArray[np.bool_], other: NDArray[np.bool_], voxel_counts: NDArray[np.intp]) -> float:
    """Dice of two sets of patterns, counted in voxels; 0 when both are empty (BraTS Toolkit)."""
    size = int(voxel_counts[mask].sum()) + int(voxel_counts[other].sum())
    return 2 * int(voxel_counts[mask & other].sum()) / size if size else 0.0


def fuse_probabilities(
    probabilities: Sequence[Probabilities], plan: FusionPlan, threshold: float, regions: Regions = BRATS_REGIONS
) -> LabelMap:
    """Fuses probabilities by their `mean` or `maximum` per region, then decodes like a member.

    The mean's sum is taken in float64: equal members give back exactly what one of them gives, and the members' order
    matters only where the mean equals the threshold to 15 digits.

    Args:
        probabilities: one per member, each of shape (regions, x, y, z).
        plan: its method must be `mean` or `maximum`.
        threshold: as in `metseg.decide.threshold`.
        regions: the channels.

    Returns:
        Shape (x, y, z).

    Raises:
        ValueError: there is no member, or the shapes differ.
        UsageError: the method works on label maps.
    """
    if plan.method not in {"mean", "maximum"}:
        raise UsageError(f"fusion method {plan.method!r} works on label maps, found probabilities")
    shapes = {member.shape for member in probabilities}
    if len(shapes) != 1:
        raise ValueError(f"fusion needs probabilities of one shape, found {sorted(shapes) or 'none'}")
    limit = np.float32(threshold)
    masks: RegionMasks = probabilities[0] >= limit
    for member in probabilities[1:]:
        masks |= member >= limit
    if plan.method == "mean":
        # A mean can reach the threshold only where some member does, and that is a small part of a brain.
        candidates = np.nonzero(masks)
        total = np.zeros(candidates[0].size)
        for member in probabilities:
            total += member[candidates]
        masks[candidates] = total >= float(limit) * len(probabilities)
    return regions.decode(masks)
