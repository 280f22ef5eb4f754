import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation import score_case
from evaluation.summary import Interval, PairedComparison
from metseg.errors import InputError, UsageError
from metseg.files.discovery import discover_cases
from metseg.files.read import read_label_map
from metseg.plan.bundle import open_bundle
from metseg.plan.plan import WindowPlan
from metseg.predict.device import choose_device
from metseg.predict.engine import load_engine
from metseg.run.pipeline import segment
from radiosurgery_support import write_untrained_bundle
from support import write_bundle
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.recipe import load_recipe
from training.references import find_reference
from training.runs.checkpoint import trained_weights
from training.runs.files import LAST
from training.runs.kept import keep_run
from training.tables import stages
from training.tables.command import ReportSection, write_section
from training.tables.comparing import cases_needed, compare_rows, judge, published_difference
from training.tables.composition import score_bundle
from training.tables.experiment import MODELS, Experiment, Requirement, Variant, load_experiment
from training.tables.model_steps import recall_scores, score_model_steps, train_model_steps
from training.tables.page import Page, require_known_notes
from training.tables.published import METRICS, PUBLISHED, TABLES, Pair
from training.tables.rendering import lay_tables, measure_reached, name_directions, render_report
from training.tables.request import TablesRequest
from training.tables.runs import lay_runs, train_runs
from training.tables.scoring import CaseScores, ModelSteps, average_regions, pool_seeds, score_steps
from training_support import small_recipe, write_labelled_case, write_labelled_cohort


def paired(low, high, cases=48):
    middle = (low + high) / 2
    return PairedComparison(cases, 0.0, middle, middle, middle, Interval(low, high), 0, 0, 1.0)


@pytest.mark.parametrize(
    ("published", "low", "high", "verdict"),
    [
        (0.03, 0.01, 0.05, "reproduced"),
        (-0.03, -0.05, -0.01, "reproduced"),
        (0.03, -0.05, -0.01, "opposite"),
        (-0.03, 0.01, 0.05, "opposite"),
        (0.03, -0.01, 0.05, "undecided"),
        (0.03, 0.0, 0.05, "undecided"),
        (0.03, np.nan, np.nan, "undecided"),
        (0.0, 0.01, 0.05, "not published"),
        (None, 0.01, 0.05, "not published"),
    ],
)
def test_a_direction_counts_only_where_the_interval_excludes_zero(published, low, high, verdict):
    assert judge(published, paired(low, high)) == verdict


def test_the_cases_that_would_decide():
    # Half-width 0.04 around 0.02 with 50 cases: four times as many halve it.
    assert cases_needed(paired(-0.02, 0.06, cases=50)) == 200
    assert cases_needed(paired(-0.02, 0.02)) is None
    assert cases_needed(paired(-0.02, 0.02 + 1e-15)) is None
    assert cases_needed(paired(-0.02, 0.0201, cases=50)) is None


def test_the_published_figures_are_complete_and_consistent():
    for table in TABLES[:4]:
        assert all(row in PUBLISHED for row in table.rows)
    assert published_difference(Pair(("baseline", True), ("blob", True)), "lDSC") == pytest.approx(0.03)
    assert published_difference(Pair(("baseline", False), ("baseline", True)), "FP") == pytest.approx(-1.25)
    assert published_difference(Pair(("baseline", True), ("centred", True)), "FP") is None


def synthetic_scores(cases=48, seed=0):
    """Figures that differ by method: more of everything from step to step, clearly in lDSC and opposite in FP."""
    rng = np.random.default_rng(seed)
    methods = ("baseline", "blob", "sub", "tta", "mean", "simple", "small", "simple_small", "centred")
    found = []
    for number in range(cases):
        scores = {}
        for rank, method in enumerate(methods):
            for post in ("", "+post"):
                row = np.array([0.3 + 0.03 * rank, 0.6, 250.0, 25.0, 1.0 + 0.2 * rank, 0.5])
                scores[method + post] = {region: tuple(row + rng.normal(0, 0.01, 6)) for region in ("WT", "TC", "ET")}
        found.append(CaseScores(f"c{number}", number % 2 == 0, scores))
    return found


