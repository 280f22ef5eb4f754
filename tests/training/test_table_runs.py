"""The runs of an experiment: order, length, and what is taken for finished."""

import json

import pytest

from metseg.errors import UsageError
from training.runs.checkpoint import Progress
from training.runs.end import Ended, write_end
from training.tables import hu2019_experiment, model_steps, runs
from training.tables.experiment import load_experiment
from training.tables.page import Page, begin_page
from training.tables.request import TablesRequest
from training.tables.runs import lay_runs, train_runs
from training.tables.trained import TrainedRun, read_curve
from training_support import small_recipe

SMALL = load_experiment("small").model_copy(update={"steps": None, "seeds": (1, 2)})
RECIPE = small_recipe()


@pytest.fixture
def limits(monkeypatch):
    """Hours and steps that each run was given; run n makes 40 + n steps in n hours."""
    given = {}

    def train(recipe, request):
        given[request.output.name] = (request.max_hours, request.max_steps)
        request.output.mkdir(parents=True)
        (request.output / "run.json").write_text("{}")
        count = len(given)
        write_end(request.output, Ended(40 + count, 3600.0 * count))
        return Progress(step=40 + count, elapsed_s=3600.0 * count, recipe_sha256=str(recipe.seed))

    monkeypatch.setattr(runs, "train_run", train)
    return given


def laid(experiment=SMALL, models=("baseline", "blob"), pace=model_steps.PACE):
    return lay_runs(dict.fromkeys(models, RECIPE), experiment, pace)


def test_the_baseline_comes_first_and_all_models_make_its_steps(tmp_path, limits):
    trained = train_runs(laid(), TablesRequest(tmp_path, hours=16))
    assert limits == {
        "baseline_1": (3.0, None),
        "blob_1": (None, 41),
        "baseline_2": (None, 41),
        "blob_2": (None, 41),
    }
    assert next(iter(limits)) == "baseline_1"
    assert [(run.model, run.seed, run.step) for run in trained][:2] == [("baseline", 1, 41), ("blob", 1, 42)]


def test_stated_steps_need_no_leader_and_trials_their_own(tmp_path, limits):
    stated = SMALL.model_copy(update={"steps": 500})
    train_runs(laid(stated), TablesRequest(tmp_path / "one", only=("blob",)))
    assert limits == {"blob_1": (None, 500), "blob_2": (None, 500)}
    limits.clear()
    train_runs(laid(stated), TablesRequest(tmp_path / "two", max_steps=7, hours=3))
    assert set(limits.values()) == {(None, 7)}


def test_deepmedic_gets_the_hours_of_the_unet(tmp_path, limits):
    models = ("unet_dice", "unet_batch", "deepmedic", "deepmedic_mr")
    stated = SMALL.model_copy(update={"steps": 500})
    train_runs(laid(stated, models, hu2019_experiment.PACE), TablesRequest(tmp_path))
    assert limits == {
        "unet_dice_1": (None, 500),
        "unet_batch_1": (None, 500),
        "deepmedic_1": (1.0, None),  # unet_dice_1 was the first: one hour
        "deepmedic_mr_1": (None, 43),  # deepmedic_1 was the third
        "unet_dice_2": (None, 500),
        "unet_batch_2": (None, 500),
        "deepmedic_2": (None, 43),
        "deepmedic_mr_2": (None, 43),
    }


def test_only_trains_what_it_names_and_says_what_is_missing(tmp_path, limits):
    with pytest.raises(UsageError, match="as long as baseline_1, which has not ended"):
        train_runs(laid(), TablesRequest(tmp_path, hours=16, only=("blob",)))
    with pytest.raises(UsageError, match="unknown blub"):
        train_runs(laid(), TablesRequest(tmp_path, only=("baseline", "blub")))
    train_runs(laid(), TablesRequest(tmp_path, hours=16, only=("baseline_1",)))
    train_runs(laid(), TablesRequest(tmp_path, hours=16, only=("blob",)))
    assert list(limits) == ["baseline_1", "blob_1", "blob_2"]
    assert limits["blob_2"] == (None, 41)


def test_a_kept_run_that_had_not_ended_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "find_kept_run", lambda _: Ended(300, 60.0))
    with pytest.raises(UsageError, match="kept after 300 of 500 steps"):
        train_runs(laid(SMALL.model_copy(update={"steps": 500})), TablesRequest(tmp_path))


def test_every_network_of_the_radiosurgery_tables_has_a_pace():
    pace = hu2019_experiment.PACE
    assert {model: (own.leader, own.by) for model, own in pace.items()} == {
        **{f"unet_{loss}": ("unet_dice", "steps") for loss in ("batch", "500", "1000", "2500", "5000", "batch_mr")},
        "deepmedic": ("unet_dice", "hours"),
        "deepmedic_mr": ("deepmedic", "steps"),
    }


def test_a_curve_has_ten_points_each_of_the_nearest_validation(tmp_path):
    assert read_curve(tmp_path, 100) == ()
    steps = (5, 9, 21, 30, 40, 52, 60, 70, 80, 100)
    lines = [{"kind": "validation", "step": step, "score": step / 100} for step in steps]
    text = "".join(json.dumps(line) + "\n" for line in [{"kind": "train", "step": 50, "loss": 1.0}, *lines])
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_curve(tmp_path, 100) == (0.09, 0.21, 0.3, 0.4, 0.52, 0.6, 0.7, 0.8, 0.8, 1.0)
    (tmp_path / "metrics.jsonl").write_text("".join(text.splitlines(keepends=True)[:-1]))
    assert read_curve(tmp_path, 100) == ()


def test_the_page_shows_steps_hours_and_the_mean_curve_of_each_model():
    own = [TrainedRun("baseline", seed, 500, 3600.0 * seed, (0.1 * seed,) * 10) for seed in (1, 2)]
    blob = [TrainedRun("blob", 1, 500, 5400.0, ())]
    lines = begin_page(Page("what was run", ["a fact."], [own[0], *blob, own[1]]), "How to read.")
    assert f"| baseline | 500, 500 | 1.00, 2.00 |{' 0.150 |' * 10}" in lines
    assert f"| blob | 500 | 1.50 |{' - |' * 10}" in lines
