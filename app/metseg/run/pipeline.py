"""The way of a case, from its files to its label map.

    load_case (read, prepare) -> predict (each member) -> conclude (fuse, postprocess, agreement, restore)

`segment_case` is that way for a prepared case; `metseg.run.batch` drives it over a folder and writes the files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from metseg.decide.agreement import LesionAgreement, lesion_agreement
from metseg.decide.fusion import fuse_labels, fuse_probabilities, keep_confirmed, member_labels
from metseg.decide.size_rules import postprocess
from metseg.errors import InputError
from metseg.files.case import Case, CaseFiles
from metseg.files.read import read_case
from metseg.findings import Finding, missing_note
from metseg.labels import LabelMap
from metseg.plan.plan import FusionPlan, Plan
from metseg.predict.ensemble import (
    Ensemble,
    MemberPrediction,
    plan_layout,
    prefetch_of,
    send_ahead,
    usable_members,
)
from metseg.predict.fallback import predict_within_memory
from metseg.predict.inputs import Prefetch
from metseg.predict.windows import Layout
from metseg.prepare.prepare import PreparedCase, prepare_for_plan
from metseg.run.record import Stopwatch
from metseg.space.grid import Grid
from metseg.space.resampling import labels_to_source
from metseg.systems import Modality

REFERENCE: Modality = "t1c"
"""The modality whose grid and header a label map takes."""

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A case that was read ahead."""

    case: Case
    prepared: PreparedCase
    layout: Layout
    prefetch: Prefetch
    flags: tuple[Finding, ...]
    watch: Stopwatch


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The result of one case.

    Attributes:
        labels: as written, on `grid`.
        grid: the source grid, or the planning CT's where label maps are wanted there.
        network_labels: the same on the network's RAS grid.
        lesions: 26-connected components of `network_labels`.
        members: names of the models that ran.
        agreement: the members' agreement on each lesion.
        predictions: each member's probabilities on the region that the windows cover, `region_start` its first voxel.
        region_start: first voxel of that region on the network's grid.
    """

    labels: LabelMap
    grid: Grid
    network_labels: LabelMap
    lesions: int
    members: tuple[str, ...]
    agreement: tuple[LesionAgreement, ...]
    predictions: tuple[MemberPrediction, ...]
    region_start: tuple[int, int, int]


def load_case(files: CaseFiles, ensemble: Ensemble) -> Loaded:
    """Reads and prepares what the usable members need.

    Raises:
        InputError: an image is missing or can't be used.
    """
    plan, watch = ensemble.plan, Stopwatch()
    _require(files, plan)
    wanted = [modality for modality in (*files.images, *files.rivals) if modality in plan.modalities | {REFERENCE}]
    with watch.stage("read"):
        case = read_case(files, modalities=wanted, source=REFERENCE)
    with watch.stage("prepare"):
        prepared = prepare_for_plan(case, plan)
        layout, prefetch = plan_layout(prepared, plan), prefetch_of(prepared, plan)
        if ensemble.device.is_cuda:  # which would wait for it; a CPU has as much to do either way
            send_ahead(prefetch, ensemble, layout)
    return Loaded(case, prepared, layout, prefetch, _absence(prepared, plan, ensemble), watch)


def _require(files: CaseFiles, plan: Plan) -> None:
    present = {*files.images, *files.rivals}  # of two rival files `read_case` says what is wrong
    if REFERENCE in present and any(member.modalities <= present for member in plan.members):
        return
    missing = sorted((plan.required_modalities | {REFERENCE}) - present) or sorted(plan.modalities - present)
    raise InputError(
        f"case {files.case_id}: {', '.join(missing)} missing in {files.folder}; found {', '.join(sorted(present))}",
        hint=f"Add {files.case_id}-{missing[0]}.nii.gz: no member of {plan.name} works without it.",
    )


def _absence(prepared: PreparedCase, plan: Plan, ensemble: Ensemble) -> tuple[Finding, ...]:
    voting = usable_members(ensemble, prepared)
    missing = sorted(plan.modalities - set(prepared.channels))
    if not missing:
        return ()
    names = ", ".join(member.plan.name for member in voting)
    detail = f"segmented by {names} alone ({len(voting)} of {len(plan.members)} members)"
    return (missing_note(missing, detail),)


def segment_case(
    case: PreparedCase, ensemble: Ensemble, watch: Stopwatch, prefetch: Prefetch | None = None
) -> Segmentation:
    """Segments one prepared case (docs/architecture.md); `prefetch` is `load_case`'s, None makes one here.

    Raises:
        InputError: the case lacks an image that every member reads.
    """
    layout = plan_layout(case, ensemble.plan)
    predictions = predict(case, layout, prefetch or prefetch_of(case, ensemble.plan), ensemble, watch)
    return conclude(case, layout, predictions, ensemble.plan, watch)


def predict(
    case: PreparedCase, layout: Layout, prefetch: Prefetch, ensemble: Ensemble, watch: Stopwatch
) -> tuple[MemberPrediction, ...]:
    """What the networks say: the device's part."""
    with watch.stage("network"):
        return predict_within_memory(case, ensemble, layout, prefetch)


