"""`metseg check`: every problem of every case, found by the rules that reading a case applies, without a network."""

from collections.abc import Sequence
from pathlib import Path

from metseg.errors import InputError
from metseg.files.discovery import MODALITIES, survey_cases
from metseg.files.rules import examine_case
from metseg.findings import Problem, errors_of, problems_table
from metseg.space.domain import CaseFiles, Modality

__all__ = ["Problem", "check_case", "check_cases", "errors_of", "problems_table"]


def check_cases(
    data_path: Path,
    *,
    required: Sequence[Modality] = MODALITIES,
    optional: Sequence[Modality] = (),
    reference: Modality = "t1c",
) -> tuple[Problem, ...]:
    """Looks at every case of a folder.

    Args:
        data_path: the folder (see `metseg.files.discovery.discover_cases`).
        required: modalities without which a case can't be segmented; the reference always is.
        optional: modalities without which some members of a bundle are left out.
        reference: the modality whose grid the others must have.

    Returns:
        What is wrong with the folder, then with its cases in the order of their IDs; empty when nothing is.
    """
    try:
        survey = survey_cases(data_path, modalities=_known(required, optional, reference))
    except InputError as error:
        return (Problem("", "error", "no-case", str(error), error.hint),)
    found = [check_case(files, required=required, optional=optional, reference=reference) for files in survey.cases]
    return (*survey.problems, *(problem for problems in found for problem in problems))


def check_case(
    files: CaseFiles,
    *,
    required: Sequence[Modality] = MODALITIES,
    optional: Sequence[Modality] = (),
    reference: Modality = "t1c",
) -> tuple[Problem, ...]:
    """Looks at one case; see `check_cases`. One image is in memory at a time."""
    examined = examine_case(
        files,
        required=tuple(dict.fromkeys((reference, *required))),
        optional=optional,
        reference=reference,
    )
    return tuple(problem for modality in examined for problem in modality.problems)


def _known(required: Sequence[Modality], optional: Sequence[Modality], reference: Modality) -> tuple[Modality, ...]:
    """All modalities that make a folder a case; the challenge's do even when they are not read."""
    return tuple(dict.fromkeys((*MODALITIES, reference, *required, *optional)))
