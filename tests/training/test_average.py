"""`python -m training average`: exact tensor by tensor, and a widened start computes what the narrow one does."""

import json

import pytest
import torch
from safetensors.torch import load_file

from metseg.errors import UsageError, WeightsError
from metseg.plan.bundle import read_metadata
from metseg.predict.weights import load_member
from training.average.average import average_members
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.train.run import RunRequest, train_run
from training_support import small_recipe, write_labelled_cohort


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """A narrow member, one widened from it and trained on, and one that reads another channel; folder and plans."""
    root = tmp_path_factory.mktemp("members")
    data = write_labelled_cohort(root / "data", 4)
    narrow = small_recipe(name="narrow")
    filters = narrow.network.init_filters
    recipes = [
        (narrow, None),
        (small_recipe(name="wide", network={"init_filters": 2 * filters}), root / "narrow"),
        (small_recipe(name="other", data={"channels": ("t1n", "t1c", "t2f", "sub")}), None),
    ]
    plans = {}
    for recipe, init in recipes:
        request = RunRequest(
            (data,), root / recipe.name, root / "cache", max_steps=2, device="cpu", threads=1, workers=0, init=init
        )
        train_run(recipe, request)
        plan = freeze_bundle([root / recipe.name], root / "frozen", FreezeOptions(name="b"))
        plans[recipe.name] = plan.members[0]
    return root / "frozen", plans


def file_of(members, name):
    return members[0] / members[1][name].weights


def test_between_two_members_of_one_width_lies_their_weighted_mean(members, tmp_path):
    wide = file_of(members, "wide")
    average_members(wide, file_of(members, "narrow"), 0.0, tmp_path / "start.safetensors")
    digest = average_members(wide, tmp_path / "start.safetensors", 0.3, tmp_path / "mean.safetensors")
    later, earlier, found = (
        load_file(path) for path in (wide, tmp_path / "start.safetensors", tmp_path / "mean.safetensors")
    )
    assert found.keys() == later.keys()
    assert any(not torch.equal(later[name], earlier[name]) for name in later)
    for name, tensor in found.items():
        assert torch.allclose(tensor, 0.3 * later[name] + 0.7 * earlier[name], atol=1e-6), name
    metadata = read_metadata((tmp_path / "mean.safetensors").read_bytes(), tmp_path)
    averaged = json.loads(metadata["averaged"])
    assert (averaged["share"], averaged["earlier"]) == (0.3, "wide")
    assert "proven_on" not in metadata, "said of the network as it was trained"
    assert len(digest) == 64


def test_all_of_the_later_is_the_later(members, tmp_path):
    average_members(file_of(members, "wide"), file_of(members, "narrow"), 1.0, tmp_path / "m.safetensors")
    found, later = load_file(tmp_path / "m.safetensors"), load_file(file_of(members, "wide"))
    assert all(torch.equal(found[name], later[name]) for name in later)


def test_none_of_the_later_computes_what_the_narrower_earlier_one_does(members, tmp_path):
    folder, plans = members
    path = tmp_path / plans["wide"].weights
    digest = average_members(file_of(members, "wide"), file_of(members, "narrow"), 0.0, path)
    start = load_member(tmp_path, plans["wide"].model_copy(update={"sha256": digest}))
    image = torch.rand((1, 4, 16, 16, 16), generator=torch.Generator().manual_seed(3))
    narrow, wide = load_member(folder, plans["narrow"]), load_member(folder, plans["wide"])
    with torch.inference_mode():
        expected, found, later = narrow(image), start(image), wide(image)
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(later, expected, atol=1e-4)


def test_a_mean_is_a_member_that_freeze_takes(members, tmp_path):
    mean = tmp_path / "mean.safetensors"
    digest = average_members(file_of(members, "wide"), file_of(members, "narrow"), 0.5, mean)
    plan = freeze_bundle([mean], tmp_path / "b", FreezeOptions(name="b"))
    assert [(member.name, member.sha256) for member in plan.members] == [("wide", digest)]


@pytest.mark.parametrize(
    ("names", "share", "message"),
    [
        (("wide", "narrow"), 1.5, "expected a number from 0 to 1, found 1.5"),
        (("narrow", "wide"), 0.5, "does not fit"),
        (("narrow", "other"), 0.5, "data.channels"),
    ],
)
def test_members_that_have_no_mean_are_refused(members, tmp_path, names, share, message):
    later, earlier = (file_of(members, name) for name in names)
    with pytest.raises(UsageError, match=message):
        average_members(later, earlier, share, tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_a_file_that_is_no_member_is_refused(members, tmp_path):
    with pytest.raises(UsageError, match="no recipe in them"):
        average_members(file_of(members, "wide"), tmp_path / "none.safetensors", 0.5, tmp_path / "m.safetensors")


def test_a_file_that_was_cut_short_is_refused(members, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file_of(members, "narrow").read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cut\.safetensors: damaged"):
        average_members(file_of(members, "wide"), cut, 0.5, tmp_path / "m.safetensors")