def test_comparisons_follow_the_figures():
    differences = {
        item.metric: item for item in compare_rows(Pair(("baseline", True), ("blob", True)), [synthetic_scores()])
    }
    assert tuple(differences) == METRICS
    assert differences["lDSC"].verdict == "reproduced"
    assert differences["lDSC"].paired.mean_difference == pytest.approx(0.03, abs=0.005)
    assert differences["FP"].verdict == "opposite"
    assert "lower in 0" in differences["FP"].looked_into
    assert differences["lHD95"].verdict in {"undecided", "reproduced", "opposite"}


def test_without_enough_training_nothing_is_decided():
    asked = Requirement(model="baseline", metric="lDSC", at_least=0.4)
    reached = measure_reached(asked, synthetic_scores())
    assert reached.figure == pytest.approx(0.3, abs=0.01)
    assert not reached.enough
    report = render_report(Page("what was run", ["a fact."], reached=reached), [synthetic_scores()])
    beginning = " ".join(report.splitlines()[:4])
    assert "Not enough training" in beginning
    assert f"lDSC {reached.figure:.3f}" in beginning
    assert "| undecided: not enough training | |" in report
    assert "cases would decide" not in report
    assert "| reproduced |" not in report
    assert "| opposite |" not in report
    enough = measure_reached(asked.model_copy(update={"at_least": 0.2}), synthetic_scores())
    assert "| reproduced |" in render_report(Page("what was run", [], reached=enough), [synthetic_scores()])


def test_a_note_stands_under_the_table_of_its_direction():
    name = "baseline > + blob loss, FP"
    require_known_notes({name: ""}, name_directions(TABLES))
    with pytest.raises(UsageError, match="which no table has"):
        require_known_notes({"baseline > nothing, FP": ""}, name_directions(TABLES))
    report = render_report(Page("what was run", [], notes={name: "Looked into."}), [synthetic_scores()])
    assert report.index("### Table 3") < report.index(f"**{name}**: Looked into.") < report.index("### Table 4")


def test_a_case_counts_once_with_the_mean_of_its_seeds():
    first, second = synthetic_scores(cases=3), synthetic_scores(cases=3, seed=1)
    pooled = pool_seeds([first, second])
    assert [case.case_id for case in pooled] == ["c0", "c1", "c2"]
    own = [case.scores["sub+post"]["TC"] for case in (first[1], second[1])]
    assert pooled[1].scores["sub+post"]["TC"] == pytest.approx(np.mean(own, axis=0))
    pair = Pair(("baseline", True), ("sub", True))
    means = [compare_rows(pair, [cases])[0].paired for cases in (first, second, pooled)]
    assert means[2].cases == 3
    assert means[2].mean_difference == pytest.approx((means[0].mean_difference + means[1].mean_difference) / 2)
    both = compare_rows(pair, [first, second])[0]
    assert both.paired == means[2]
    assert both.of_seeds == pytest.approx([means[0].mean_difference, means[1].mean_difference])


def test_means_are_of_the_three_regions():
    scores = {"WT": (1.0,) * 6, "TC": (2.0,) * 6, "ET": (6.0,) * 6}
    assert average_regions(scores) == (3.0,) * 6


def test_the_report_shows_every_table_with_cases_and_intervals():
    report = render_report(Page("what was run", ["a fact."]), [synthetic_scores()])
    for number in (3, 4, 5, 6):
        assert f"### Table {number}:" in report
    assert "| small-lesion model alone | 24 |" in report  # every second case has a small lesion
    assert "| SIMPLE of the four | 48 |" in report
    assert "(0.49)" in report
    opposite = next(line for line in report.splitlines() if line.startswith("| baseline > + blob loss | FP |"))
    assert "| opposite | higher in" in opposite
    assert "n 48 |" in report


