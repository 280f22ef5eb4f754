"""The paper's steps on a bundle that is there already: what each member, its passes and its fusion bring."""

from collections.abc import Iterable
from pathlib import Path

from metseg.errors import InputError, UsageError
from metseg.files.case import CaseFiles
from metseg.files.discovery import missing_modalities
from metseg.findings import listed
from metseg.labels import BRATS_REGIONS
from metseg.plan.bundle import open_bundle
from metseg.plan.plan import Plan
from metseg.predict.device import choose_device
from metseg.predict.engine import load_engine
from training.data.cases import find_plan_cases
from training.tables.experiment import SMALL_VOXELS
from training.tables.model_steps import recall_scores
from training.tables.request import TablesRequest
from training.tables.scoring import CaseScores, ModelSteps

ROLES = ("baseline", "blob", "sub")
"""Of a bundle's voting members, in the paper's order (Erdur et al. 2023, Table 3)."""


def score_bundle(weights: Path, plan: str | None, request: TablesRequest) -> tuple[CaseScores, ...]:
    """Scores members, TTA, mean, SIMPLE and the bundle as its plan runs it, on cases with references.

    A member that the plan adds by maximum is the small-lesion model.

    Raises:
        UsageError: the bundle has not three members that vote, or more than one that is added; it is one of the
            radiosurgery system; or two folders hold a case of the same ID.
        InputError: there are fewer than two cases, or some lack an image that a member reads.
    """
    opened = open_bundle(weights, plan)
    if not opened.plan.system.has_parts:
        raise UsageError(
            f"plan {opened.plan.name}: expected members of {', '.join(BRATS_REGIONS.names)}, found members of "
            f"{', '.join(opened.plan.regions.names)}",
            hint="Segment with `metseg infer` and score with `python -m evaluation score --protocol hu2019`.",
        )
    cases = find_plan_cases(request.data, opened.plan, request.convention)
    _require_images(cases.values(), opened.plan)
    engine = load_engine(opened, choose_device(request.device))
    added = engine.plan.fusion.added_by_maximum
    voting = [member.plan.name for member in engine.members if member.plan.name not in added]
    if len(voting) != len(ROLES) or len(added) > 1:
        names = [*voting, *(f"{name} by maximum" for name in added)]
        raise UsageError(
            f"--bundle {weights}: {len(names)} members ({', '.join(names)}), the paper has {', '.join(ROLES)}",
            hint="Freeze three runs, in this order, with at most one small-lesion model beside them.",
        )
    if len(cases) < 2:  # noqa: PLR2004 - one case has no spread
        raise InputError(f"--bundle needs cases to score, --data holds {len(cases)}", hint="Give a folder with -seg.")
    models = dict(zip((*ROLES, "small"), (*voting, *added), strict=False))
    steps = ModelSteps(engine, models, engine.plan.tta, SMALL_VOXELS if added else 0, as_frozen=True)
    return tuple(recall_scores(files, steps, request.scores) for files in cases.values())


def _require_images(cases: Iterable[CaseFiles], plan: Plan) -> None:
    """Every method needs every case: no member sits out, as one without its images does in inference."""
    lacking = {files.case_id: missing_modalities(files, sorted(plan.modalities)) for files in cases}
    problems = [f"case {case_id} lacks {', '.join(missing)}" for case_id, missing in lacking.items() if missing]
    if problems:
        raise InputError(
            f"--bundle needs {', '.join(sorted(plan.modalities))} of each case: {listed(problems)}",
            hint="Add these images, or leave the cases out of --data.",
        )
