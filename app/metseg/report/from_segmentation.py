"""From a fresh segmentation to what its report is made of: labels, images and votes on the label map's grid."""

from collections.abc import Mapping

import numpy as np

from metseg.plan.plan import Plan
from metseg.plan.radiosurgery import RadiosurgeryIntensityPlan
from metseg.prepare.radiosurgery import window_hounsfield
from metseg.prepare.registration import AIR_HU, Registration
from metseg.report.case_report import Evidence
from metseg.report.votes import collect_votes, votes_on_ct
from metseg.run.pipeline import Segmented
from metseg.space.grid import Affine, FloatVolume
from metseg.space.rigid import resample_rigid
from metseg.systems import Modality


def collect_evidence(segmented: Segmented, plan: Plan) -> Evidence:
    """What a fresh segmentation is measured and drawn on.

    Args:
        segmented: with the members' predictions.
        plan: that it ran by.

    Returns:
        Everything on the label map's grid; where a CT was registered, both images, so that the eye can check it.
    """
    case, found = segmented.case, segmented.registration
    images, on_ct = case.images, False
    if found is not None:
        on_ct = segmented.grid is case.scans["ct"].grid
        images = _images_on(segmented, found, plan, on_ct=on_ct)
    if found is not None and on_ct:
        votes = votes_on_ct(segmented, plan, found.mr_to_ct)
    else:
        votes = collect_votes(segmented, plan)
    return Evidence(
        segmented.grid,
        segmented.labels,
        images,
        votes,
        system=plan.system.name,
        label_grid="ct" if on_ct else "t1c",
    )


def _images_on(segmented: Segmented, found: Registration, plan: Plan, *, on_ct: bool) -> Mapping[Modality, FloatVolume]:
    """The MR and the CT in its brain window, each brought through the transform where it isn't on the grid already."""
    case = segmented.case
    ct, mr = case.scans["ct"], case.images["t1c"]
    hounsfield = ct.voxels
    if on_ct:
        to_mr: Affine = np.linalg.inv(found.mr_to_ct).astype(np.float64)
        mr = resample_rigid(mr, case.grid, ct.grid, to_mr, outside=0.0)
    else:
        hounsfield = resample_rigid(ct.voxels, ct.grid, segmented.grid, found.mr_to_ct, outside=AIR_HU)
    window = plan.intensity
    if not isinstance(window, RadiosurgeryIntensityPlan):  # a plan with a CT has no other
        return {"t1c": mr}
    return {"t1c": mr, "ct": window_hounsfield(hounsfield, window)}