def test_a_section_replaces_its_predecessor_alone(tmp_path):
    path = tmp_path / "results.md"
    path.write_text("# Results\n\nBefore.\n")
    write_section(path, ReportSection("erdur2023", "The paper's models, tiny", "one\n"))
    write_section(path, ReportSection("bundle", "The members", "two\n"))
    write_section(path, ReportSection("erdur2023", "The paper's models, small", "three \\1\n"))
    text = path.read_text()
    assert text.startswith("# Results\n\nBefore.\n")
    assert "one" not in text
    assert text.count("## The paper's models") == 1
    assert "## The paper's models, small\n\nthree \\1\n<!-- tables erdur2023: end -->" in text
    assert "two\n<!-- tables bundle: end -->" in text


def test_the_experiments_can_be_read():
    tiny, small, full = (load_experiment(name) for name in ("tiny", "small", "full"))
    assert tiny.cohort.cohort_settings().grid.shape == (96, 96, 64)
    assert tiny.load_recipe("small").data.max_lesion_voxels == tiny.small_voxels
    assert small.cohort.test >= 60
    assert len(small.seeds) == 2
    assert (small.reaches.model, small.reaches.metric, small.reaches.at_least) == ("baseline", "lDSC", 0.4)
    assert small.load_recipe("small").data.max_lesion_voxels == small.small_voxels
    assert all(small.load_recipe(model).validation.times >= 10 for model in MODELS)
    assert all(small.load_recipe(model).loss.vae_weight == 0 for model in MODELS)
    assert full.load_recipe("small").data.max_lesion_voxels == full.small_voxels == 1000
    assert full.load_recipe("baseline").crops.size == (192, 192, 32)


@pytest.fixture
def small_experiment(monkeypatch):
    sub = {"data": {"channels": ("t1n", "t1c", "t2f", "sub")}}
    recipes = {
        "baseline": small_recipe(name="m_baseline", loss={"blob_weight": 0}),
        "blob": small_recipe(name="m_blob"),
        "sub": small_recipe(name="m_sub", **sub),
        "small": small_recipe(name="m_small", data={**sub["data"], "max_lesion_voxels": 150}),
        "centred": small_recipe(name="m_centred", crops={"lesion_probability": 1.0}),
    }
    split = {"split": {"train": 0.5, "validation": 0.25}}
    recipes = {
        model: recipe.model_copy(update={"split": small_recipe(**split).split}) for model, recipe in recipes.items()
    }
    monkeypatch.setattr(Experiment, "load_recipe", lambda _, model: recipes[model])
    tiny = load_experiment("tiny")
    return tiny.model_copy(
        update={
            "window": tiny.window.model_copy(update={"size": (32, 40, 24)}),
            "tta": tiny.tta.model_copy(update={"variant": "flips"}),
            "seeds": (1, 2),
            "variants": {
                "few": Variant(title="fewer windows", like="tta", window={"size": (32, 40, 24), "overlap": 0})
            },
        }
    )


