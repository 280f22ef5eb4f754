"""Threshold and rules against phantoms whose best setting is known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from metseg.files.discovery import discover_cases
from metseg.plan.bundle import open_bundle
from metseg.predict.device import choose_device
from metseg.predict.engine import load_engine
from metseg.run.pipeline import segment
from radiosurgery_support import write_tiny_cohort, write_untrained_bundle
from support import write_bundle
from training.tune import tuning
from training.tune.command import tune
from training.tune.judging import JUDGES, score_brats, score_radiosurgery
from training.tune.tuning import Setting, best_settings, label_maps, list_settings, summarise
from training_support import write_labelled_cohort

BRATS = JUDGES["brats"]


def test_score_setting_a_phantom():
    """One lesion of 216 mm3 found exactly, one of 8 mm3 missed, one of 64 mm3 invented."""
    reference = np.zeros((48, 40, 40), dtype=np.uint8)
    reference[4:10, 4:10, 4:10] = 3
    labels = reference.copy()
    reference[20:22, 20:22, 20:22] = 3
    labels[34:38, 30:34, 30:34] = 3
    figures = score_brats(reference, labels, (1.0, 1.0, 1.0))
    assert (figures["lesions"], figures["found"], figures["false_positives"]) == (2, 1, 1)
    assert figures["dice_2023"] == pytest.approx(1 / 3)  # 1 over found, missed and invented
    assert figures["dice_2026"] == pytest.approx(1 / 2)  # the missed one is small: large found, one false positive
    assert figures["f1_small_2026"] == 0
    figures = score_radiosurgery(reference, labels, (1.0, 1.0, 1.0))
    assert (figures["lesions"], figures["found"], figures["false_positives"]) == (2, 1, 1)
    assert figures["dsc"] == pytest.approx(2 * 216 / (224 + 280))
    assert figures["precision"] == pytest.approx(216 / 280)
    assert figures["small_lesion_recall"] == 0.5
    assert score_radiosurgery(labels * 0, labels, (1.0, 1.0, 1.0))["found"] == 0


def figures(dice_2023=0.5, dice_2026=0.5, f1=0.5, found=1, invented=0):
    scores = {"dice_2023": dice_2023, "dice_2026": dice_2026, "f1_small_2026": f1}
    return scores | {"lesions": 2, "found": found, "false_positives": invented}


def test_summary_ignores_what_a_case_does_not_have():
    summary = summarise([figures(f1=float("nan"), found=2), figures(f1=0.25, invented=3)])
    assert summary["f1_small_2026"] == 0.25
    assert summary["sensitivity"] == 0.75
    assert summary["false_positives"] == 1.5


def test_best_settings():
    strict, middle, loose = Setting(0.7, "large"), Setting(0.5, "paper"), Setting(0.2, "none")
    summaries = {
        strict: summarise([figures(dice_2023=0.8, f1=0.1, found=0)]),
        middle: summarise([figures(dice_2023=0.7, f1=0.6, found=1, invented=2)]),
        loose: summarise([figures(dice_2023=0.2, f1=0.2, found=2, invented=40)]),
    }
    best = best_settings(summaries, BRATS, max_false_positives=5)
    assert best == {"brats2023": strict, "brats2026": middle, "sensitive": middle}
    assert best_settings(summaries, BRATS, max_false_positives=50)["sensitive"] == loose
    assert "sensitive" not in best_settings({loose: summaries[loose]}, BRATS, max_false_positives=5)


def test_paper_rules_are_among_the_settings():
    assert Setting(0.5, "paper") in list_settings(BRATS)
    assert BRATS.rules["paper"].min_wt_mm3 == 25


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", tta={"variant": "none"})


def test_a_setting_gives_what_inference_with_it_gives(tmp_path):
    """Also where voxels are not of 1 mm3 and the grid is framed."""
    path = write_bundle(tmp_path / "b", tta={"variant": "none"}, spacing_mm=(2.0, 2.0, 1.0), frame=(16, 24))
    engine = load_engine(open_bundle(path), choose_device("cpu"))
    (files,) = discover_cases(write_labelled_cohort(tmp_path / "data", 1))
    judge = replace(BRATS, thresholds=(0.5,), rules={name: BRATS.rules[name] for name in ("none", "small", "large")})
    found = dict(label_maps(files, engine, judge))
    for setting, labels in found.items():
        changed = engine.plan.model_copy(update={"threshold": 0.5, "postprocess": BRATS.rules[setting.rules]})
        own = replace(engine, plan=changed)
        expected = segment(files, own).labels
        assert np.array_equal(labels, expected), setting
    assert len({labels.tobytes() for labels in found.values()}) == 3


def test_cases_of_another_folder_are_neither_taken_for_these_nor_counted(tmp_path, bundle, monkeypatch, capsys):
    tried = []

    def try_case(files, _engine, judge):
        tried.append(files.folder.parent.name)
        return dict.fromkeys(list_settings(judge), figures(invented=1 if files.folder.parent.name == "one" else 5))

    monkeypatch.setattr(tuning, "try_case", try_case)
    one = write_labelled_cohort(tmp_path / "one", 2)
    two = write_labelled_cohort(tmp_path / "two", 1, first_seed=9)
    output = tmp_path / "tuning.json"
    for folder, cases, invented in ((one, 2, "1.000"), (two, 1, "5.000"), (one, 2, "1.000")):
        tune(bundle, data=[folder], output=output, device="cpu")
        text = capsys.readouterr().out
        assert f"{cases} cases;" in text
        assert text.count(invented) == len(list_settings(BRATS))
    assert tried == ["one", "one", "two"]  # the third time from the file
    assert len(json.loads(output.read_text())["cases"]) == 3


def test_a_radiosurgery_bundle_is_tuned_by_its_own_figures(tmp_path, capsys):
    path = write_untrained_bundle(tmp_path / "b", {"unet": ("ct", "t1c")})
    output = tmp_path / "tuning.json"
    tune(path, data=[write_tiny_cohort(tmp_path / "heads", 1)], output=output, device="cpu")
    text = capsys.readouterr().out
    assert "hu2019" in text
    assert "small_lesion_recall" in text
    (case,) = json.loads(output.read_text())["cases"].values()
    assert len(case) == len(list_settings(JUDGES["radiosurgery"]))
