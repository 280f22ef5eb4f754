"""`scripts/keep-run`: what is kept of a run, and what the kept folder is good for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metseg.errors import UsageError, WeightsError
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.runs.checkpoint import read_checkpoint, trained_weights
from training.runs.end import Ended
from training.runs.files import BEST, LAST
from training.runs.kept import find_kept_run, keep_run
from training.runs.metrics import read_metrics
from training.train.run import RunRequest, train_run
from training_support import small_recipe, write_labelled_cohort

ROOT = Path(__file__).parents[2]
STEPS = 52


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def recipe():
    return small_recipe(
        split={"train": 0.75, "validation": 0.25},
        crops={"per_case": 1},
        loss={"vae_weight": 0.1},
        optimizer={"ema_decay": 0.9},
        validation={"every_epochs": 20},
        epochs=100,
    )


@pytest.fixture(scope="module")
def ran(root, recipe):
    """A run with a VAE branch and averaged weights, validated at steps 40 and 52."""
    data = write_labelled_cohort(root / "data", 4)
    request = RunRequest((data,), root / "run", root / "cache", max_steps=STEPS, device="cpu", threads=1, workers=0)
    return request, train_run(recipe, request)


@pytest.fixture
def kept(ran, tmp_path):
    root = ran[0].output.parent
    command = [sys.executable, ROOT / "scripts/keep-run", root / "run", tmp_path / "kept"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert "MB of weights" in said
    return tmp_path / "kept"


def test_a_kept_run_has_half_the_averaged_weights_and_a_thinned_log(root, ran, kept):
    assert {path.name for path in kept.iterdir()} == {
        LAST, "recipe.yaml", "run.json", "split.json", "metrics.jsonl"
    }  # fmt: skip
    tensors, progress = read_checkpoint(kept / LAST)
    assert progress == ran[1]
    average = trained_weights(root / "run" / LAST)
    wanted = {f"model.net.{name}": tensor for name, tensor in average.items() if not name.startswith("vae")}
    assert tensors.keys() == wanted.keys() != {f"model.net.{name}" for name in average}
    assert all(torch.equal(tensors[name], tensor.half()) for name, tensor in wanted.items())
    lines = [(line["kind"], line["step"]) for line in read_metrics(kept)]
    assert lines == [("validation", 40), ("train", 50), ("validation", STEPS)]
    described = json.loads((kept / "run.json").read_text())
    assert not {"entries", "cache"} & described.keys()
    assert described["recipe_sha256"] == progress.recipe_sha256


def test_a_kept_run_is_known_as_finished_and_does_not_go_on(root, ran, kept, recipe):
    request, progress = ran
    assert find_kept_run(kept) == Ended(progress.step, progress.elapsed_s)
    assert find_kept_run(root / "run") is None
    assert find_kept_run(root / "nothing") is None
    with pytest.raises(UsageError, match="without the optimiser's state"):
        train_run(recipe, RunRequest(request.data, kept, request.cache, device="cpu", threads=1, workers=0))


def test_the_best_checkpoint_is_kept_with_the_steps_of_the_whole_run(root, ran, tmp_path):
    keep_run(root / "run", tmp_path / "kept")
    keep_run(root / "run", tmp_path / "kept", BEST)
    assert not (tmp_path / "kept" / LAST).exists()
    found = find_kept_run(tmp_path / "kept")
    assert (found.step, found.elapsed_s) == (STEPS, ran[1].elapsed_s)
    assert read_checkpoint(tmp_path / "kept" / BEST)[1].step in {40, STEPS}


def test_a_kept_run_that_does_not_say_where_it_ended_ended_at_its_checkpoint(kept):
    content = json.loads((kept / "run.json").read_text())
    del content["ended"]
    (kept / "run.json").write_text(json.dumps(content))
    assert find_kept_run(kept).step == STEPS


def test_other_runs_begin_with_a_kept_one(ran, kept, recipe, tmp_path):
    request, _ = ran
    plain = recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"vae_weight": 0.0}), "name": "plain"})
    options = {"init": kept, "max_steps": 1, "device": "cpu", "threads": 1, "workers": 0}
    assert train_run(plain, RunRequest(request.data, tmp_path / "next", request.cache, **options)).step == 1


def test_a_kept_run_is_frozen_as_the_whole_one(root, ran, kept, tmp_path):
    request, _ = ran
    with pytest.raises(UsageError, match="prepared volumes of case"):
        freeze_bundle([kept], tmp_path / "none", FreezeOptions(name="b"))
    options = FreezeOptions(name="b", half=True, checkpoint="last", cache=request.cache)
    plans = [freeze_bundle([run], tmp_path / run.name, options) for run in (root / "run", kept)]
    files = [(tmp_path / name / plans[0].members[0].weights).read_bytes() for name in ("run", "kept")]
    assert len(files[0]) > 10000
    weights = [file[8 + int.from_bytes(file[:8], "little") :] for file in files]
    assert weights[0] == weights[1]
    headers = [json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])["__metadata__"] for file in files]
    assert headers[0]["data_sha256"] == headers[1]["data_sha256"]


def test_what_is_no_run_or_too_large_is_refused(ran, tmp_path, monkeypatch):
    run = ran[0].output
    with pytest.raises(UsageError, match=r"no recipe\.yaml"):
        keep_run(tmp_path, tmp_path / "kept")
    with pytest.raises(UsageError, match="its own folder"):
        keep_run(run, run)
    monkeypatch.setattr("training.runs.kept.trained_weights", lambda _: {"layer": torch.tensor([1e6])})
    with pytest.raises(WeightsError, match="beyond half precision"):
        keep_run(run, tmp_path / "kept")