def test_the_steps_from_cases_to_scores_and_again(tmp_path, small_experiment, monkeypatch):
    write_labelled_cohort(tmp_path / "data", 8)
    request = TablesRequest(tmp_path / "out", data=(tmp_path / "data",), max_steps=2, device="cpu", threads=1)
    trained = train_model_steps(small_experiment, request)
    result = score_model_steps(small_experiment, trained, request)
    assert [(run.model, run.seed) for run in trained.runs] == [(model, seed) for seed in (1, 2) for model in MODELS]
    assert {run.step for run in trained.runs} == {2}
    assert len(result.cases) == len(trained.split.test) == 2
    assert all(len(case.scores) == 2 * (9 + len(small_experiment.variants)) for case in result.cases)
    tables = lay_tables(small_experiment.variants)
    report = render_report(Page("the steps", [], trained.runs), result.by_seed, tables)
    assert "### Table 6" in report
    assert "| + TTA > fewer windows | FP |" in report
    _check_seeds_differ(request)
    _check_steps_of_a_bundle(tmp_path, request, small_experiment)
    # Everything is there: nothing is trained or scored again. A kept run stands for the one it was made of.
    monkeypatch.setattr("training.tables.model_steps.score_steps", None)
    assert score_model_steps(small_experiment, trained, request) == result
    _keep_all(request, monkeypatch)
    with pytest.raises(UsageError, match=r"has no best\.safetensors"):
        train_runs(
            lay_runs({"baseline": small_experiment.load_recipe("baseline")}, small_experiment, {}), request, "best"
        )
    again = train_model_steps(small_experiment, request)
    assert again.runs == trained.runs
    with pytest.raises(TypeError):  # half-precision weights are other weights: their cases are scored anew
        score_model_steps(small_experiment, again, request)


