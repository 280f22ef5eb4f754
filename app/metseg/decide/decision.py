"""From what the members say to one label map: thresholds, fusion, confirmation, size rules, agreement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from metseg.decide.agreement import LesionAgreement, lesion_agreement
from metseg.decide.confirmation import keep_confirmed
from metseg.decide.fusion import fuse_labels, fuse_probabilities
from metseg.decide.size_rules import apply_size_rules
from metseg.decide.threshold import member_labels
from metseg.labels import LabelMap
from metseg.plan.plan import FusionPlan, Plan
from metseg.predict.members import MemberPrediction, Predictions

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Decision:
    """One label map of a case.

    Attributes:
        labels: on the box of the network's grid that the predictions cover.
        predictions: what it was made from.
        agreement: the members' agreement on each lesion, a 26-connected component of the largest region.
    """

    labels: LabelMap
    predictions: Predictions
    agreement: tuple[LesionAgreement, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the models that ran."""
        return tuple(prediction.name for prediction in self.predictions.members)


def decide(predictions: Predictions, plan: Plan) -> Decision:
    """Decides on a label map as the plan says (docs/fusion.md)."""
    members = predictions.members
    votes = [member_labels(member.probabilities, plan.threshold, plan.regions) for member in members]
    fused = fuse_members(members, votes, plan)
    labels = apply_size_rules(fused, plan.postprocess, plan.regions, voxel_volume_mm3=plan.voxel_volume_mm3)
    agreement = lesion_agreement(labels, *divide_members(votes, members, plan), regions=plan.regions)
    return Decision(labels, predictions, agreement)


def fuse_members(members: Sequence[MemberPrediction], votes: Sequence[LabelMap], plan: Plan) -> LabelMap:
    """Fuses a case's members as the plan says.

    Args:
        members: what those say that ran, at least one.
        votes: their label maps, in the same order.
        plan: method, threshold, and which members don't vote: they join by maximum, and confirm what is small.
    """
    voting, added = divide_members(votes, members, plan)
    voters, _ = divide_members(members, members, plan)
    fused = _fuse(voters, voting, plan)
    if added and plan.fusion.confirmed_below_mm3 is not None:
        below_voxels = plan.fusion.confirmed_below_mm3 / plan.voxel_volume_mm3
        fused = keep_confirmed(fused, added, below_voxels, plan.regions)
    return fuse_labels([fused, *added], FusionPlan(method="maximum"), plan.regions) if added else fused


def divide_members(
    items: Sequence[_Item], members: Sequence[MemberPrediction], plan: Plan
) -> tuple[tuple[_Item, ...], tuple[_Item, ...]]:
    """Divides what belongs to the members that vote from what belongs to those that the plan adds by maximum.

    Args:
        items: something of each member that ran.
        members: the same members, in the same order.
        plan: names whom it adds. Where none of the others could run, these vote.
    """
    added = {member.name for member in members} & set(plan.fusion.added_by_maximum)
    if len(added) == len(members):
        added = set()
    pairs = list(zip(items, members, strict=True))
    return (
        tuple(item for item, member in pairs if member.name not in added),
        tuple(item for item, member in pairs if member.name in added),
    )


def _fuse(members: Sequence[MemberPrediction], votes: Sequence[LabelMap], plan: Plan) -> LabelMap:
    takes_probabilities = plan.fusion.method == "mean" or (
        plan.fusion.method == "maximum" and plan.fusion.maximum_of == "probabilities"
    )
    if takes_probabilities:
        probabilities = [member.probabilities for member in members]
        return fuse_probabilities(probabilities, plan.fusion, plan.threshold, plan.regions)
    return fuse_labels(votes, plan.fusion, plan.regions)
