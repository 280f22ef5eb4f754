"""Recipes: what they extend, what they mean, and how runs know theirs."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import create_model

from metseg.errors import UsageError
from metseg.labels import BRATS_REGIONS
from metseg.plan.plan import PRESENCE, MemberPlan, Plan, WindowPlan
from metseg.systems import OWN_GRID
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.recipe import Recipe, load_recipe, recipe_names
from training.recipe_sections import DataRecipe, OptimizerRecipe
from training.runs.checkpoint import read_checkpoint
from training.runs.files import LAST, RECIPE_FILE, RUN_FILE
from training.runs.recipes import hash_written_recipe, identify_recipe
from training.train.run import RunRequest, train_run
from training_support import small_recipe, write_labelled_cohort

RESOLVED = {
    "any_baseline": "cb03a4ab5582f63a",
    "any_blob": "df7edf0079c15360",
    "any_blob_sub": "2511cd02333fab95",
    "any_small": "1abfb6d821eb7665",
    "baseline": "43afa5ae16bd8fbd",
    "baseline_centred": "a07b50c66093772d",
    "blob": "9bf7c8bf3959ff76",
    "blob_sub": "db82bf94413f6a17",
    "deepmedic": "ce77f7f9f53b5fdf",
    "deepmedic_small": "290ed3730b1f02e5",
    "mets_baseline": "0fc6cdae426ef200",
    "mets_blob": "f49bbcf92051f9f6",
    "mets_blob_sub": "ef153e362bdecb83",
    "mets_coarse": "d9090f07f1ef6fe9",
    "mets_fold_1": "a54aa73b8418eff4",
    "mets_fold_2": "7433dd97ef5d6058",
    "mets_fold_3": "64ac4c3fff00382b",
    "mets_small": "97b2501457466681",
    "mets_small_first": "fe14d42b3d8e573f",
    "mets_warmup": "89d64e8bdcde67f7",
    "mets_warmup_blob": "478c78dce93880e7",
    "mets_wide": "ba1a249054ba5f5f",
    "small_lesions": "7c921119ae7213d7",
    "srs_deepmedic": "9865db43751bf96c",
    "srs_unet": "13c45980c34b0cfe",
    "tables_baseline": "8b86671157da8315",
    "tables_baseline_centred": "d5f9bf7411541b1a",
    "tables_blob": "dedab547af52db57",
    "tables_blob_sub": "a8bb706e9be82414",
    "tables_small_lesions": "ecc0c5e798909b4b",
    "tiny_baseline": "aaddf81be70f6494",
    "tiny_baseline_centred": "c0812dbe806a5bff",
    "tiny_blob": "d2c5578e9677b9a6",
    "tiny_blob_sub": "1537261ab8a152dd",
    "tiny_small_lesions": "d29c07878cf43eac",
    "unet": "8eba2f2245046981",
    "unet_small": "b8b68e95fc2ff3d5",
}
"""First 16 digits of each recipe's hash: what they resolve to, whatever they extend."""


def test_recipes_resolve_to_what_they_were():
    assert {name: load_recipe(name).sha256[:16] for name in recipe_names()} == RESOLVED


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_of_the_project_can_be_read(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    images = [name for name in recipe.data.channels if name not in PRESENCE]
    assert len(images) == (4 if recipe.system.system.has_parts else 2)
    assert {PRESENCE[name] for name in recipe.data.channels if name in PRESENCE} == set(recipe.data.optional) - OWN_GRID


def test_the_paper_is_the_default():
    recipe = load_recipe("baseline")
    assert recipe.crops.size == (192, 192, 32)
    assert (recipe.batch_cases, recipe.crops.per_case, recipe.epochs) == (5, 2, 200)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay) == (1e-4, 1e-5)
    assert load_recipe("small_lesions").data.max_lesion_voxels == 1000


def differing(one, other):
    """The sections in which two recipes differ, beyond what tells runs of one kind apart."""
    recipes = [load_recipe(name).model_dump() for name in (one, other)]
    return {key for key in recipes[0] if recipes[0][key] != recipes[1][key]} - {"name", "description", "seed"}


def test_the_papers_recipes_differ_in_their_step_alone():
    """What a row adds is all that changes from the row before: else its difference would show something else."""
    for size in ("tiny", "tables"):
        assert differing(f"{size}_baseline", f"{size}_blob") == {"loss"}
        assert differing(f"{size}_blob", f"{size}_blob_sub") == {"data"}
        assert differing(f"{size}_blob_sub", f"{size}_small_lesions") == {"data"}
        assert differing(f"{size}_baseline", f"{size}_baseline_centred") == {"crops"}
    assert load_recipe("tiny_baseline").seed == load_recipe("tiny_baseline_centred").seed


