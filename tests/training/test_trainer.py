import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from metseg.errors import UsageError, WeightsError
from metseg.plan.bundle import bundle_folder
from training.data.cache import keep_entry
from training.errors import DivergenceError, InterruptedRunError
from training.network import TrainingNetwork
from training.provenance import record_provenance
from training.ranks import Ranks
from training.recipe import load_recipe
from training.runs.checkpoint import Progress, read_checkpoint, save_checkpoint
from training.runs.files import BEST, LAST
from training.runs.metrics import read_metrics
from training.train.initial_weights import begin_with, read_initial_weights
from training.train.optimizers import learning_rate
from training.train.run import RunRequest, train_run
from training.train.trainer import RunSettings, Trainer
from training_support import CPU, small_recipe, training_case, write_entries, write_labelled_cohort

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return write_entries(tmp_path_factory.mktemp("entries"), 5)


def trainer_of(entries, folder, recipe=None, **settings):
    folder.mkdir(exist_ok=True)
    ids = sorted(entries)
    options = RunSettings(folder=folder, device=CPU, workers=0, **settings)
    return Trainer(recipe or small_recipe(), entries, ids[:4], ids[4:], settings=options, ranks=Ranks())


def losses_of(folder):
    return {line["step"]: line["loss"] for line in read_metrics(folder) if line["kind"] == "train"}


def weights_of(folder, name=LAST):
    return read_checkpoint(folder / name)[0]


def test_a_run_learns_validates_and_keeps_its_best(entries, tmp_path):
    recipe = small_recipe(epochs=12, optimizer={"ema_decay": 0.9})
    progress = trainer_of(entries, tmp_path, recipe).run()
    losses = losses_of(tmp_path)
    assert progress.step == 24 == len(losses)
    assert np.mean([losses[step] for step in range(20, 25)]) < 0.9 * np.mean([losses[step] for step in range(1, 6)])
    validations = [line for line in read_metrics(tmp_path) if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [4, 8, 12, 16, 20, 24]
    assert progress.best_score == max(line["score"] for line in validations)
    best = max(validations, key=lambda line: line["score"])
    assert read_checkpoint(tmp_path / BEST)[1].step == best["step"]
    assert any(name.startswith("average.") for name in weights_of(tmp_path))


def test_the_average_keeps_up_with_batch_norm(entries, tmp_path):
    trainer = trainer_of(entries, tmp_path, small_recipe(optimizer={"ema_decay": 0.5}))
    trainer.network = nn.BatchNorm3d(2)
    trainer.average = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.network(torch.randn(1, 2, 3, 3, 3))
    trainer._update_average()
    assert trainer.average["num_batches_tracked"] == 1
    mean = trainer.network.running_mean
    torch.testing.assert_close(
        trainer.average["running_mean"], mean * 0.9
    )  # a young average keeps (1 + 0) / (10 + 0) of itself


def test_one_validation_comes_before_step_1(entries, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("validation is broken")

    monkeypatch.setattr("training.train.trainer.score_entry", fail)
    with pytest.raises(RuntimeError, match="validation is broken"):
        trainer_of(entries, tmp_path).run()
    assert not losses_of(tmp_path)


def test_micro_batches_change_nothing(entries, tmp_path):
    recipe = small_recipe(loss={"vae_weight": 0.1})
    trainer_of(entries, tmp_path / "one", recipe, micro_batch=1, max_steps=3).run()
    trainer_of(entries, tmp_path / "all", recipe, micro_batch=99, max_steps=3).run()
    one, every = losses_of(tmp_path / "one"), losses_of(tmp_path / "all")
    assert [one[step] for step in (1, 2, 3)] == pytest.approx([every[step] for step in (1, 2, 3)], rel=1e-3)


def test_validations_are_spread_evenly_over_the_run_also_when_it_is_resumed(entries, tmp_path, monkeypatch):
    recipe = small_recipe(epochs=30, validation={"times": 5})
    stopped = trainer_of(entries, tmp_path, recipe, max_steps=23)
    step = stopped._step

    def step_and_stop(*arguments):
        stopped._stop_signal = signal.SIGTERM if stopped.progress.step == 9 else None  # a validation is due after it
        return step(*arguments)

    monkeypatch.setattr(stopped, "_step", step_and_stop)
    with pytest.raises(InterruptedRunError, match="after step 10"):
        stopped.run()
    trainer_of(entries, tmp_path, recipe, max_steps=23).run()
    steps = [line["step"] for line in read_metrics(tmp_path) if line["kind"] == "validation"]
    assert steps == [5, 10, 14, 19, 23]


def test_a_finished_run_is_left_as_it_is(entries, tmp_path):
    trainer_of(entries, tmp_path, max_steps=2).run()
    before = weights_of(tmp_path)
    assert trainer_of(entries, tmp_path, max_steps=2).run().step == 2
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(tmp_path).items())
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 2]


