"""The whole way of the tables: cohort, five runs, a bundle of them, scores; each part is continued where it stopped."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from metseg.atomic import write_atomically
from metseg.bundle import open_bundle
from metseg.device import DeviceChoice, choose_device
from metseg.discovery import discover_cases
from metseg.domain import CaseFiles
from metseg.ensemble import load_ensemble
from metseg.errors import InputError
from training.cohort.case import case_id
from training.cohort.writing import write_cohort
from training.data.split import Split, read_split, split_patients, write_split
from training.freeze import FreezeOptions, freeze_bundle
from training.run import SPLIT_FILE, RunRequest, train_run
from training.tables.experiment import MODELS, Experiment
from training.tables.scoring import CaseScores, Ladder, score_ladder

logger = logging.getLogger(__name__)

TRAINING_SHARE = 0.75
"""Of the hours; the rest is for the cohort, inference and scoring."""

SCORES_FORMAT = "tables-1"
"""Changed when the meaning of a stored score changes."""


@dataclass(frozen=True, slots=True)
class LadderRequest:
    """How the tables are made.

    Attributes:
        output: folder of everything: cohort/, prepared/, runs/, bundle/, scores/.
        data: folders of real cases in place of the synthetic cohort.
        hours: for everything; None trains every recipe to its end.
        max_steps: of each run; for trials.
        device: where.
        jobs: processes that make the cohort.
        threads: CPU threads of torch; None for all.
    """

    output: Path
    data: tuple[Path, ...] = ()
    hours: float | None = None
    max_steps: int | None = None
    device: DeviceChoice = "auto"
    jobs: int = 1
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class LadderResult:
    """What the tables are made of.

    Attributes:
        cases: the test cases' scores.
        steps: optimiser steps of each model.
        training_s: seconds of each model's training.
        split: which case was used for what.
        device: where.
    """

    cases: tuple[CaseScores, ...]
    steps: Mapping[str, int]
    training_s: Mapping[str, float]
    split: Split
    device: str


def run_ladder(experiment: Experiment, request: LadderRequest) -> LadderResult:
    """Makes what is missing of the tables.

    Raises:
        InputError: real data leave fewer than two test cases.
    """
    cases, split = _cohort_of(experiment, request)
    steps, training_s = {}, {}
    for model in MODELS:
        progress = train_run(experiment.recipe_of(model), _request_of(model, request))
        steps[model], training_s[model] = progress.step, progress.elapsed_s
        logger.info("model %s: %d steps in %.0f s", model, progress.step, progress.elapsed_s)
    ladder = _freeze(experiment, request)
    scored = [_scored(cases[case_id], ladder, request.output / "scores") for case_id in split.test]
    return LadderResult(
        cases=tuple(scored),
        steps=steps,
        training_s=training_s,
        split=split,
        device=ladder.ensemble.device.description,
    )


def _cohort_of(experiment: Experiment, request: LadderRequest) -> tuple[dict[str, CaseFiles], Split]:
    """The cases, and the split that all five runs share."""
    path = request.output / SPLIT_FILE
    request.output.mkdir(parents=True, exist_ok=True)
    if request.data:
        cases = {files.case_id: files for folder in request.data for files in discover_cases(folder)}
        split = (
            read_split(path, cases) if path.exists() else split_patients(cases, experiment.recipe_of("baseline").split)
        )
    else:
        _complete_cohort(experiment, request)
        cases = {files.case_id: files for files in discover_cases(request.output / "cohort")}
        names, plan = sorted(cases), experiment.cohort
        ends = (plan.train, plan.train + plan.validation)
        split = Split(tuple(names[: ends[0]]), tuple(names[ends[0] : ends[1]]), tuple(names[ends[1] :]))
    if len(split.test) < 2:  # noqa: PLR2004 - one case has no spread
        raise InputError(f"the tables need test cases, the split leaves {len(split.test)}", hint="Give more data.")
    write_split(path, split)
    return cases, split


def _complete_cohort(experiment: Experiment, request: LadderRequest) -> None:
    """Makes the cases from the first that is not there; a reference is written last: a case that has it is complete."""
    plan, folder = experiment.cohort, request.output / "cohort"
    count, made = plan.train + plan.validation + plan.test, 0
    while made < count and (folder / case_id(made) / f"{case_id(made)}-seg.nii.gz").is_file():
        made += 1
    settings = plan.cohort_settings()
    for written in write_cohort(
        settings, cases=count - made, seed=plan.seed, output=folder, jobs=request.jobs, first=made
    ):
        logger.info("cohort: %s, %d lesions", written.case_id, len(written.lesions))


def _request_of(model: str, request: LadderRequest) -> RunRequest:
    hours = request.hours * TRAINING_SHARE / len(MODELS) if request.hours else None
    return RunRequest(
        data=request.data or (request.output / "cohort",),
        output=_run_folder(model, request),
        cache=request.output / "prepared",
        split=request.output / SPLIT_FILE,
        max_hours=hours,
        max_steps=request.max_steps,
        device=request.device,
        threads=request.threads,
    )


def _run_folder(model: str, request: LadderRequest) -> Path:
    return request.output / "runs" / model


def _freeze(experiment: Experiment, request: LadderRequest) -> Ladder:
    plan = {
        "window": experiment.window.model_dump(mode="json"),
        "threshold": experiment.threshold,
        "postprocess": experiment.postprocess.model_dump(mode="json"),
    }
    bundle = request.output / "bundle"
    runs = [_run_folder(model, request) for model in MODELS]
    freeze_bundle(runs, bundle, FreezeOptions(name="tables", plan=plan, checkpoint="last"))
    ensemble = load_ensemble(open_bundle(bundle), choose_device(request.device))
    names = {model: experiment.recipe_of(model).name for model in MODELS}
    return Ladder(ensemble, names, experiment.tta, experiment.small_voxels)


def _scored(files: CaseFiles, ladder: Ladder, folder: Path) -> CaseScores:
    """A case's scores, from disk where the same models made them before."""
    path = folder / _key_of(ladder) / f"{files.case_id}.json"
    return _remembered(path, lambda: score_ladder(files, ladder))


def _key_of(ladder: Ladder) -> str:
    """Hash of what scores depend on. The members' files hold a git revision too: their tensors are hashed instead."""
    ensemble = ladder.ensemble
    settings = ensemble.plan.model_dump(mode="json", exclude={"members"})
    facts = [SCORES_FORMAT, settings, ladder.tta.model_dump(), ladder.small_voxels, ensemble.device.precision]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for member in ensemble.members:
        for name, tensor in member.network.state_dict().items():
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _remembered(path: Path, make: Callable[[], CaseScores]) -> CaseScores:
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        scores = {
            name: {region: tuple(figures) for region, figures in regions.items()}
            for name, regions in found["scores"].items()
        }
        return CaseScores(found["case_id"], found["has_small_lesion"], scores)
    scored = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(scored)).encode())
    logger.info("scored %s", scored.case_id)
    return scored
