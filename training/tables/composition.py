"""The ladder of a bundle that is there already: is each of its members, its passes and its fusion worth having?"""

from pathlib import Path

from metseg.bundle import open_bundle
from metseg.device import choose_device
from metseg.discovery import discover_cases
from metseg.ensemble import load_ensemble
from metseg.errors import InputError, UsageError
from training.tables.ladder import remembered_scores
from training.tables.scoring import CaseScores, Ladder
from training.tables.stages import TablesRequest

ROLES = ("baseline", "blob", "sub")
"""Of a bundle's members, in the paper's order (Erdur et al. 2023, Table 3)."""


def score_bundle(weights: Path, plan: str | None, request: TablesRequest) -> tuple[CaseScores, ...]:
    """Scores members, TTA, mean, SIMPLE and the bundle as its plan runs it, on cases with references.

    Raises:
        UsageError: the bundle has not three members.
        InputError: there are fewer than two cases.
    """
    ensemble = load_ensemble(open_bundle(weights, plan), choose_device(request.device))
    names = [member.plan.name for member in ensemble.members]
    if len(names) != len(ROLES):
        raise UsageError(
            f"--bundle {weights}: {len(names)} members ({', '.join(names)}), the ladder has {', '.join(ROLES)}",
            hint="Freeze three runs, in this order.",
        )
    cases = [files for folder in request.data for files in discover_cases(folder)]
    if len(cases) < 2:  # noqa: PLR2004 - one case has no spread
        raise InputError(f"--bundle needs cases to score, --data holds {len(cases)}", hint="Give a folder with -seg.")
    ladder = Ladder(ensemble, dict(zip(ROLES, names, strict=True)), ensemble.plan.tta, as_frozen=True)
    return tuple(remembered_scores(files, ladder, request.scores) for files in cases)
