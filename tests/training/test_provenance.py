"""What a run began with: written once, kept when it goes on, handed on to the frozen member."""

import hashlib
import json
from pathlib import Path

import pytest

from metseg.errors import UsageError
from metseg.plan.bundle import read_metadata
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.provenance import record_provenance
from training.runs.files import LAST
from training.train.run import RunRequest, train_run
from training_support import small_recipe, write_labelled_cohort

RECIPE = small_recipe(split={"train": 0.75, "validation": 0.25})
OTHER = small_recipe(name="other", split={"train": 0.75, "validation": 0.25})


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def train(root, name, recipe=RECIPE, *, steps=1, init=None):
    request = RunRequest(
        (root / "data",), root / name, root / "cache", init=init, max_steps=steps, device="cpu", threads=1, workers=0
    )
    train_run(recipe, request)
    return root / name


def run_json(run, **changes):
    """The run's record; with `changes`, written anew with these keys, None for taking one out."""
    path = run / "run.json"
    content = json.loads(path.read_text())
    if changes:
        content = {key: value for key, value in (content | changes).items() if value is not None}
        path.write_text(json.dumps(content))
    return content


def begun_with(run, folder):
    plan = freeze_bundle([run], folder, FreezeOptions(name="b"))
    path = folder / plan.members[0].weights
    return json.loads(read_metadata(path.read_bytes(), path)["begun_with"])


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_labelled_cohort(root / "data", 4)
    return train(root, "first")


def test_a_run_from_random_weights_says_so(first, tmp_path):
    expected = {"init": None, "init_sha256": None, "predictions_sha256": None}
    assert begun_with(first, tmp_path / "b") == expected
    assert run_json(first)["predictions"] == []


@pytest.mark.parametrize("by_folder", [True, False])
def test_the_checkpoint_that_a_run_began_with_is_hashed_and_stays(first, tmp_path, by_folder):
    root, start = first.parent, first / LAST
    init = first if by_folder else start
    run = train(root, f"second-{by_folder}", OTHER, init=init)
    began = {"init": init.name, "init_sha256": sha256(start), "predictions_sha256": None}
    assert run_json(run).items() >= began.items()
    for number, named in enumerate((None, run, init), start=2):  # forgotten, another one, the same
        train(root, run.name, OTHER, init=named, steps=number)
        assert run_json(run).items() >= began.items()
    assert begun_with(run, tmp_path / "b") == began


def test_a_run_that_stopped_before_its_first_checkpoint_begins_anew(first):
    run = train(first.parent, "anew", OTHER, init=first)
    (run / LAST).unlink()
    train(first.parent, "anew", OTHER)
    assert (run_json(run)["init"], run_json(run)["init_sha256"]) == (None, None)


def test_nothing_is_made_up_of_an_older_run(first, tmp_path):
    run = train(first.parent, "older", OTHER, init=first)
    run_json(run, init_sha256=None, predictions_sha256=None)
    assert begun_with(run, tmp_path / "a") == {"init": "first"}
    train(first.parent, "older", OTHER, init=first, steps=2)
    assert "init_sha256" not in run_json(run)
    assert begun_with(run, tmp_path / "b") == {"init": "first"}


def digest_of(*folders):
    return record_provenance(None, None, folders)["predictions_sha256"]


def test_label_maps_are_hashed_by_name_content_and_order(tmp_path):
    for folder, files in {
        "one": {"A.nii.gz": b"1", "B.nii.gz": b"2", "notes.txt": b"not a map"},
        "same": {"B.nii.gz": b"2", "A.nii.gz": b"1", "notes.txt": b"other"},
        "renamed": {"A.nii.gz": b"1", "C.nii.gz": b"2"},
        "changed": {"A.nii.gz": b"1", "B.nii.gz": b"3"},
    }.items():
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
    one, same, renamed, changed = (tmp_path / name for name in ("one", "same", "renamed", "changed"))
    assert digest_of(one) == digest_of(same)
    assert len({digest_of(folder) for folder in (one, renamed, changed)}) == 3
    assert digest_of(one, changed) != digest_of(changed, one)
    assert digest_of() is None


def test_a_start_that_is_not_there_is_named():
    path = Path("nowhere") / LAST
    with pytest.raises(UsageError, match=r"--init nowhere/last\.safetensors: can't be read: No such file"):
        record_provenance(path.parent, path, ())
