import json

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from metseg.decide.decision import fuse_members
from metseg.decide.threshold import member_labels
from metseg.errors import UsageError, WeightsError
from metseg.plan.bundle import open_bundle, read_metadata
from metseg.plan.plan import Plan
from metseg.predict.members import MemberPrediction
from metseg.predict.weights import load_member
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.recipe import load_recipe
from training.train.run import RunRequest, train_run
from training_support import small_recipe, write_labelled_cohort

SUB = ("t1n", "t1c", "t2f", "sub")
COARSE_WINDOW = {"size": (8, 8, 8), "extent": "whole"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two steps of members with the VAE branch, with the subtraction and at 2 mm, and of a small-lesion model."""
    root = tmp_path_factory.mktemp("runs")
    data = write_labelled_cohort(root / "data", 4)
    split = {"split": {"train": 0.75, "validation": 0.25}}
    recipes = [
        small_recipe(name="vae", loss={"vae_weight": 0.1}, **split),
        small_recipe(name="sub", data={"channels": SUB}, optimizer={"ema_decay": 0.9}, **split),
        small_recipe(name="few", data={"channels": SUB, "max_lesion_voxels": 150}, **split),
        small_recipe(name="coarse", data={"spacing_mm": 2.0}, validation={"window": COARSE_WINDOW}, **split),
    ]
    for recipe in recipes:
        request = RunRequest(
            (data,), root / recipe.name, root / "cache", max_steps=2, device="cpu", threads=1, workers=0
        )
        train_run(recipe, request)
    return root


def freeze(runs, output, *names, **options):
    return freeze_bundle([runs / name for name in names], output, FreezeOptions(name="b", **options))


def test_a_bundle_holds_the_segmentation_part_and_its_story(runs, tmp_path):
    plan = freeze(runs, tmp_path / "b", "vae", "sub", provenance="phantoms")
    assert [member.name for member in plan.members] == ["vae", "sub"]
    assert plan.members[1].channels == SUB
    assert open_bundle(tmp_path / "b").plan == plan
    assert not any(name.startswith("vae") for name in load_file(tmp_path / "b/vae.safetensors"))
    path = tmp_path / "b/sub.safetensors"
    metadata = read_metadata(path.read_bytes(), path)
    assert metadata["provenance"] == "phantoms"
    assert metadata["steps"] == "2"
    assert metadata["proven_on"].startswith("P-")
    assert len(metadata["training_revision"]) >= 7
    assert json.loads(metadata["validation"])["score"] >= 0
    assert json.loads(metadata["training_cases"]) == {"train": 3, "validation": 1}
    assert plan.brain_share == float(metadata["brain_share"])
    assert plan.brain_share == json.loads((runs / "sub/run.json").read_text())["brain_share"]
    assert plan.brain_share == plan.expected_brain_share


def test_freezing_twice_gives_the_same_files(runs, tmp_path):
    for name in ("one", "two"):
        freeze(runs, tmp_path / name, "vae")
    one, two = (tmp_path / name / "vae.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    with safe_open(one, "pt") as file:
        assert list(file.metadata()) != [], "readable"
    header = json.loads(one.read_bytes()[8 : 8 + int.from_bytes(one.read_bytes()[:8], "little")])
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])


def test_a_frozen_member_is_taken_over_as_it_is(runs, tmp_path):
    freeze(runs, tmp_path / "old", "vae", "few")
    old = tmp_path / "old/vae.safetensors"
    small = tmp_path / "old/few.safetensors"
    keys = {"fusion": {"added_by_maximum": ["few"]}}
    options = FreezeOptions(name="new", plan=keys, small_lesions=small)
    plan = freeze_bundle([old, runs / "sub"], tmp_path / "new", options)
    assert [member.name for member in plan.members] == ["vae", "sub", "few"]
    assert (tmp_path / "new/vae.safetensors").read_bytes() == old.read_bytes()
    assert open_bundle(tmp_path / "new").plan == plan
    again = freeze_bundle([tmp_path / "new/vae.safetensors", runs / "sub"], tmp_path / "new", options)
    assert again == plan, "into the same folder, too"


def test_a_weights_file_without_its_recipe_is_refused(tmp_path):
    stray = tmp_path / "stray.safetensors"
    save_file({"a": torch.zeros(1)}, stray)
    with pytest.raises(UsageError, match="no recipe in them"):
        freeze_bundle([stray], tmp_path / "b", FreezeOptions(name="b"))


def test_members_of_two_spacings_where_the_plan_states_its_own(runs, tmp_path):
    with pytest.raises(UsageError, match=r"different data\.spacing_mm"):
        freeze_bundle([runs / "vae", runs / "coarse"], tmp_path / "b", FreezeOptions(name="b"))
    variants = {"fine": {"members": ["vae"]}}
    options = FreezeOptions(name="b", plan={"spacing_mm": 1.0}, variants=variants)
    plan = freeze_bundle([runs / "vae", runs / "coarse"], tmp_path / "b", options)
    fine, coarse = plan.members
    assert plan.spacing_mm == 1.0
    assert fine.spacing_mm is None
    assert coarse.spacing_mm == 2.0
    assert coarse.window == load_recipe(str(runs / "coarse" / "recipe.yaml")).validation.window
    assert open_bundle(tmp_path / "b", "fine").plan.members == (fine,)
    wrong = FreezeOptions(name="b", plan={"spacing_mm": 1.0}, variants={"odd": {"members": ["nobody"]}})
    with pytest.raises(UsageError, match="none of the runs"):
        freeze_bundle([runs / "vae", runs / "coarse"], tmp_path / "c", wrong)


def test_a_plan_finer_than_all_of_its_members(runs, tmp_path):
    plan = freeze_bundle([runs / "coarse"], tmp_path / "b", FreezeOptions(name="b", plan={"spacing_mm": 1.0}))
    assert plan.spacing_mm == 1.0
    assert plan.members[0].spacing_mm == 2.0


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copy_of(run, folder):
    """The run's files, without tensorboard's."""
    folder.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": {"bad": {"members": ["nonsense"]}}}, "none of the runs"),
        ({"variants": {"bad": {"threshold": 7}}}, "plan bad: .*don't make a plan"),
        ({"plan": {"unknown": 1}}, "don't make a plan"),
        ({"plan": {"members": 5}}, "members must be a list, found 5"),
        ({"variants": {"bad": {"members": "vae"}}}, "plan bad: members must be a list, found 'vae'"),
    ],
)
def test_a_plan_that_is_refused_leaves_the_bundle_as_it_was(runs, tmp_path, options, message):
    bundle = tmp_path / "b"
    freeze(runs, bundle, "vae")
    before = contents(bundle)
    for names, half in ((("vae",), True), (("vae", "sub"), False)):
        with pytest.raises(UsageError, match=message):
            freeze(runs, bundle, *names, half=half, **options)
        assert contents(bundle) == before
    with pytest.raises(UsageError, match=message):
        freeze(runs, tmp_path / "new", "vae", **options)
    assert not (tmp_path / "new").exists()


def test_two_runs_of_one_name_are_refused(runs, tmp_path):
    bundle = tmp_path / "b"
    freeze(runs, bundle, "vae", "sub")
    before = contents(bundle)
    twin = copy_of(runs / "vae", tmp_path / "twin")
    for others, options in (([twin], {}), ([], {"small_lesions": twin}), ([twin], {"plan": {"members": ["sub"]}})):
        every_run = [runs / "vae", runs / "sub", *others]
        with pytest.raises(UsageError, match=r"member vae: expected one run of this name, found .*vae and .*twin"):
            freeze_bundle(every_run, bundle, FreezeOptions(name="b", half=True, **options))
        assert contents(bundle) == before


def test_half_precision_is_half_as_large_and_says_what_it_changes(runs, tmp_path):
    freeze(runs, tmp_path / "whole", "vae")
    freeze(runs, tmp_path / "half", "vae", half=True)
    with safe_open(tmp_path / "half/vae.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118 - no mapping
        assert "logits differ by at most" in file.metadata()["rounding"]
    sizes = [(tmp_path / name / "vae.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_network_that_gives_other_logits_is_refused(runs, tmp_path, monkeypatch):
    def other(folder, member):
        network = load_member(folder, member)
        next(network.parameters()).data.mul_(1.001)
        return network

    monkeypatch.setattr("training.freeze.member.load_member", other)
    with pytest.raises(WeightsError, match="differ from the trained ones"):
        freeze(runs, tmp_path / "b", "vae")
    assert not (tmp_path / "b/plan.yaml").exists()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([{"name": "sub"}, {"name": "vae"}], "name is vae, the plan expects sub"),
        ([{"channels": list(SUB)}, {}], "channels is .*, the plan expects"),
        ([{"regions": ["ET", "TC", "WT"]}, {}], "regions is .*, the plan expects"),
        ([{"network": {"init_filters": 16}}, {}], "network is .*, the plan expects"),
        ([{}], "the plan has 1 members, found 2 runs"),
    ],
)
def test_members_that_disagree_with_the_plan_are_refused(runs, tmp_path, members, message):
    with pytest.raises(UsageError, match=message):
        freeze(runs, tmp_path / "b", "vae", "sub", plan={"members": members})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"spacing_mm": -1.0}, "don't make a plan"),
        ({"intensity": {"upper_percentile": 99.0}}, "intensity is"),
        ({"intensity": {"percentiles_over": "brain"}}, "intensity is"),
        ({"threshold": 7}, "don't make a plan"),
        ({"unknown": 1}, "don't make a plan"),
        ({"fusion": None}, "plan b: fusion must be a section of keys, found None"),
        ({"fusion": "simple"}, "plan b: fusion must be a section of keys, found 'simple'"),
        ({"fusion": {"added_by_maximum": None}}, "don't make a plan"),
        ({"window": {"size": 7}}, "window"),
    ],
)
def test_plan_keys_that_do_not_fit_are_refused(runs, tmp_path, keys, message):
    for small in (None, runs / "few"):
        with pytest.raises(UsageError, match=message):
            freeze(runs, tmp_path / "b", "vae", plan=keys, small_lesions=small)


def test_sections_of_a_variant_that_are_none_are_refused(runs, tmp_path):
    for section in (None, "simple"):
        with pytest.raises(UsageError, match="plan v: fusion must be a section of keys"):
            freeze(runs, tmp_path / "b", "vae", variants={"v": {"fusion": section}}, small_lesions=runs / "few")


def test_a_checkpoint_of_another_recipe_is_refused(runs, tmp_path):
    copy = copy_of(runs / "vae", tmp_path / "run")
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    (copy / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "seed": 99}))
    with pytest.raises(UsageError, match="trained with another recipe"):
        freeze_bundle([copy], tmp_path / "b", FreezeOptions(name="b"))


def test_the_proof_needs_the_prepared_volumes(runs, tmp_path):
    with pytest.raises(UsageError, match=r"prepared volumes of case P-.* are not in"):
        freeze(runs, tmp_path / "b", "vae", cache=tmp_path)
    with pytest.raises(UsageError, match=r"no recipe\.yaml"):
        freeze_bundle([tmp_path], tmp_path / "b", FreezeOptions(name="b"))


def test_variants_and_the_small_lesion_plan(runs, tmp_path):
    keys = {"window": {"size": [16, 24, 16], "overlap": 0.5}, "fusion": {"max_iterations": 7}}
    variants = {"sensitive": {"threshold": 0.3, "fusion": {"method": "mean"}}}
    plan = freeze(runs, tmp_path / "b", "vae", "sub", plan=keys, variants=variants, small_lesions=runs / "few")
    sensitive = open_bundle(tmp_path / "b", "sensitive").plan
    assert (sensitive.threshold, sensitive.fusion.method, sensitive.fusion.max_iterations) == (0.3, "mean", 7)
    assert sensitive.members == plan.members
    small, few = open_bundle(tmp_path / "b", "small_lesions").plan, load_recipe(str(runs / "few/recipe.yaml"))
    assert [member.name for member in small.members] == ["vae", "sub", "few"]
    assert small.fusion.added_by_maximum == ("few",)
    assert small.window == plan.window
    assert small.members[-1].window == few.validation.window, "it was validated in windows of another size"


def test_a_small_lesion_model_that_the_default_plan_names(runs, tmp_path):
    window = load_recipe(str(runs / "few/recipe.yaml")).validation.window.model_dump(mode="json")
    keys = {"window": {**window, "overlap": 0.75}, "fusion": {"added_by_maximum": ["few"]}}
    variants = {"sensitive": {"threshold": 0.3}, "without": {"fusion": {"added_by_maximum": []}}}
    plan = freeze(runs, tmp_path / "b", "vae", plan=keys, variants=variants, small_lesions=runs / "few")
    assert [member.name for member in plan.members] == ["vae", "few"]
    assert plan.members[-1].window is None, "the plan's windows are of its own size"
    assert open_bundle(tmp_path / "b", "sensitive").plan.members == plan.members
    assert open_bundle(tmp_path / "b", "without").plan.members == plan.members[:1]
    assert sorted(path.name for path in (tmp_path / "b" / "plans").iterdir()) == ["sensitive.yaml", "without.yaml"]


# ---- fusion by maximum, in the app


def plan_with(members, **fusion):
    content = [{"name": name, "weights": f"{name}.safetensors", "sha256": "0" * 64} for name in members]
    return Plan.model_validate({"name": "p", "members": content, "fusion": fusion})


def prediction(name, *voxels):
    """WT, TC and ET at these voxels of a row of 8."""
    probabilities = np.zeros((3, 8, 1, 1), dtype=np.float32)
    probabilities[:, list(voxels)] = 0.9
    return MemberPrediction(name, probabilities)


def fused(plan, *predictions):
    votes = [member_labels(item.probabilities, plan.threshold) for item in predictions]
    return np.flatnonzero(fuse_members(predictions, votes, plan)).tolist()


@pytest.mark.parametrize("method", ["simple", "mean", "majority", "maximum"])
def test_an_added_member_does_not_vote_and_loses_nothing(method):
    plan = plan_with(["a", "b", "few"], method=method, added_by_maximum=["few"])
    three = [prediction("a", 0, 1), prediction("b", 0, 1), prediction("few", 4)]
    assert fused(plan, *three) == [0, 1, 4]
    voted = plan_with(["a", "b"], method=method)
    assert fused(voted, *three[:2]) == [0, 1]
    # What it leaves out it does not take away.
    assert fused(plan, *three[:2], prediction("few")) == [0, 1]


def test_small_components_need_the_added_member_s_confirmation():
    plan = plan_with(["a", "b", "few"], added_by_maximum=["few"], confirmed_below_mm3=3)
    two = [prediction("a", 0, 1, 4, 5, 6), prediction("b", 0, 1, 4, 5, 6)]
    assert fused(plan, *two, prediction("few")) == [4, 5, 6]  # three voxels need none
    assert fused(plan, *two, prediction("few", 1)) == [0, 1, 4, 5, 6]
    assert fused(plan, *two, prediction("few", 2)) == [2, 4, 5, 6]  # a neighbour confirms nothing
    assert fused(plan, *two) == [0, 1, 4, 5, 6]  # where it could not run


def test_confirmation_needs_somebody_who_confirms():
    with pytest.raises(ValueError, match="confirmed_below_mm3 needs members"):
        plan_with(["a", "few"], confirmed_below_mm3=3)


def test_an_added_member_alone_is_the_result():
    assert fused(plan_with(["a", "few"], added_by_maximum=["few"]), prediction("few", 2)) == [2]


@pytest.mark.parametrize("added", [["nobody"], ["a", "few"]])
def test_a_plan_that_adds_strangers_or_everybody_is_refused(added):
    with pytest.raises(ValueError, match="added_by_maximum"):
        plan_with(["a", "few"], added_by_maximum=added)


def test_weights_that_are_not_finite_are_refused(runs, tmp_path):
    copy = copy_of(runs / "sub", tmp_path / "run")
    for name in ("best", "last"):
        path = copy / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(path)
        key = next(name for name in tensors if name.startswith("average."))
        save_file({**tensors, key: torch.full_like(tensors[key], float("nan"))}, path, metadata)
    with pytest.raises(WeightsError, match="not finite"):
        freeze_bundle([copy], tmp_path / "b", FreezeOptions(name="b"))
