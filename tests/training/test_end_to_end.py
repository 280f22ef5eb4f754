"""From a cohort to scores: train four members, freeze them, segment with `metseg infer`, score."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from metseg.__main__ import run
from metseg.errors import ExitCode
from support import folder_bytes, names_in
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.train.run import RunRequest, train_run
from training_support import small_recipe, write_labelled_cohort

ROOT = Path(__file__).parents[2]
SUB = ("t1n", "t1c", "t2f", "sub")
WINDOW = {"window": {"size": [32, 40, 16], "overlap": 0.5}, "tta": {"variant": "none"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Four members of the paper, a few steps each, frozen."""
    root = tmp_path_factory.mktemp("e2e")
    data = write_labelled_cohort(root / "train", 4)
    write_labelled_cohort(root / "test", 4, first_seed=50)
    recipes = [
        small_recipe(name="baseline", loss={"dice_ce_weight": 1, "blob_weight": 0}),
        small_recipe(name="blob"),
        small_recipe(name="blob_sub", data={"channels": SUB}),
        small_recipe(name="small_lesions", data={"channels": SUB, "max_lesion_voxels": 150}),
    ]
    for recipe in recipes:
        request = RunRequest(
            (data,), root / recipe.name, root / "cache", max_steps=8, device="cpu", threads=1, workers=0
        )
        train_run(recipe, request)
    options = FreezeOptions(name="four", plan=WINDOW, small_lesions=root / "small_lesions")
    freeze_bundle([root / recipe.name for recipe in recipes[:3]], root / "bundle", options)
    return root


def infer(trained, output, *options):
    arguments = ["infer", f"--data-path={trained / 'test'}", f"--weights={trained / 'bundle'}", "--device=cpu"]
    return run([*arguments, f"--output-path={output}", *options])


@pytest.fixture(scope="module")
def segmented(trained):
    for name, options in (("plain", ()), ("small", ("--plan=small_lesions",))):
        assert infer(trained, trained / name, *options) == ExitCode.DONE
    return trained


def test_from_a_cohort_to_scores(segmented):
    scores = segmented / "scores.json"
    paths = [f"--reference-path={segmented / 'test'}", f"--prediction-path={segmented / 'plain'}"]
    command = [sys.executable, "-m", "evaluation", "score", "--protocol=brats2023", *paths, f"--output={scores}"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(scores.read_text())) == 4


def test_the_small_lesion_plan_only_adds(trained):
    """Before the rules: a rule may remove an oedema that an added core has cut in two."""
    paths = {"plan.yaml": trained / "bundle/plan.yaml", "small": trained / "bundle/plans/small_lesions.yaml"}
    plans = {name: yaml.safe_load(path.read_text()) for name, path in paths.items()}
    assert len(plans["small"]["members"]) == len(plans["plan.yaml"]["members"]) + 1
    maps = []
    for number, plan in enumerate(plans.values()):
        no_rules = dict.fromkeys(plan["postprocess"], 0)
        (trained / f"no-rules-{number}.yaml").write_text(yaml.safe_dump(plan | {"postprocess": no_rules}))
        output = trained / f"no-rules-{number}"
        assert infer(trained, output, f"--plan={trained / f'no-rules-{number}.yaml'}") == ExitCode.DONE
        maps.append({name: np.asarray(nib.load(output / name).dataobj) for name in names_in(output)})
    without, with_small = maps
    assert list(without) == list(with_small)
    for name, labels in without.items():
        assert ((with_small[name] > 0) | (labels == 0)).all()


def torchrun(trained, data, output, *options):
    """Two ranks of `metseg infer`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "metseg"]
    arguments = ["infer", f"--data-path={data}", f"--weights={trained / 'bundle'}", f"--output-path={output}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, *arguments, "--device=cpu", *options]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


def test_ranks_share_the_cases_and_give_what_one_gives(segmented, tmp_path):
    done = torchrun(segmented, segmented / "test", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    assert folder_bytes(tmp_path / "out") == folder_bytes(segmented / "plain")


def test_a_dead_rank_takes_no_finished_case_along(segmented, tmp_path):
    """The second rank's second case is broken and ends it; what is there is whole, and --resume does the rest."""
    data = shutil.copytree(segmented / "test", tmp_path / "data")
    cases = sorted(path for path in data.iterdir())
    image = next(cases[3].glob("*-t1c.nii.gz"))
    whole = image.read_bytes()
    image.write_bytes(whole[:100])
    done = torchrun(segmented, data, tmp_path / "out")
    assert done.returncode != 0
    expected = folder_bytes(segmented / "plain")
    found = folder_bytes(tmp_path / "out")
    assert f"{cases[1].name}.nii.gz" in found  # finished by the rank that died
    assert f"{cases[3].name}.nii.gz" not in found
    assert all(expected[name] == content for name, content in found.items())
    image.write_bytes(whole)
    arguments = ["infer", f"--data-path={data}", f"--weights={segmented / 'bundle'}", "--device=cpu", "--resume"]
    assert run([*arguments, f"--output-path={tmp_path / 'out'}"]) == ExitCode.DONE
    assert folder_bytes(tmp_path / "out") == expected
