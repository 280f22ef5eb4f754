"""Scoring many cases: all or nothing, in parallel, in an order that doesn't depend on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from evaluation.cohort import CasePair, Cohort
from evaluation.processes import map_in_processes
from evaluation.results import CaseScores, ScoringProtocol
from evaluation.same_grid import check_same_grid, read_grid, read_spacing
from metseg.errors import InputError
from metseg.files.read import read_label_map
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
    """

    case_id: str
    scores: CaseScores
    affine: Affine
    missing: bool


def score_cohort(
    cohort: Cohort,
    protocol: ScoringProtocol,
    jobs: int = 1,
    on_progress: Callable[[], None] = lambda: None,
) -> tuple[ScoredCase, ...]:
    """Scores every case.

    Args:
        cohort: the cases.
        protocol: how to score.
        jobs: processes; 1 scores in this one. The result doesn't depend on it.
        on_progress: called once per finished case.

    Raises:
        InputError: some maps can't be scored; every one of them is named, grids before labels.
    """
    errors = [error for case in cohort.cases if (error := _check_case(case))]
    _raise_together(errors, len(cohort.cases))
    scored, errors = [], []
    work = partial(_score_pair, protocol=protocol)
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


def _score_pair(case: CasePair, protocol: ScoringProtocol) -> ScoredCase | InputError:
    try:
        reference = read_label_map(case.reference)
        spacing_mm = read_spacing(reference.header, case.reference)
        if case.prediction is None:
            scores = protocol.score_missing(reference.labels, spacing_mm)
        else:
            prediction = read_label_map(case.prediction)
            scores = protocol.score(reference.labels, prediction.labels, spacing_mm)
    except InputError as error:
        return error
    return ScoredCase(case.case_id, scores, reference.grid.affine, missing=case.prediction is None)


def _raise_together(errors: Sequence[InputError], cases: int) -> None:
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0]
    lines = [f"- {error}" for error in errors[:LISTED_ERRORS]]
    if len(errors) > LISTED_ERRORS:
        lines.append(f"- and {len(errors) - LISTED_ERRORS} more")
    raise InputError("\n".join([f"{len(errors)} of {cases} cases can't be scored:", *lines]), hint=errors[0].hint)