def test_the_folds_recipes_are_their_bundles():
    """The cross-validation measures the way in which the bundle is trained."""
    folds = [f"mets_fold_{number}" for number in (1, 2, 3)]
    assert all(differing(fold, "mets_coarse") == set() for fold in folds)
    assert len({load_recipe(name).seed for name in (*folds, "mets_coarse")}) == 4


def test_the_wide_recipe_is_that_of_the_narrower_but_for_its_width_and_rate():
    assert differing("mets_wide", "mets_coarse") == {"network", "optimizer"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: x\nepochs: 0", "epochs"),
        ("name: x\nunknown: 1", "unknown"),
        ("name: x\ncrops: {size: [24, 16, 16]}", "crop sides divide by 16"),
        ("name: x\ncrops: {other_sizes: [[20, 16, 16]]}", "multiples of 8"),
        ("name: x\ncrops: {other_sizes: [[32, 32, 32]]}", "VAE branch knows one crop size"),
        (
            "name: x\ncrops: {lesion_probability: 0.8, false_positive_probability: 0.3}",
            "not exceed 1 together, found 1.1",
        ),
        ("name: x\ndata: {visits: {A: 0}}", "visits"),
        ("name: [", "not YAML"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path, content, message):
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_recipe(str(tmp_path / "r.yaml"))


# ---- extends


def test_a_recipe_changes_keys_of_another_and_leaves_the_rest(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: mets_coarse\nname: mine\ncrops: {per_case: 3}\ndata: {visits: {}}\n")
    (tmp_path / "next.yaml").write_text("extends: mine.yaml\nname: next\nseed: 9\n")
    below, mine, last = (load_recipe(name) for name in ("mets_coarse", *map(str, sorted(tmp_path.iterdir()))))
    assert mine.crops == below.crops.model_copy(update={"per_case": 3})
    assert (mine.data.visits, mine.data.spacing_mm) == ({}, 2.0)
    assert last == mine.model_copy(update={"name": "next", "seed": 9})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("extends: r.yaml\nname: x", "extends itself"),
        ("extends: nowhere\nname: x", "neither a file nor one of any_baseline"),
        ("extends: [a]\nname: x", "names one recipe"),
        ("extends: baseline\nname: x\nunknown: 1", "r.yaml: unknown"),
    ],
)
def test_what_cannot_be_extended_is_named(tmp_path, content, message):
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_recipe(str(tmp_path / "r.yaml"))


# ---- hashes and older runs


def test_a_field_that_joins_a_section_with_its_default_changes_no_hash():
    recipe = small_recipe()
    later_data = create_model("LaterData", __base__=DataRecipe, later=(float | None, None))
    later_window = create_model("LaterWindow", __base__=WindowPlan, later=(int, 3))
    later = create_model("Later", __base__=Recipe, data=(later_data, later_data()), later=(tuple[int, ...], (1, 2)))
    content = recipe.model_dump(mode="json")
    assert later.model_validate(content).sha256 == recipe.sha256
    assert later.model_validate({**content, "later": [1]}).sha256 != recipe.sha256
    member = MemberPlan(name="m", weights="m.safetensors", sha256="0" * 64, window=WindowPlan(size=(16, 16, 16)))
    plan = Plan(name="p", members=(member,))
    later_member = create_model("LaterMember", __base__=MemberPlan, window=(later_window | None, None))
    later_plan = create_model("LaterPlan", __base__=Plan, members=(tuple[later_member, ...], ...), more=(bool, False))
    assert later_plan.model_validate(plan.model_dump(mode="json")).sha256 == plan.sha256


OLD_RUN = Path(__file__).parent / "run_of_c4458ca"
OLD_SHA256 = "84b90bb855e7cd4728b0c3eec76841bf56011285a07cfe224d6b254fad8747ac"
"""What checkpoints of revision c4458ca say of the recipe in that folder, by that revision's rule."""


def ask_for_two_steps(folder: Path) -> RunRequest:
    """A run of two steps on a new cohort of four cases, all in this folder."""
    return RunRequest(
        data=(write_labelled_cohort(folder / "data", 4),),
        output=folder / "run",
        cache=folder / "cache",
        max_steps=2,
        device="cpu",
        threads=1,
    )