def test_a_signal_stops_the_run_after_the_step_and_it_continues(entries, tmp_path, monkeypatch):
    trainer_of(entries, tmp_path / "whole").run()
    stopped = trainer_of(entries, tmp_path / "stopped")
    step = stopped._step

    def step_and_signal(*arguments):
        result = step(*arguments)
        if stopped.progress.step == 3:  # the fourth, after which a validation is due
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(stopped, "_step", step_and_signal)
    with pytest.raises(InterruptedRunError, match="after step 4"):
        stopped.run()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    trainer_of(entries, tmp_path / "stopped").run()
    assert losses_of(tmp_path / "stopped") == losses_of(tmp_path / "whole")
    kept = [
        [(line["step"], line["score"]) for line in read_metrics(tmp_path / name) if line["kind"] == "validation"]
        for name in ("stopped", "whole")
    ]
    assert kept[0] == kept[1]
    assert kept[0]


def test_a_loss_that_is_no_number_names_the_cases_and_spares_the_checkpoint(tmp_path):
    entries = write_entries(tmp_path / "good", 2)
    case = training_case(9)
    case.images[0, 10:20, 10:20, 8:16] = np.nan
    entries["poisoned"] = keep_entry("poisoned", "key-nan", tmp_path / "good", lambda: case)
    recipe = small_recipe(batch_cases=1, crops={"size": (32, 40, 16)}, validation={"every_epochs": 1000})
    options = RunSettings(folder=tmp_path / "run", device=CPU, workers=0, checkpoint_s=0)
    (tmp_path / "run").mkdir()
    trainer = Trainer(recipe, entries, sorted(entries), [], settings=options, ranks=Ranks())
    with pytest.raises(DivergenceError, match=r"not finite.*cases: poisoned"):
        trainer.run()
    if (tmp_path / "run" / LAST).exists():
        assert all(bool(torch.isfinite(tensor).all()) for tensor in weights_of(tmp_path / "run").values())


def test_a_run_refuses_another_recipe(entries, tmp_path):
    trainer_of(entries, tmp_path, max_steps=1).run()
    with pytest.raises(UsageError, match="begun with another recipe"):
        trainer_of(entries, tmp_path, small_recipe(seed=6))


def test_a_damaged_checkpoint_is_refused(entries, tmp_path):
    trainer_of(entries, tmp_path, max_steps=1).run()
    content = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="can't be read"):
        trainer_of(entries, tmp_path)


