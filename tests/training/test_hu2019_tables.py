"""The radiosurgery system's tables: every recipe of the experiment, and what is printed of known figures."""

import math

import numpy as np
import pytest

from training.losses import SingleTermObjective, SquaredDiceLoss, VolumeAwareDiceLoss
from training.tables.hu2019 import MEMBERS_OF, MODELS, Hu2019Case, load_hu2019
from training.tables.hu2019_published import LOSSES, SYSTEMS, TABLE_3
from training.tables.hu2019_rendering import mean_of_cohorts, render_hu2019

COLUMNS = ("dsc", "precision", "recall", "small_recall", "small_lesion_recall", "large_recall", "large_lesion_recall")


def case(number, cohort, *, shift):
    """Figures that rise with the loss's place and with the case's number."""
    rng = np.random.default_rng([number, cohort])
    base = 0.4 + 0.02 * rng.random()
    losses = {loss: dict.fromkeys(COLUMNS, base + shift * (loss == "batch") + 0.001 * rng.random()) for loss in LOSSES}
    systems = {system: dict.fromkeys(COLUMNS, base + 0.1 * index) for index, system in enumerate(SYSTEMS)}
    if number == 0:
        losses["dice"]["large_recall"] = math.nan
    return Hu2019Case(f"C{number}", cohort, losses, systems, (100, 9000))


CASES = [case(number, cohort, shift=0.1) for cohort in (1, 2) for number in range(8)]


def test_every_network_of_the_experiment_has_a_recipe():
    experiment = load_hu2019("tiny")
    recipes = {model: experiment.make_recipe(model) for model in MODELS}
    assert set(MODELS) >= {model for models in MEMBERS_OF.values() for model in models}
    assert recipes["unet_batch_mr"].data.channels == ("t1c",)
    assert recipes["unet_batch_mr"].data.registration is None
    assert recipes["deepmedic"].data.channels == ("ct", "t1c")
    losses = {model: SingleTermObjective(recipe.loss).loss for model, recipe in recipes.items()}
    assert isinstance(losses["unet_dice"], SquaredDiceLoss)
    assert isinstance(losses["unet_batch"], VolumeAwareDiceLoss)
    assert losses["unet_batch"].constant_voxels is None
    assert losses["unet_2500"].constant_voxels == 2500
    assert {recipe.seed for recipe in recipes.values()} == {1}  # the same crops for every loss


def test_figures_stand_beside_the_published_ones():
    text = render_hu2019(load_hu2019("tiny"), CASES, ["Command: none."])
    assert f"({TABLE_3['both_aware'][0]:.3f})" in text
    assert "| volume-aware, 500 |" in text
    assert "| 50% |" in text  # one of two tumours is above 16 x 500 voxels
    rows = [line for line in text.splitlines() if line.startswith("| Dice > volume-aware, batch | recall")]
    assert len(rows) == 1
    assert rows[0].endswith("| reproduced |")
    undecided = [line for line in text.splitlines() if "Dice > volume-aware, 5000 | recall" in line]
    assert undecided[0].endswith(("| undecided |", "| opposite |", "| reproduced |"))


def test_means_are_of_the_cohorts_means_and_leave_out_what_has_no_figure():
    few = [CASES[0], CASES[1], CASES[8]]
    expected = np.mean([np.mean([c.losses["batch"]["dsc"] for c in few[:2]]), few[2].losses["batch"]["dsc"]])
    assert mean_of_cohorts(few, lambda c: c.losses["batch"], "dsc") == pytest.approx(expected)
    assert mean_of_cohorts(few[:1], lambda c: c.losses["dice"], "large_recall") != mean_of_cohorts(
        few[1:2], lambda c: c.losses["dice"], "large_recall"
    )
    assert math.isnan(mean_of_cohorts(few[:1], lambda c: c.losses["dice"], "large_recall"))
