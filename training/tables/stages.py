"""The stages that both papers' tables share beside the runs: a cohort, its split, the key of a case's scores."""

import fcntl
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metseg.errors import UsageError
from metseg.files.atomic import write_atomically
from metseg.predict.engine import Engine
from training.cohort.settings import CohortSettings
from training.cohort.writing import write_cohort
from training.data.split import Split
from training.systems import BRATS_TRAINING, TrainingSystem
from training.tables.experiment import CohortPlan

logger = logging.getLogger(__name__)


def complete_cohort(
    settings: CohortSettings,
    *,
    seed: int,
    folder: Path,
    cases: int,
    jobs: int = 1,
    system: TrainingSystem = BRATS_TRAINING,
) -> None:
    """Makes the cases from the first that is not there; a reference is written last: a case that has it is complete.

    A second process waits for the first and finds its cases.

    Raises:
        UsageError: the folder holds a cohort of another seed or other settings, as the file beside it says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _require_same(settings, seed, folder)
        made = 0
        while made < cases:
            case_id = system.name_case(made)
            if not (folder / case_id / f"{case_id}-seg.nii.gz").is_file():
                break
            made += 1
        remaining = write_cohort(
            settings, cases=cases - made, seed=seed, output=folder, jobs=jobs, first=made, simulate=system.simulate
        )
        for written in remaining:
            logger.info("%s: %s, %d lesions", folder.name, written.case_id, len(written.lesions))


def _require_same(settings: CohortSettings, seed: int, folder: Path) -> None:
    """Nobody trains on cases of two simulators: `<folder>.json` keeps what they are made with, also without them."""
    facts = {"seed": seed, "settings": settings.model_dump(mode="json")}
    path = folder.with_suffix(".json")
    if not path.exists():
        write_atomically(path, json.dumps(facts, indent=1).encode())
    elif json.loads(path.read_text(encoding="utf-8")) != facts:
        raise UsageError(
            f"{folder} was made with another seed or other settings ({path.name} has them)",
            hint="Name another --output, or remove that folder, the file beside it, and the runs.",
        )


def split_in_order(names: Sequence[str], plan: CohortPlan) -> Split:
    """The first cases to train on, the next to choose by, the rest to test on."""
    ends = (plan.train, plan.train + plan.validation)
    return Split(tuple(names[: ends[0]]), tuple(names[ends[0] : ends[1]]), tuple(names[ends[1] :]))


def make_scores_key(engine: Engine, facts: Sequence[Any]) -> str:
    """Hash of what a case's scores depend on: the networks' tensors, the plan, the arithmetic, and `facts`.

    Not the members' files, which hold a git revision too. Facts are JSON values.
    """
    plan = engine.plan
    settings = plan.model_dump(mode="json", exclude={"members"})
    windows: list[object] = [plan.choose_window(member.plan).model_dump(mode="json") for member in engine.members]
    windows += [member.plan.spacing_mm for member in engine.members if member.plan.spacing_mm is not None]
    content = json.dumps([*facts, settings, windows, engine.device.precision], sort_keys=True)
    digest = hashlib.sha256(content.encode())
    for member in engine.members:
        for name, tensor in member.parameters.items():
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
