"""Postprocessing of the fused label map: components too small to be believed go (Erdur et al. 2023, section 2.8)."""

import numpy as np
from numpy.typing import NDArray

from metseg.labels import BACKGROUND, ET, NETC, SNFH, LabelMap, whole_tumour
from metseg.plan.plan import PostprocessPlan
from metseg.space.components import bounding_box, find_components


def postprocess(labels: LabelMap, plan: PostprocessPlan, *, voxel_volume_mm3: float = 1.0) -> LabelMap:
    """Applies the rules, in this order; components are 26-connected and found anew for each rule.

    1. Whole-tumour components (labels 1, 2, 3 together) under `min_wt_mm3` are removed.
    2. Tumour-core components (labels 1, 3) under `min_further_core_mm3` become SNFH where their whole-tumour component
       holds a larger core: specks in the oedema of a lesion. Off in the paper's plan.
    3. NETC components under `min_netc_mm3` become ET.
    4. SNFH components under `min_snfh_mm3` are removed.
    5. ET components under `min_et_mm3` are removed; voxels that rule 3 made ET count here.

    "Under" is strict: a component of exactly the threshold stays. A threshold of 0 switches its rule off.

    Args:
        labels: shape (x, y, z), labels 0..4; label 4 (RC) is neither counted nor changed.
        plan: the thresholds.
        voxel_volume_mm3: of the map's grid; 1 on the method's own grid.

    Returns:
        A new map; `labels` is left as it was.
    """
    cleaned = labels.copy(order="K")
    box = bounding_box(labels != BACKGROUND)
    if box is None:
        return cleaned
    part = labels[box].copy(order="C")
    _relabel_small(part, whole_tumour(part), plan.min_wt_mm3 / voxel_volume_mm3, BACKGROUND)
    _relabel_further_cores(part, (plan.min_further_core_mm3 or 0) / voxel_volume_mm3)
    _relabel_small(part, part == NETC, plan.min_netc_mm3 / voxel_volume_mm3, ET)
    _relabel_small(part, part == SNFH, plan.min_snfh_mm3 / voxel_volume_mm3, BACKGROUND)
    _relabel_small(part, part == ET, plan.min_et_mm3 / voxel_volume_mm3, BACKGROUND)
    cleaned[box] = part
    return cleaned


def _relabel_further_cores(labels: LabelMap, min_voxels: float) -> None:
    """Makes cores of fewer than `min_voxels` voxels SNFH beside a larger core, in place; `labels` is C-contiguous."""
    if min_voxels <= 1:
        return
    cores = find_components((labels == NETC) | (labels == ET))
    lesions = find_components(whole_tumour(labels)).to_volume().reshape(-1)
    lesion_of_core = np.zeros(cores.sizes.size, dtype=np.intp)
    lesion_of_core[cores.component_of - 1] = lesions[cores.voxels]
    largest = np.zeros(int(lesions.max(initial=0)) + 1, dtype=np.intp)
    np.maximum.at(largest, lesion_of_core, cores.sizes)
    goes = cores.smaller_than(min_voxels) & (cores.sizes < largest[lesion_of_core])
    labels.reshape(-1)[cores.voxels_of(goes)] = SNFH


def _relabel_small(labels: LabelMap, mask: NDArray[np.bool_], min_voxels: float, new_label: int) -> None:
    """Gives the mask's components of fewer than `min_voxels` voxels a new label, in place; `labels` is C-contiguous."""
    if min_voxels <= 1:
        return
    components = find_components(mask)
    labels.reshape(-1)[components.voxels_of(components.smaller_than(min_voxels))] = new_label
