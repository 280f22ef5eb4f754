import hashlib
import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save

from metseg.errors import ExitCode, UsageError, WeightsError
from metseg.plan.bundle import bundle_folder, describe_member, load_member, open_bundle
from support import ALL, SUB, write_bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("weights") / "b", channels=(ALL, SUB))


@pytest.fixture
def bundle(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "b")


def first_member(folder):
    return open_bundle(folder).plan.members[0]


def replace_weights(folder, content):
    """Puts other bytes in place of the first member's and lets the plan expect them."""
    (folder / "m0.safetensors").write_bytes(content)
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    plan["members"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))


def test_a_member_loads_frozen_and_in_eval_mode(bundle):
    network = load_member(bundle, first_member(bundle))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network(torch.zeros(1, 4, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_half_precision_on_disk_loads_as_float32(bundle):
    state = {key: value.half() for key, value in load_file(bundle / "m0.safetensors").items()}
    replace_weights(bundle, save(state, describe_member(first_member(bundle))))
    assert {p.dtype for p in load_member(bundle, first_member(bundle)).parameters()} == {torch.float32}


def test_one_changed_byte_is_refused(bundle):
    content = bytearray((bundle / "m0.safetensors").read_bytes())
    content[-5] ^= 1
    (bundle / "m0.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256") as error:
        load_member(bundle, first_member(bundle))
    assert error.value.exit_code == ExitCode.WEIGHTS


def test_a_missing_file_is_refused(bundle):
    (bundle / "m0.safetensors").unlink()
    with pytest.raises(WeightsError, match="can't be read"):
        load_member(bundle, first_member(bundle))


def altered(state, change):
    state = dict(state)
    name = next(iter(state))
    match change:
        case "a key less":
            del state[name]
        case "a key more":
            state["surplus"] = torch.zeros(1)
        case "another shape":
            state[name] = torch.zeros(2, 2)
        case "not finite":
            state[name] = torch.full_like(state[name], float("nan"))
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("a key less", "1 tensors don't fit the network"),
        ("a key more", "surplus: found .*expected none"),
        ("another shape", r"found \(2, 2\)"),
        ("not finite", "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_never_loaded_in_part(bundle, change, message):
    state = altered(load_file(bundle / "m0.safetensors"), change)
    replace_weights(bundle, save(state, describe_member(first_member(bundle))))
    with pytest.raises(WeightsError, match=message):
        load_member(bundle, first_member(bundle))


@pytest.mark.parametrize("key", ["channels", "regions", "network", "format"])
def test_weights_of_another_member_are_refused(bundle, key):
    metadata = describe_member(first_member(bundle)) | {key: "other"}
    replace_weights(bundle, save(load_file(bundle / "m0.safetensors"), metadata))
    with pytest.raises(WeightsError, match=f"{key} is other"):
        load_member(bundle, first_member(bundle))


class Trap:
    def __reduce__(self):
        return (open, ("trap-was-sprung", "w"))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Trap()),
        b"",
        b"\xff" * 64,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 40) + json.dumps({"__metadata__": []}).encode(),
    ],
    ids=["pickle", "empty", "ones", "huge header", "a list", "metadata is a list"],
)
def test_loading_executes_nothing_and_survives_nonsense(bundle, content, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    replace_weights(bundle, content)
    with pytest.raises(WeightsError):
        load_member(bundle, first_member(bundle))
    assert not (tmp_path / "trap-was-sprung").exists()


def test_plans_are_found_by_name_or_path(bundle, tmp_path):
    plan = yaml.safe_load((bundle / "plan.yaml").read_text())
    (bundle / "plans").mkdir()
    (bundle / "plans" / "fast.yaml").write_text(yaml.safe_dump(plan | {"name": "fast"}))
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(plan | {"name": "own"}))
    assert open_bundle(bundle).plan.name == "test"
    assert open_bundle(bundle, "test").plan.name == "test"
    assert open_bundle(bundle, "fast").plan.name == "fast"
    assert open_bundle(bundle, str(own)).plan.name == "own"
    with pytest.raises(UsageError, match="it has fast"):
        open_bundle(bundle, "slow")


