"""The joint votes of several label maps, counted once.

Fusion looks only at how the members voted together: two voxels with the same votes get the same label. n members of 4
labels can show at most 4^n patterns, and in practice show a few dozen: whatever iterates, iterates on those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from metseg.labels import BACKGROUND, LabelMap

MAX_PATTERN_CODES: Final = 2**20
"""Up to here a table with one entry per possible pattern (8 MB) is faster than sorting; 10 members of 4 labels fit."""


@dataclass(frozen=True, slots=True)
class VotePatterns:
    """How several members voted together, over all voxels where at least one of them sees something.

    Attributes:
        votes: shape (members, patterns): the label that each member gives to the voxels of a pattern.
        voxel_counts: shape (patterns,): voxels that show the pattern, each at least 1.
        voxels: shape (v,): flat indices of the voxels where some member's label is not background.
        pattern_of: shape (v,): which pattern each of `voxels` shows.
        shape: of the label maps.
        order: memory order that the flat indices count in.
    """

    votes: NDArray[np.uint8]
    voxel_counts: NDArray[np.intp]
    voxels: NDArray[np.intp]
    pattern_of: NDArray[np.intp]
    shape: tuple[int, ...]
    order: Literal["C", "F"]

    @property
    def labels(self) -> list[int]:
        """Labels that some member uses, ascending, without background."""
        return [int(label) for label in np.unique(self.votes) if label != BACKGROUND]

    def to_label_map(self, pattern_labels: NDArray[np.uint8]) -> LabelMap:
        """Writes each pattern's label into its voxels.

        Args:
            pattern_labels: shape (patterns,).

        Returns:
            A new map of `shape`; background where no member sees anything.
        """
        flat = np.zeros(int(np.prod(self.shape)), dtype=np.uint8)
        flat[self.voxels] = pattern_labels[self.pattern_of]
        return flat.reshape(self.shape, order=self.order)


def count_patterns(label_maps: Sequence[LabelMap]) -> VotePatterns:
    """Counts the joint patterns of the members' votes: the only pass over the voxels that fusion needs.

    Args:
        label_maps: one per member, all of one shape, labels 0..255. May be empty of foreground: then no pattern.

    Raises:
        ValueError: there is no map, or the maps differ in shape, or one is not uint8.
    """
    if not label_maps:
        raise ValueError("fusion needs at least one label map, found none")
    shape = label_maps[0].shape
    for number, labels in enumerate(label_maps):
        if labels.shape != shape or labels.dtype != np.uint8:
            raise ValueError(f"label map {number}: expected uint8 {shape}, found {labels.dtype} {labels.shape}")
    # nibabel hands out Fortran order: counting in the maps' own order saves a copy of each.
    order: Literal["C", "F"] = "F" if all(labels.flags.f_contiguous for labels in label_maps) else "C"
    flat_maps = [labels.ravel(order=order) for labels in label_maps]
    seen = flat_maps[0].copy()
    for flat in flat_maps[1:]:
        np.bitwise_or(seen, flat, out=seen)
    voxels = np.flatnonzero(seen != BACKGROUND)
    voxel_votes = np.stack([flat[voxels] for flat in flat_maps])
    pattern_of, voxel_counts = _number_patterns(voxel_votes)
    # Any voxel of a pattern can stand for it.
    example = np.empty(voxel_counts.size, dtype=np.intp)
    example[pattern_of] = np.arange(voxels.size)
    return VotePatterns(voxel_votes[:, example], voxel_counts, voxels, pattern_of, shape, order)


def _number_patterns(voxel_votes: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers the distinct columns of (members, v) votes from 0; returns each voxel's number and the voxels of each."""
    is_used = np.bincount(voxel_votes.ravel(), minlength=256) > 0
    dense_label = (np.cumsum(is_used) - 1).astype(np.intp)
    label_count = int(is_used.sum())
    codes = np.zeros(voxel_votes.shape[1], dtype=np.intp)
    code_count = 1
    for votes in voxel_votes:
        if code_count * label_count > MAX_PATTERN_CODES:
            codes, code_count = _renumber(codes, code_count)
        codes = codes * label_count + dense_label[votes]
        code_count *= label_count
    codes, code_count = _renumber(codes, code_count)
    return codes, np.bincount(codes, minlength=code_count)


def _renumber(codes: NDArray[np.intp], code_count: int) -> tuple[NDArray[np.intp], int]:
    """Maps codes in 0..code_count-1 to 0..(distinct codes)-1, keeping their order; returns them and how many."""
    if code_count > MAX_PATTERN_CODES:
        distinct, numbers = np.unique(codes, return_inverse=True)
        return numbers, distinct.size
    is_used = np.bincount(codes, minlength=code_count) > 0
    number_of: NDArray[np.intp] = np.cumsum(is_used) - 1
    return number_of[codes], int(is_used.sum())