def conclude(
    case: PreparedCase, layout: Layout, predictions: tuple[MemberPrediction, ...], plan: Plan, watch: Stopwatch
) -> Segmentation:
    """Fusion, postprocessing and the way back to the source grid: the processor's part."""
    with watch.stage("fuse"):
        votes = [member_labels(prediction.probabilities, plan.threshold) for prediction in predictions]
        fused = fuse_members(predictions, votes, plan)
    with watch.stage("postprocess"):
        clean = postprocess(fused, plan.postprocess, voxel_volume_mm3=plan.voxel_volume_mm3)
        agreement = lesion_agreement(clean, *divide_members(votes, predictions, plan))
    with watch.stage("restore"):
        network_labels = layout.paste(clean, case.resampling.network.shape)
        labels = labels_to_source(network_labels, case.resampling, plan.regions)
    return Segmentation(
        labels=labels,
        grid=case.resampling.source,
        network_labels=network_labels,
        lesions=len(agreement),
        members=tuple(prediction.name for prediction in predictions),
        agreement=agreement,
        predictions=predictions,
        region_start=layout.start,
    )


def fuse_members(predictions: Sequence[MemberPrediction], votes: Sequence[LabelMap], plan: Plan) -> LabelMap:
    """Fuses a case's members as the plan says.

    Args:
        predictions: one per member that ran, at least one.
        votes: their label maps, in the same order.
        plan: method, threshold, and which members don't vote: they join by maximum, and confirm what is small.
    """
    voting, added = divide_members(votes, predictions, plan)
    voters, _ = divide_members(predictions, predictions, plan)
    fused = _fuse(voters, voting, plan)
    if added and plan.fusion.confirmed_below_mm3 is not None:
        fused = keep_confirmed(fused, added, plan.fusion.confirmed_below_mm3 / plan.voxel_volume_mm3)
    return fuse_labels([fused, *added], FusionPlan(method="maximum")) if added else fused


def divide_members(
    of_members: Sequence[_Item], predictions: Sequence[MemberPrediction], plan: Plan
) -> tuple[tuple[_Item, ...], tuple[_Item, ...]]:
    """What belongs to the members that vote, and what to those that the plan adds by maximum.

    Args:
        of_members: something of each member that ran.
        predictions: of the same members, in the same order; they tell whose it is.
        plan: names whom it adds. Where none of the others could run, these vote.
    """
    added = {item.name for item in predictions} & set(plan.fusion.added_by_maximum)
    if len(added) == len(predictions):
        added = set()
    pairs = list(zip(of_members, predictions, strict=True))
    return (
        tuple(item for item, prediction in pairs if prediction.name not in added),
        tuple(item for item, prediction in pairs if prediction.name in added),
    )


def _fuse(predictions: Sequence[MemberPrediction], votes: Sequence[LabelMap], plan: Plan) -> LabelMap:
    of_probabilities = plan.fusion.method == "mean" or (
        plan.fusion.method == "maximum" and plan.fusion.maximum_of == "probabilities"
    )
    if of_probabilities:
        return fuse_probabilities([item.probabilities for item in predictions], plan.fusion, plan.threshold)
    return fuse_labels(votes, plan.fusion)