@pytest.fixture
def old_run(tmp_path):
    """A run whose folder says of its recipe what that revision wrote: no key that came later, and that hash."""
    recipe = load_recipe(str(OLD_RUN / RECIPE_FILE))
    request = ask_for_two_steps(tmp_path)
    train_run(recipe, request)
    new_sha256 = hash_written_recipe(request.output)
    assert new_sha256 != OLD_SHA256
    shutil.copy(OLD_RUN / RECIPE_FILE, request.output)
    for path in (*request.output.glob("*.safetensors"), request.output / RUN_FILE):
        path.write_bytes(path.read_bytes().replace(new_sha256.encode(), OLD_SHA256.encode()))
    return recipe, request


def test_a_run_of_an_older_revision_is_frozen_and_goes_on(old_run, tmp_path):
    recipe, request = old_run
    assert identify_recipe(recipe, request.output) == OLD_SHA256
    plan = freeze_bundle([request.output], tmp_path / "bundle", FreezeOptions(name="old", checkpoint="last"))
    assert plan.regions == BRATS_REGIONS
    written = (request.output / RECIPE_FILE).read_bytes()
    longer = RunRequest(**{**{name: getattr(request, name) for name in request.__slots__}, "max_steps": 3})
    # By its own file, and by a recipe that means the same today.
    assert train_run(small_recipe(split={"train": 0.75, "validation": 0.25}), longer).step == 3
    assert (request.output / RECIPE_FILE).read_bytes() == written
    assert read_checkpoint(request.output / LAST)[1].recipe_sha256 == OLD_SHA256
    assert json.loads((request.output / RUN_FILE).read_text())["recipe_sha256"] == OLD_SHA256


def test_a_run_does_not_go_on_with_another_recipe(old_run):
    recipe, request = old_run
    with pytest.raises(UsageError, match="begun with another recipe"):
        train_run(recipe.model_copy(update={"seed": 6}), request)


# ---- regions


def test_a_recipe_lists_its_regions():
    recipe = small_recipe(regions=["WT", "TC", "ET", "RC"])
    assert small_recipe().regions == BRATS_REGIONS
    assert recipe.regions.names == recipe.member.regions == ("WT", "TC", "ET", "RC")
    assert recipe.system is small_recipe().system
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert recipe.sha256 != small_recipe().sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": ["WT", "TC", "edema"]}, "no system knows the regions"),
        ({"regions": "WT"}, "expected a list of names"),
        ({"regions": ["metastasis"]}, "sections of two systems"),
        ({"crops": {"lesion_region": "RC"}}, "lesion_region must be one of WT, TC, ET"),
    ],
)
def test_regions_that_fit_no_network_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_recipe(**changes)


def test_a_region_more_goes_all_the_way_to_the_bundle(tmp_path):
    """No case of these has a cavity: a region without voxels is trained and scored all the same."""
    recipe = small_recipe(regions=["WT", "TC", "ET", "RC"], split={"train": 0.75, "validation": 0.25})
    request = ask_for_two_steps(tmp_path)
    train_run(recipe, request)
    lines = [json.loads(line) for line in (request.output / "metrics.jsonl").read_text().splitlines()]
    (validation,) = [line for line in lines if line["kind"] == "validation"]
    assert validation["dice_rc"] <= 1
    plan = freeze_bundle([request.output], tmp_path / "bundle", FreezeOptions(name="rc", checkpoint="last"))
    assert plan.regions == recipe.regions


def test_a_section_of_another_kind_replaces_the_one_below(tmp_path):
    """Below it is RMSProp, with keys that AdamW does not have."""
    path = tmp_path / "own.yaml"
    path.write_text("extends: deepmedic\noptimizer: {kind: adamw, schedule: cosine}\n")
    assert load_recipe(str(path)).optimizer == OptimizerRecipe(schedule="cosine")
    path.write_text("extends: deepmedic\noptimizer: {learning_rate: 0.1}\n")
    optimizer = load_recipe(str(path)).optimizer
    assert (optimizer.kind, optimizer.learning_rate, optimizer.nesterov) == ("rmsprop", 0.1, 0.6)
    path.write_text(
        "extends: baseline\nloss: {kind: dice_ce, blob_weight: 1}\ndata: {intensity: {kind: percentiles}}\n"
    )
    assert load_recipe(str(path)).loss.blob_weight == 1