def test_lines_after_the_checkpoint_are_cut_off(entries, tmp_path):
    trainer_of(entries, tmp_path, max_steps=2).run()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 3, "loss": 7.0}) + '\n{"kind": "tr')
    trainer_of(entries, tmp_path, max_steps=3).run()
    steps = [line["step"] for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert steps == [1, 2, 3]
    assert losses_of(tmp_path)[3] != 7.0


def test_initial_weights_are_matched_by_channel_name(entries, tmp_path):
    trainer_of(entries, tmp_path / "first", max_steps=1).run()
    (tmp_path / "first" / "recipe.yaml").write_text(yaml.safe_dump(small_recipe().model_dump(mode="json")))
    recipe = small_recipe(data={"channels": ("t1n", "t1c", "t2f", "sub")})
    network = TrainingNetwork(recipe)
    own = network.net.convInit.conv.weight.detach().clone()
    begin_with(network, recipe, read_initial_weights(tmp_path / "first" / LAST))
    theirs = weights_of(tmp_path / "first")["model.net.convInit.conv.weight"]
    loaded = network.net.convInit.conv.weight
    assert torch.equal(loaded[:, :2], theirs[:, :2])
    assert torch.equal(loaded[:, 2], theirs[:, 3])  # t2f
    assert torch.equal(loaded[:, 3], own[:, 3])  # sub: new


def saved(network, recipe, folder):
    """A run's last checkpoint."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    save_checkpoint(folder / LAST, network, None, torch.optim.AdamW(network.parameters()), Progress())
    return folder / LAST


def test_a_wider_network_begins_as_the_narrower_and_its_copies_part(tmp_path):
    torch.manual_seed(1)
    recipes = [small_recipe(network={"init_filters": filters}) for filters in (8, 16)]
    narrow, wide = (TrainingNetwork(recipe) for recipe in recipes)
    for module in narrow.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    begin_with(wide, recipes[1], read_initial_weights(saved(narrow, recipes[0], tmp_path / "run")))
    images = torch.rand(1, 4, 16, 24, 16)
    torch.testing.assert_close(wide(images).logits, narrow(images).logits, rtol=1e-3, atol=1e-4)
    # The same shares on every rank.
    torch.manual_seed(2)
    once = TrainingNetwork(recipes[1])
    begin_with(once, recipes[1], read_initial_weights(tmp_path / "run" / LAST))
    torch.manual_seed(2)
    twice = TrainingNetwork(recipes[1])
    begin_with(twice, recipes[1], read_initial_weights(tmp_path / "run" / LAST))
    assert all(torch.equal(one, two) for one, two in zip(once.parameters(), twice.parameters(), strict=True))
    # Two copies of a filter get different gradients, else they would stay copies.
    wide(images).logits.square().mean().backward()
    kernel = wide.net.down_layers[1][1].conv1.conv.weight
    assert not torch.allclose(kernel.grad[0::2], kernel.grad[1::2], rtol=1e-2)


@pytest.mark.parametrize("name", ["unet_small", "deepmedic_small"])
def test_the_radiosurgery_networks_begin_with_another_runs_weights_too(name, tmp_path):
    recipe = load_recipe(name)
    torch.manual_seed(1)
    theirs, own = TrainingNetwork(recipe), TrainingNetwork(recipe)
    begin_with(own, recipe, read_initial_weights(saved(theirs, recipe, tmp_path / "run")))
    assert all(torch.equal(one, other) for one, other in zip(own.parameters(), theirs.parameters(), strict=True))


def test_the_last_layer_is_matched_by_region(tmp_path):
    recipes = [small_recipe(), small_recipe(regions=("WT", "TC", "ET", "RC"))]
    network = TrainingNetwork(recipes[1])
    layer = network.net.conv_final[2].conv
    random = layer.weight.detach().clone()
    first = TrainingNetwork(recipes[0])
    begin_with(network, recipes[1], read_initial_weights(saved(first, recipes[0], tmp_path / "run")))
    assert torch.equal(layer.weight[:3], first.net.conv_final[2].conv.weight)
    assert torch.equal(layer.bias[:3], first.net.conv_final[2].conv.bias)
    assert torch.equal(layer.weight[3], random[3])
    assert torch.sigmoid(layer.bias[3]).item() == pytest.approx(0.01)


def test_a_frozen_member_is_begun_with_too():
    """The bundled small-lesion model: float16 in its file, its recipe in the metadata."""
    initial = read_initial_weights(bundle_folder("mets") / "mets_small.safetensors")
    assert initial.recipe.name == "mets_small"
    network = TrainingNetwork(initial.recipe)
    begin_with(network, initial.recipe, initial)
    kernel = network.net.convInit.conv.weight
    assert kernel.dtype == torch.float32
    assert torch.equal(kernel, initial.tensors["net.convInit.conv.weight"])


def test_what_does_not_fit_is_refused_with_what_would(tmp_path):
    recipes = [small_recipe(network={"init_filters": filters}) for filters in (16, 24)]
    narrow, wide = (TrainingNetwork(recipe) for recipe in recipes)
    initial = read_initial_weights(saved(narrow, recipes[0], tmp_path / "run"))
    with pytest.raises(UsageError, match=r"don't fit this recipe's network, first net\.convInit") as caught:
        begin_with(wide, recipes[1], initial)
    assert "a half" in caught.value.hint


@pytest.mark.parametrize(
    ("step", "share", "expected"), [(0, 0.0, 0.1), (9, 0.0, 1.0), (50, 0.5, 0.505), (99, 1.0, 0.01)]
)
def test_the_rate_warms_up_and_falls(step, share, expected):
    recipe = small_recipe(
        optimizer={"learning_rate": 1.0, "schedule": "cosine", "warmup_steps": 10, "final_share": 0.01}
    )
    assert learning_rate(recipe.optimizer, step, share) == pytest.approx(expected)


# ---- whole processes


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_labelled_cohort(tmp_path_factory.mktemp("data"), 5)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    split = {"train": 0.8, "validation": 0.2}
    recipe = small_recipe(split=split, batch_cases=3, loss={"vae_weight": 0.1}, epochs=15)
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return path


def command_of(recipe_file, cohort, output, *options):
    arguments = ["training", "train", str(recipe_file), f"--data={cohort}", f"--output={output}"]
    common = [f"--cache={cohort.parent / 'cache'}", "--device=cpu", "--threads=1", "--full-precision"]
    return [*arguments, *common, *options]


def request_of(cohort, output, **options):
    options |= {"device": "cpu", "full_precision": True, "threads": 1, "workers": 0}
    return RunRequest((cohort,), output, cohort.parent / "cache", **options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cohort, recipe_file):
    folder = tmp_path_factory.mktemp("whole")
    train_run(load_recipe(str(recipe_file)), request_of(cohort, folder))
    return folder


def steps_written(folder):
    """Whole lines of a file that another process writes."""
    path = folder / "metrics.jsonl"
    return path.read_text().count('"kind": "train"') if path.exists() else 0


def test_a_run_killed_three_times_equals_the_uninterrupted_one(tmp_path, cohort, recipe_file, uninterrupted):
    command = [sys.executable, "-m", *command_of(recipe_file, cohort, tmp_path, "--checkpoint-s=0")]
    for limit in (3, 8, 14):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        while steps_written(tmp_path) < limit and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    assert losses_of(tmp_path) == losses_of(uninterrupted)
    killed, whole = weights_of(tmp_path), weights_of(uninterrupted)
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[name], tensor) for name, tensor in whole.items())


def test_crops_at_false_positives_change_the_run_and_need_recipe_and_folder(tmp_path, cohort):
    maps = tmp_path / "maps"
    maps.mkdir()
    for case in sorted(cohort.iterdir()):
        reference = nib.load(case / f"{case.name}-seg.nii.gz")
        wrong = (np.asarray(reference.dataobj) == 0).astype(np.uint8) * 3
        nib.save(nib.Nifti1Image(wrong, reference.affine), maps / f"{case.name}.nii.gz")
    crops = {"lesion_probability": 0.2, "size": (8, 8, 8)}
    plain = small_recipe(crops=crops, epochs=1)
    asking = small_recipe(crops=crops | {"false_positive_probability": 0.8}, epochs=1)
    for recipe, folders in ((plain, (maps,)), (asking, ())):
        with pytest.raises(UsageError, match=r"expected both crops.false_positive_probability and --predictions"):
            train_run(recipe, request_of(cohort, tmp_path / "no", predictions=folders))
    train_run(plain, request_of(cohort, tmp_path / "plain"))
    train_run(asking, request_of(cohort, tmp_path / "asking", predictions=(maps,)))
    ran = json.loads((tmp_path / "asking" / "run.json").read_text())
    assert ran["predictions"] == [str(maps)]
    assert ran["predictions_sha256"] == record_provenance(None, None, (maps,))["predictions_sha256"]
    assert losses_of(tmp_path / "asking") != losses_of(tmp_path / "plain")


def test_two_ranks_give_the_gradient_of_one_with_twice_the_batch(tmp_path, cohort, recipe_file):
    """Three cases a step: two ranks get a duplicate, which must not count. AdamW's first moment is 0.1 * gradient."""
    command = command_of(recipe_file, cohort, tmp_path / "two", "--max-steps=1")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    done = subprocess.run([*launcher, *command], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    train_run(load_recipe(str(recipe_file)), request_of(cohort, tmp_path / "one", max_steps=1))
    (alone, one_score), (pair, two_score) = (read_metrics(tmp_path / name) for name in ("one", "two"))
    for key in ("loss", "dice_ce", "blob", "vae", "gradient_norm"):
        assert pair[key] == pytest.approx(alone[key], rel=1e-5), key
    assert two_score["score"] == pytest.approx(one_score["score"], abs=0.05)
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert one.keys() == two.keys()
    moments = [name for name in one if name.endswith(".exp_avg")]
    largest = max(one[name].abs().max().item() for name in moments)
    assert moments
    for name in moments:
        assert (one[name] - two[name]).abs().max().item() <= 1e-5 * largest, name
