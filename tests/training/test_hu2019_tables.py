"""The radiosurgery system's tables: every recipe of the experiment, and what is printed of known figures."""

import math

import numpy as np
import pytest

from training.data.cases import find_cases
from training.losses import SingleTermObjective, SquaredDiceLoss, VolumeAwareDiceLoss
from training.references import read_reference_map
from training.tables.experiment import Requirement
from training.tables.hu2019_constants import (
    count_tumour_voxels,
    published_share,
    scale_constants,
    settle_constants,
)
from training.tables.hu2019_experiment import MEMBERS_OF, MODELS, load_hu2019
from training.tables.hu2019_published import CONSTANTS, LOSSES, SYSTEMS, TABLE_3
from training.tables.hu2019_rendering import mean_of_cohorts, measure_reached, name_directions, render_hu2019
from training.tables.hu2019_scoring import Hu2019Case, pool_seeds
from training.tables.page import Page
from training_support import write_labelled_cohort

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


# The paper's own sizes: each constant stays what it is.
PAPERS_SIZES = (
    np.exp(np.random.default_rng(0).normal(math.log(760), math.sqrt(2 * math.log(3400 / 760)), 400_000)) / 0.72
)
SCALED = scale_constants(PAPERS_SIZES)


def show(cases, **page):
    return render_hu2019(Page("what was run", ["Command: none."], **page), [cases], SCALED, large_volume_mm3=187.5)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_every_network_of_the_experiment_has_a_recipe(size):
    experiment = load_hu2019(size)
    recipes = {model: experiment.make_recipe(model, {loss: int(loss) for loss in CONSTANTS}) for model in MODELS}
    assert set(MODELS) >= {model for models in MEMBERS_OF.values() for model in models}
    assert recipes["unet_batch_mr"].data.channels == ("t1c",)
    assert recipes["unet_batch_mr"].data.registration is None
    assert recipes["deepmedic"].data.channels == ("ct", "t1c")
    losses = {model: SingleTermObjective(recipe.loss).loss for model, recipe in recipes.items()}
    assert isinstance(losses["unet_dice"], SquaredDiceLoss)
    assert isinstance(losses["unet_batch"], VolumeAwareDiceLoss)
    assert losses["unet_batch"].constant_voxels is None
    assert losses["unet_2500"].constant_voxels == 2500
    assert all(recipe.validation.times >= 10 for recipe in recipes.values())


def test_the_small_experiment_asks_for_a_trained_unet_and_the_papers_sizes():
    small = load_hu2019("small")
    assert (small.reaches.model, small.reaches.metric, small.reaches.at_least) == ("unet_dice", "dsc", 0.55)
    assert len(small.seeds) == 2
    for own in (small.cohort.settings, small.second_settings):
        settings = small.make_settings(own)
        assert settings.grid.lesion_scale == settings.grid.anatomy_scale
        assert settings.lesions.diameter_median_mm == pytest.approx((760 * 6 / math.pi) ** (1 / 3), abs=0.1)
        # A volume's spread is three times a diameter's.
        assert 3 * settings.lesions.diameter_log_std == pytest.approx(math.sqrt(2 * math.log(3400 / 760)), abs=0.01)
    assert small.large_volume_mm3 == pytest.approx(1500 * settings.grid.anatomy_scale**3)


def test_constants_keep_the_papers_shares():
    assert [published_share(constant) for constant in (500, 1000, 2500, 5000)] == pytest.approx(
        [0.121, 0.058, 0.018, 0.006], abs=0.001
    )
    assert [SCALED[loss].ours for loss in CONSTANTS] == pytest.approx([500, 1000, 2500, 5000], rel=0.05)
    shrunk = scale_constants(PAPERS_SIZES / 8)
    assert [shrunk[loss].ours for loss in CONSTANTS] == pytest.approx([62, 125, 312, 625], rel=0.05)
    for loss in CONSTANTS:
        assert shrunk[loss].share == pytest.approx(published_share(float(loss)), rel=0.1)
    assert scale_constants([1.0])["500"].ours == 1


def test_constants_stay_once_they_are_settled(tmp_path):
    file = tmp_path / "constants.json"
    first = settle_constants(PAPERS_SIZES / 8, file)
    assert first == scale_constants(PAPERS_SIZES / 8)
    again = settle_constants(PAPERS_SIZES, file)
    assert [again[loss].ours for loss in CONSTANTS] == [first[loss].ours for loss in CONSTANTS]
    assert again["500"].share > first["500"].share


def test_tumours_are_counted_in_voxels_of_the_networks_grid(tmp_path):
    (files,) = find_cases([write_labelled_cohort(tmp_path / "data", 1)]).values()
    counts = count_tumour_voxels([files], 2.0)
    assert sum(counts) == pytest.approx((read_reference_map(files).labels > 0).sum() / 2)
    assert len(counts) >= 2


def test_seeds_are_pooled_over_those_that_have_a_figure():
    first, second = case(0, 1, shift=0.1), case(0, 1, shift=0.3)
    second.losses["dice"]["large_recall"] = 0.5
    (pooled,) = pool_seeds([[first], [second]])
    assert pooled.losses["dice"]["large_recall"] == 0.5
    assert pooled.losses["batch"]["dsc"] == pytest.approx(
        (first.losses["batch"]["dsc"] + second.losses["batch"]["dsc"]) / 2
    )
    assert math.isnan(pool_seeds([[first], [first]])[0].losses["dice"]["large_recall"])


def test_a_difference_is_taken_within_each_seed():
    first, second = case(0, 1, shift=0.1), case(0, 1, shift=0.3)
    first.losses["batch"]["precision"] = math.nan  # nothing was predicted
    second.losses["dice"]["precision"], second.losses["batch"]["precision"] = 0.2, 0.5
    text = render_hu2019(Page("", []), [[first], [second]], SCALED, large_volume_mm3=187.5)
    (line,) = (line for line in text.splitlines() if line.startswith("| Dice > volume-aware, batch | precision"))
    assert "+0.300 [" in line
    assert "| -, +0.300 |" in line


def test_without_enough_training_nothing_is_decided():
    asked = Requirement(model="unet_dice", metric="dsc", at_least=0.55)
    reached = measure_reached(asked, CASES)
    assert reached.figure == pytest.approx(0.41, abs=0.01)
    text = show(CASES, reached=reached)
    assert "Not enough training" in text[:200]
    assert text.count("| undecided: not enough training |") == len(name_directions()) - 3  # no figure published
    assert "| reproduced |" not in text


def test_a_note_stands_under_its_table():
    name = "Dice > volume-aware, 500, dsc"
    assert name in name_directions()
    text = show(CASES, notes={name: "Looked into."})
    assert text.index("### Table 1") < text.index(f"**{name}**: Looked into.") < text.index("### Table 2")


def test_figures_stand_beside_the_published_ones():
    text = show(CASES)
    assert f"({TABLE_3['both_aware'][0]:.3f})" in text
    assert "| volume-aware, 500 |" in text
    assert "| 50.0% |" in text  # one of two tumours is above 16 x 500 voxels
    assert f"| 500 | {SCALED['500'].ours} | 12.1% | 12.1% |" in text
    assert "under 187.5 mm3" in text
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
