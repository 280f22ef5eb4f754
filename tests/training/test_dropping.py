"""Images that training drops at random, so that the network does without them: which, how often, and what is left."""

from collections import Counter

import numpy as np
import pytest
import torch

from metseg.errors import InputError
from metseg.plan.bundle import read_metadata
from training.data.batches import CropDataset, Slot
from training.data.cache import open_entry
from training.data.whole import lay_out_channels
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.recipe import load_recipe
from training.recipe_sections import DataRecipe
from training.train.run import RunRequest, train_run
from training_support import small_recipe, write_entries, write_labelled_case, write_labelled_cohort

CHANNELS = ("t1n", "t1c", "t2w", "t2f", "sub", "has-t1n", "has-t2w", "has-t2f")
EVERYTHING = {
    "noise_probability": 1,
    "gamma_probability": 1,
    "contrast_probability": 1,
    "brightness_probability": 1,
    "blur_probability": 1,
    "coarse_probability": 1,
    "bias_probability": 1,
}


def recipe_that_drops(shares, channels=CHANNELS, **changes):
    data = {"channels": channels, "drop_channels": shares}
    return small_recipe(data=data, augmentation=EVERYTHING, **changes)


def read_crops(folder, recipe, slots=range(3)):
    """Images of some slots, shape (crops, channels, x, y, z)."""
    dataset = CropDataset(write_entries(folder, 3), recipe)
    return torch.cat([dataset[Slot(0, place, f"case-{place}", 1.0, 0)].images for place in slots])


def test_the_members_recipes_drop_every_subset_in_its_share_and_mostly_none():
    data = load_recipe("any_baseline").data
    drawn = Counter(data.draw_missing(31, epoch, place, 0) for epoch in range(40) for place in range(100))
    assert len(drawn) == 8
    assert drawn.most_common(1)[0][0] == frozenset()
    for key, share in data.drop_channels.items():
        assert drawn[frozenset(key.split("+"))] / 4000 == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("missing", ["t1n", "t2w", "t2f", "t1n+t2w", "t1n+t2w+t2f"])
def test_a_missing_image_is_0_and_its_presence_too_whatever_augmentation_does(missing, tmp_path):
    crops = read_crops(tmp_path, recipe_that_drops({missing: 1.0}))
    gone = set(missing.split("+"))
    for place, name in enumerate(CHANNELS):
        image = crops[:, place]
        if name in gone or (name == "sub" and "t1n" in gone) or name.removeprefix("has-") in gone:
            assert not image.any(), name
        elif name.startswith("has-"):
            assert (image == 1).all(), name
        else:
            assert all(crop.unique().numel() > 1000 for crop in image), f"{name} has noise everywhere"


def test_dropping_changes_nothing_else(tmp_path):
    """The images that stay have what they would have without dropping, as long as nothing else is drawn for them."""
    still = {"affine_probability": 0.5}
    plain = small_recipe(augmentation=still, data={"channels": ("t1c", "t2f")})
    drops = small_recipe(augmentation=still, data={"channels": ("t1c", "t2f"), "drop_channels": {"t2f": 1.0}})
    plain, drops = (
        recipe.model_copy(update={"augmentation": recipe.augmentation.model_copy(update={"noise_probability": 0})})
        for recipe in (plain, drops)
    )
    one, other = read_crops(tmp_path, plain), read_crops(tmp_path, drops)
    assert torch.equal(one[:, 0], other[:, 0])
    assert one[:, 1].any()
    assert not other[:, 1].any()


def test_which_crops_lack_what_depends_on_seed_and_place_alone():
    data = DataRecipe(drop_channels={"t1n": 0.3, "t2w": 0.3})
    draws = [data.draw_missing(5, 1, place, number) for place in range(20) for number in range(2)]
    assert draws == [data.draw_missing(5, 1, place, number) for place in range(20) for number in range(2)]
    assert draws != [data.draw_missing(6, 1, place, number) for place in range(20) for number in range(2)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"drop_channels": {"t1c": 0.1}}, "must name images that the network reads"),
        ({"drop_channels": {"t2w+t1n": 0.1}}, r"in the order t1n\+t2w\+t2f, found 't2w\+t1n'"),
        ({"drop_channels": {"t2w": 0.1}, "channels": ("t1n", "t1c", "t2f", "sub")}, "found 't2w'"),
        ({"drop_channels": {"t1n": 0.6, "t2w": 0.6}}, "must not exceed 1 together, found 1.2"),
        ({"drop_channels": {"t1n": 0.1}, "missing_t2w": "t2f"}, "contradicts drop_channels"),
    ],
)
def test_shares_that_make_no_sense_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        DataRecipe.model_validate(data)


def test_a_run_that_drops_takes_cases_without_and_says_in_plan_and_weights_what_is_optional(tmp_path):
    write_labelled_cohort(tmp_path / "data", 4)
    write_labelled_case(tmp_path / "data", "P-00009-000", seed=9, without="t2f")
    recipe = recipe_that_drops({"t2f": 0.3, "t1n+t2f": 0.3}, split={"train": 0.8, "validation": 0.2}, epochs=1)
    request = RunRequest(
        data=(tmp_path / "data",), output=tmp_path / "run", cache=tmp_path / "cache", device="cpu", workers=0
    )
    train_run(recipe, request)
    plan = freeze_bundle([request.output], tmp_path / "bundle", FreezeOptions(name="any", checkpoint="last"))
    assert plan.members[0].optional == ("t1n", "t2f")
    assert plan.required_modalities == {"t1c", "t2w"}
    assert plan.modalities == {"t1n", "t1c", "t2w", "t2f"}
    content = (tmp_path / "bundle" / "small.safetensors").read_bytes()
    assert read_metadata(content, tmp_path)["optional"] == "t1n,t2f"


def test_a_run_that_drops_something_else_refuses_the_case(tmp_path):
    write_labelled_case(tmp_path / "data", "P-00009-000", seed=9, without="t2f")
    request = RunRequest(
        data=(tmp_path / "data",), output=tmp_path / "run", cache=tmp_path / "cache", device="cpu", workers=0
    )
    with pytest.raises(InputError, match="t2f missing"):
        train_run(recipe_that_drops({"t1n": 0.5}), request)


def test_a_whole_volume_knows_what_is_there_up_to_its_border(tmp_path):
    case = open_entry(write_entries(tmp_path, 1)["case-0"])
    channels, _, _ = lay_out_channels(case, recipe_that_drops({"t1n": 0.5}))
    assert channels.shape[1:] == case.volume_shape
    assert np.all(channels[5:] == 1)
    assert not channels[:5, 0, 0, 0].any()