def _check_seeds_differ(request):
    weights = [trained_weights(request.run_folder(name) / LAST) for name in ("baseline_1", "baseline_2")]
    assert any(not torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def _keep_all(request, monkeypatch):
    """As in a fresh checkout that has the kept runs alone."""
    for folder in sorted((request.output / "runs").iterdir()):
        keep_run(folder, folder.with_name(f"{folder.name}-kept"))
        shutil.rmtree(folder)
        folder.with_name(f"{folder.name}-kept").rename(folder)
    shutil.rmtree(request.cache)
    monkeypatch.setattr("training.tables.runs.train_run", None)


def _check_steps_of_a_bundle(folder, request, experiment):
    composed = replace(request, output=folder / "composed", data=(write_labelled_cohort(folder / "few", 2),))
    runs = [request.run_folder(f"{model}_1") for model in ("baseline", "blob", "sub")]
    plan = {"window": experiment.window.model_dump(mode="json"), "tta": {"variant": "flips"}}
    freeze_bundle(runs, folder / "three", FreezeOptions(name="three", plan=plan, checkpoint="last"))
    scored = score_bundle(folder / "three", None, composed)
    assert len(scored) == 2
    assert {name for name in scored[0].scores if not name.endswith("+post")} == {
        "baseline", "blob", "sub", "tta", "mean", "simple", "frozen"
    }  # fmt: skip
    report = render_report(Page("the steps", []), [scored])
    assert "### Table 5" in report
    assert "### Table 6" not in report

    small = request.run_folder("small_1")
    name = load_recipe(str(small / "recipe.yaml")).name
    plan |= {"fusion": {"added_by_maximum": [name]}, "tta": {"variant": "none"}}
    options = FreezeOptions(name="four", plan=plan, small_lesions=small, checkpoint="last")
    freeze_bundle(runs, folder / "four", options)
    scored = score_bundle(folder / "four", None, composed)
    assert {"small", "simple_small", "frozen"} <= set(scored[0].scores)
    assert "### Table 6" in render_report(Page("the steps", []), [scored])
    with pytest.raises(UsageError, match="5 members"):
        score_bundle(request.bundle(1), None, request)


@pytest.fixture
def bundle_steps(tmp_path):
    def build(**plan):
        path = write_bundle(tmp_path / "b", tta={"variant": "none"}, **plan)
        engine = load_engine(open_bundle(path), choose_device("cpu"))
        models = dict(zip(("baseline", "blob", "sub"), ("m0", "m1", "m2"), strict=True))
        return ModelSteps(engine, models, engine.plan.tta, as_frozen=True)

    return build


def test_cases_without_an_image_of_the_bundle_are_named_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("training.tables.composition.load_engine", None)
    data = write_labelled_cohort(tmp_path / "data", 2)
    write_labelled_case(data, "Q-1", 2, without="t2w")
    write_labelled_case(data, "Q-2", 3, without="t1c")
    request = TablesRequest(tmp_path / "out", data=(data,), device="cpu", threads=1)
    with pytest.raises(
        InputError, match=r"needs t1c, t1n, t2f, t2w of each case: case Q-1 lacks t2w, case Q-2 lacks t1c$"
    ):
        score_bundle(write_bundle(tmp_path / "b"), None, request)
    with pytest.raises(UsageError, match=r"expected members of WT, TC, ET, found .* metastasis"):
        score_bundle(write_untrained_bundle(tmp_path / "srs", {"unet": ("ct", "t1c")}), None, request)
    assert not (tmp_path / "out").exists()


def test_scores_are_not_remembered_across_cohorts_with_the_same_ids(tmp_path, bundle_steps, monkeypatch):
    scored = []

    def score(files, _steps):
        scored.append(files.folder.parent.name)
        return CaseScores(files.case_id, has_small_lesion=False, scores={"baseline": {"WT": (float(len(scored)),)}})

    monkeypatch.setattr("training.tables.model_steps.score_steps", score)
    steps = bundle_steps()
    for name, seed in (("validation", 0), ("holdout", 9)):
        write_labelled_cohort(tmp_path / name, 1, first_seed=seed)
    found = [
        recall_scores(discover_cases(tmp_path / name)[0], steps, tmp_path / "scores")
        for name in ("validation", "holdout", "validation")
    ]
    assert scored == ["validation", "holdout"]
    assert found[0] == found[2] != found[1]


def test_the_frozen_method_is_scored_as_inference_gives_it(tmp_path, bundle_steps):
    """Also where voxels are not of 1 mm3 and the grid is framed."""
    steps = bundle_steps(spacing_mm=(2.0, 2.0, 1.0), frame=(16, 24))
    (files,) = discover_cases(write_labelled_cohort(tmp_path / "data", 1))
    scores = score_steps(files, steps).scores
    labels = segment(files, steps.engine).labels
    reference = read_label_map(find_reference(files))
    regions = score_case(reference.labels, labels, reference.grid.spacing_mm, "brats2023").regions
    expected = {region.region: (region.legacy_dice, region.fp) for region in regions}
    assert {name: (row[1], row[4]) for name, row in scores["frozen+post"].items()} == expected
    assert scores["frozen+post"] != scores["frozen"]


def test_scores_are_not_remembered_across_a_members_own_window(tmp_path):
    engine = load_engine(open_bundle(write_bundle(tmp_path / "b")), choose_device("cpu"))
    plan = engine.plan
    moved = plan.members[0].model_copy(update={"window": WindowPlan(size=(8, 8, 8))})
    first, *others = engine.members
    other = replace(engine, members=(replace(first, plan=moved), *others))
    assert stages.make_scores_key(engine, ["facts"]) == stages.make_scores_key(engine, ["facts"])
    assert stages.make_scores_key(engine, ["facts"]) != stages.make_scores_key(other, ["facts"])


def test_the_cohort_is_completed_where_it_was_left(tmp_path, monkeypatch):
    made = []

    def record(_settings, *, cases, first, **_):
        made.append((first, cases))
        return iter(())

    monkeypatch.setattr(stages, "write_cohort", record)
    for name in ("SYN-MET-00001-000", "SYN-MET-00003-000"):
        folder = tmp_path / "cohort" / name
        folder.mkdir(parents=True)
        (folder / f"{name}-seg.nii.gz").touch()
    settings = load_experiment("tiny").cohort.cohort_settings()
    stages.complete_cohort(settings, seed=1, folder=tmp_path / "cohort", cases=4)
    assert made == [(1, 3)]
    with pytest.raises(UsageError, match="another seed or other settings"):
        stages.complete_cohort(settings, seed=2, folder=tmp_path / "cohort", cases=4)
    assert made == [(1, 3)]
