"""Scoring many cases: all or nothing, in parallel, in an order that doesn't depend on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from evaluation.cohort import CasePair, Cohort
from evaluation.processes import map_in_processes
from evaluation.results import CaseScores, ScoringProtocol
from evaluation.same_grid import check_same_grid, read_grid, read_spacing
from metseg.errors import InputError
from metseg.files.label_sets import require_clear_files
from metseg.files.read import read_label_map
from metseg.labels import LabelConvention, tells_et_from_rc
from metseg.space.grid import Affine

LISTED_ERRORS = 10


@dataclass(frozen=True, slots=True)
class ScoredCase:
    """Scores of one case of a cohort.

    Attributes:
        case_id: see CasePair.
        scores: what the protocol returned.
        affine: voxel indices of the reference to RAS+ millimetres.
        missing: there was no prediction.
        convention: what the user says label 4 means.
    """

    case_id: str
    scores: CaseScores
    affine: Affine
    missing: bool
    convention: LabelConvention | None = None


def score_cohort(
    cohort: Cohort,
    protocol: ScoringProtocol,
    jobs: int = 1,
    on_progress: Callable[[], None] = lambda: None,
    *,
    convention: LabelConvention | None = None,
) -> tuple[ScoredCase, ...]:
    """Scores every case.

    Args:
        cohort: the cases.
        protocol: how to score.
        jobs: processes; 1 scores in this one. The result doesn't depend on it.
        on_progress: called once per finished case.
        convention: what label 4 means in the references and in the predictions; needed where they leave it open.

    Raises:
        InputError: some maps can't be scored; every one of them is named, grids before labels. Or label 4 of the
            references or of the predictions could mean two things (`metseg.files.label_sets`).
    """
    errors = [error for case in cohort.cases if (error := _check_case(case))]
    _raise_together(errors, len(cohort.cases))
    if tells_et_from_rc(protocol.scored_regions):
        predictions = [case.prediction for case in cohort.cases if case.prediction is not None]
        require_clear_files([case.reference for case in cohort.cases], "references", convention)
        require_clear_files(predictions, "predictions", convention)
    scored, errors = [], []
    work = partial(_score_pair, protocol=protocol, convention=convention)
    for outcome in map_in_processes(work, cohort.cases, min(jobs, len(cohort.cases))):
        on_progress()
        if isinstance(outcome, InputError):
            errors.append(outcome)
        else:
            scored.append(outcome)
    _raise_together(errors, len(cohort.cases))
    return tuple(scored)


def _check_case(case: CasePair) -> InputError | None:
    """Compares the headers: cheap, so that a wrong grid shows before the first case is scored."""
    try:
        reference = read_grid(case.reference)
        if case.prediction is not None:
            check_same_grid(reference, read_grid(case.prediction))
    except InputError as error:
        return error
    return None


def _score_pair(
    case: CasePair, protocol: ScoringProtocol, convention: LabelConvention | None
) -> ScoredCase | InputError:
    try:
        reference = read_label_map(case.reference, convention=convention)
        spacing_mm = read_spacing(reference.header, case.reference)
        if case.prediction is None:
            scores = protocol.score_missing(reference.labels, spacing_mm)
        else:
            prediction = read_label_map(case.prediction, convention=convention)
            scores = protocol.score(reference.labels, prediction.labels, spacing_mm)
    except InputError as error:
        return error
    return ScoredCase(
        case.case_id, scores, reference.grid.affine, missing=case.prediction is None, convention=convention
    )


def _raise_together(errors: Sequence[InputError], cases: int) -> None:
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0]
    lines = [f"- {error}" for error in errors[:LISTED_ERRORS]]
    if len(errors) > LISTED_ERRORS:
        lines.append(f"- and {len(errors) - LISTED_ERRORS} more")
    raise InputError("\n".join([f"{len(errors)} of {cases} cases can't be scored:", *lines]), hint=errors[0].hint)
