"""Postprocessing of the fused label map: components too small to be believed go (Erdur et al. 2023, section 2.8)."""

import numpy as np
from numpy.typing import NDArray

from metseg.labels import BACKGROUND, BRATS_REGIONS, ET, NETC, SNFH, LabelMap, Regions
from metseg.plan.plan import PostprocessPlan
from metseg.space.components import Components, bounding_box, find_components


def apply_size_rules(
    labels: LabelMap, plan: PostprocessPlan, regions: Regions = BRATS_REGIONS, *, voxel_volume_mm3: float = 1.0
) -> LabelMap:
    """Applies the rules, in this order; components are 26-connected and found anew for each rule.

    1. Whole-tumour components (labels 1, 2, 3 together) under `min_wt_mm3` are removed.
    2. Tumour-core components (labels 1, 3) under `min_further_core_mm3` become SNFH where their whole-tumour component
       holds a larger core: specks in the oedema of a lesion. Off in the paper's plan.
    3. NETC components under `min_netc_mm3` become ET.
    4. ET components under `min_further_et_share` of the largest of their tumour core become NETC: specks in the core of
       a large tumour. Off in the paper's plan.
    5. SNFH components under `min_snfh_mm3` are removed.
    6. ET components under `min_et_mm3` are removed; voxels that rule 3 made ET count here.
    7. Components of disjoint regions, such as RC, under `min_disjoint_mm3` are removed.

    "Under" is strict: a component of exactly the threshold stays. A threshold of 0 switches its rule off.

    Args:
        labels: shape (x, y, z), labels of the regions.
        plan: the thresholds.
        regions: of the map; a lesion is a component of the largest.
        voxel_volume_mm3: of the map's grid; 1 on the method's own grid.

    Returns:
        A new map; `labels` is left as it was.
    """
    cleaned = labels.copy(order="K")
    box = bounding_box(labels != BACKGROUND)
    if box is None:
        return cleaned
    part = labels[box].copy(order="C")
    _relabel_small(part, regions.whole_mask(part), plan.min_wt_mm3 / voxel_volume_mm3, BACKGROUND)
    _relabel_further_cores(part, regions, (plan.min_further_core_mm3 or 0) / voxel_volume_mm3)
    _relabel_small(part, part == NETC, plan.min_netc_mm3 / voxel_volume_mm3, ET)
    _relabel_further_enhancement(part, regions, plan.min_further_et_share or 0)
    _relabel_small(part, part == SNFH, plan.min_snfh_mm3 / voxel_volume_mm3, BACKGROUND)
    _relabel_small(part, part == ET, plan.min_et_mm3 / voxel_volume_mm3, BACKGROUND)
    for region in regions.disjoint:
        _relabel_small(part, regions.mask(part, region), plan.min_disjoint_mm3 / voxel_volume_mm3, BACKGROUND)
    cleaned[box] = part
    return cleaned


def _relabel_further_cores(labels: LabelMap, regions: Regions, min_voxels: float) -> None:
    """Makes cores of fewer than `min_voxels` voxels SNFH beside a larger core, in place; `labels` is C-contiguous."""
    if min_voxels <= 1:
        return
    cores, largest = _find_parts(regions.mask(labels, regions.core), regions.whole_mask(labels))
    goes = cores.smaller_than(min_voxels) & (cores.sizes < largest)
    labels.reshape(-1)[cores.pick_voxels(goes)] = SNFH


def _relabel_further_enhancement(labels: LabelMap, regions: Regions, min_share: float) -> None:
    """Makes ET components NETC beside one of which they are a smaller share, in place; `labels` is C-contiguous."""
    if min_share <= 0:
        return
    enhancing, largest = _find_parts(labels == ET, regions.mask(labels, regions.core))
    labels.reshape(-1)[enhancing.pick_voxels(enhancing.sizes < min_share * largest)] = NETC


def _find_parts(parts: NDArray[np.bool_], wholes: NDArray[np.bool_]) -> tuple[Components, NDArray[np.intp]]:
    """The components of `parts`, and the size of the largest in the component of `wholes` that each lies in."""
    found = find_components(parts)
    whole_at = find_components(wholes).to_volume().reshape(-1)
    whole_of = np.zeros(found.count, dtype=np.intp)
    whole_of[found.component_of - 1] = whole_at[found.voxels]
    largest = np.zeros(int(whole_at.max(initial=0)) + 1, dtype=np.intp)
    np.maximum.at(largest, whole_of, found.sizes)
    return found, largest[whole_of]


def _relabel_small(labels: LabelMap, mask: NDArray[np.bool_], min_voxels: float, new_label: int) -> None:
    """Gives the mask's components of fewer than `min_voxels` voxels a new label, in place; `labels` is C-contiguous."""
    if min_voxels <= 1:
        return
    components = find_components(mask)
    labels.reshape(-1)[components.pick_voxels(components.smaller_than(min_voxels))] = new_label
