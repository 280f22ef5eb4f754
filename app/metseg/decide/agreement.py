"""How far the members agree on each lesion of the final label map: for the report, never for a decision."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metseg.labels import BRATS_REGIONS, LabelMap, Regions
from metseg.space.components import find_components


@dataclass(frozen=True, slots=True)
class LesionAgreement:
    """The members' agreement on one lesion, a 26-connected component of the whole tumour (WT).

    Attributes:
        lesion: its number, from 1, in the order in which a scan of the map (last axis fastest) meets the lesions.
        voxels: its size, at least 1.
        finders: members that call at least one of its voxels WT, 0..members.
        vote_share: mean over its voxels of the share of members that call the voxel WT, 0..1. At least about 0.5 under
            `majority`; lower where the fusion lets a minority decide (`maximum`, `mean`) or a member is added.
        entropy_bits: mean over its voxels of the entropy of the members' votes for and against WT, in bits, 0..1: 0
            where all agree on every voxel, 1 where every voxel splits them in halves.
    """

    lesion: int
    voxels: int
    finders: int
    vote_share: float
    entropy_bits: float


def lesion_agreement(
    labels: LabelMap,
    member_maps: Sequence[LabelMap],
    added_maps: Sequence[LabelMap] = (),
    *,
    regions: Regions = BRATS_REGIONS,
) -> tuple[LesionAgreement, ...]:
    """Measures the members' agreement on each lesion.

    Args:
        labels: the final map, shape (x, y, z), disjoint regions such as RC are no part of a lesion.
        member_maps: one per member that voted, same shape.
        added_maps: one per member that joined by maximum, same shape. Such a one is a member for the lesions of which
            it calls at least half of the voxels WT: the small-lesion model's silence on a large lesion is no vote
            against it, nor are the few voxels that it calls there.
        regions: of the maps.

    Returns:
        One entry per lesion, by its number; none for an empty map.

    Raises:
        ValueError: there is no member, or a map's shape is not that of `labels`.
    """
    maps = (*member_maps, *added_maps)
    if not member_maps or any(member.shape != labels.shape for member in maps):
        shapes = [member.shape for member in maps]
        raise ValueError(f"agreement needs members' label maps of shape {labels.shape}, found {shapes}")
    lesions = find_components(regions.whole_mask(labels))
    lesion_of = lesions.component_of - 1
    count = lesions.sizes.size
    votes = np.zeros(lesion_of.size, dtype=np.intp)
    finders = np.zeros(count, dtype=np.intp)
    members = np.full(count, len(member_maps), dtype=np.intp)
    for number, member in enumerate(maps):
        vote = regions.whole_mask(member.reshape(-1)[lesions.voxels])
        called = np.bincount(lesion_of[vote], minlength=count)
        if number >= len(member_maps):
            counts = 2 * called >= lesions.sizes
            members += counts
            called *= counts
            vote &= counts[lesion_of]
        votes += vote
        finders += called > 0
    vote_sums = np.bincount(lesion_of, weights=votes, minlength=count)
    entropies = _vote_entropies_bits(len(maps))[members[lesion_of], votes]
    entropy_sums = np.bincount(lesion_of, weights=entropies, minlength=count)
    return tuple(
        LesionAgreement(
            lesion=number + 1,
            voxels=int(size),
            finders=int(finders[number]),
            vote_share=float(vote_sums[number] / (size * members[number])),
            entropy_bits=float(entropy_sums[number] / size),
        )
        for number, size in enumerate(lesions.sizes)
    )


def _vote_entropies_bits(most: int) -> NDArray[np.float64]:
    """Entropy of v votes for and n - v against, for n = 0..most (rows) and v = 0..n, 0 beyond."""
    members, votes = np.arange(most + 1)[:, None], np.arange(most + 1)
    shares = np.where(votes <= members, votes / np.maximum(members, 1), 0)
    entropies = np.zeros(shares.shape)
    for share in (shares, 1 - shares):
        some = share > 0
        entropies[some] -= share[some] * np.log2(share[some])
    return entropies