def test_a_folder_without_a_plan_is_no_bundle(tmp_path):
    with pytest.raises(WeightsError, match=r"no plan\.yaml"):
        open_bundle(tmp_path)


def change_plan(folder, **network):
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    plan["members"][0]["network"] |= network
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))


def agree(folder):
    """Lets the weights' metadata say what the plan says: whoever alters one file can alter both."""
    state = load_file(folder / "m0.safetensors")
    replace_weights(folder, save(state, describe_member(first_member(folder))))


@pytest.mark.parametrize(
    ("network", "message"),
    [({"init_filters": 80_000}, "don't fit the network"), ({"norm_groups": 7}, "can't be built")],
)
def test_a_network_of_any_size_takes_no_memory_until_its_weights_are_there(bundle, network, message):
    change_plan(bundle, **network)
    agree(bundle)
    with pytest.raises(WeightsError, match=message):
        load_member(bundle, first_member(bundle))


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool])
def test_numbers_that_are_no_weights_are_refused(bundle, dtype):
    state = {key: value.to(dtype) for key, value in load_file(bundle / "m0.safetensors").items()}
    replace_weights(bundle, save(state, describe_member(first_member(bundle))))
    with pytest.raises(WeightsError, match=r"not floating-point|not a safetensors file"):
        load_member(bundle, first_member(bundle))


def test_what_is_no_file_or_too_long_for_one_is_refused_unread(bundle):
    path = bundle / "m0.safetensors"
    member = first_member(bundle)
    os.truncate(path, 2**40)
    with pytest.raises(WeightsError, match="1099511627776 bytes long"):
        load_member(bundle, member)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(WeightsError, match="no regular file"):
        load_member(bundle, member)


def test_long_metadata_do_not_make_long_messages(bundle):
    state = load_file(bundle / "m0.safetensors")
    replace_weights(bundle, save(state, describe_member(first_member(bundle)) | {"channels": "x" * 10**6}))
    with pytest.raises(WeightsError, match="channels is xxx") as raised:
        load_member(bundle, first_member(bundle))
    assert len(str(raised.value)) < 2000


@pytest.fixture
def bundled(pristine, tmp_path, monkeypatch):
    """Two bundled ones, in a working directory without any; METSEG_WEIGHTS is not set."""
    root = tmp_path / "weights"
    for name in ("mets", "srs-demo"):
        shutil.copytree(pristine, root / name)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.delenv("METSEG_WEIGHTS", raising=False)
    monkeypatch.setattr("metseg.plan.bundle.bundles_root", lambda: root)
    return root


def test_a_bundled_bundle_is_known_by_its_name(bundled, monkeypatch, tmp_path):
    assert bundle_folder() == bundled / "mets"
    assert bundle_folder(Path("srs-demo")) == bundled / "srs-demo"
    assert bundle_folder("srs-demo", base=tmp_path) == bundled / "srs-demo"
    assert bundle_folder("other/srs-demo") == Path("other/srs-demo")
    monkeypatch.setenv("METSEG_WEIGHTS", "srs-demo")
    assert bundle_folder() == bundled / "srs-demo"


def test_an_image_may_have_another_default(bundled, monkeypatch):
    (bundled / "DEFAULT").write_text("srs-demo\n")
    assert bundle_folder() == bundled / "srs-demo"
    monkeypatch.setenv("METSEG_WEIGHTS", "mets")
    assert bundle_folder() == bundled / "mets"
    monkeypatch.delenv("METSEG_WEIGHTS")
    (bundled / "DEFAULT").write_text("gone")
    with pytest.raises(WeightsError, match="gone"):
        open_bundle(bundle_folder())


def test_a_folder_that_is_there_wins_over_a_bundled_name(bundled):
    Path("mets").mkdir()
    assert bundle_folder("mets") == Path("mets")
    assert bundle_folder() == bundled / "mets", "a folder of cases may be called so"
    with pytest.raises(WeightsError) as raised:
        open_bundle(bundle_folder("mets"))
    assert "mets, srs-demo" in raised.value.hint
