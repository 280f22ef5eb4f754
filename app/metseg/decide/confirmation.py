"""Confirmation: a small component stays only where another model finds something in it too."""

from collections.abc import Sequence

from metseg.labels import BACKGROUND, LabelMap, Regions
from metseg.space.components import find_components


def keep_confirmed(labels: LabelMap, confirming: Sequence[LabelMap], below_voxels: float, regions: Regions) -> LabelMap:
    """Removes small components that no other map knows of.

    Args:
        labels: shape (x, y, z); components are 26-connected, of the largest region.
        confirming: maps of the same shape. One voxel of one of them confirms the component that it lies in.
        below_voxels: components of so many voxels or more need no confirmation.
        regions: of the maps.

    Returns:
        A new map.
    """
    components = find_components(regions.whole_mask(labels))
    needs = components.smaller_than(below_voxels)
    for other in confirming:
        confirms = regions.whole_mask(other.reshape(-1)[components.voxels])
        needs[components.component_of[confirms] - 1] = False
    kept = labels.copy(order="C")
    kept.reshape(-1)[components.pick_voxels(needs)] = BACKGROUND
    return kept
