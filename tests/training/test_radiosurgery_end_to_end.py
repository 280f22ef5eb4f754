"""From tiny heads to scored label maps: train both networks, freeze them, segment with `metseg infer`, score."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from metseg.__main__ import run
from metseg.errors import ExitCode
from metseg.plan.bundle import open_bundle
from radiosurgery_support import SRS_PLAN, tiny_recipe, write_tiny_cohort, write_untrained_bundle
from support import names_in
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.recipe_sections import DataRecipe
from training.train.run import RunRequest, train_run

ROOT = Path(__file__).parents[2]
CASES = ["SYN-SRS-00004-000", "SYN-SRS-00005-000"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Both networks, a few steps each, frozen into a bundle; and two heads that they have not seen."""
    root = tmp_path_factory.mktemp("srs")
    data = write_tiny_cohort(root / "train", 3)
    write_tiny_cohort(root / "test", 2, first=3)
    for architecture in ("unet3d", "deepmedic"):
        request = RunRequest(
            (data,), root / architecture, root / "cache", max_steps=3, device="cpu", threads=1, workers=0
        )
        progress = train_run(tiny_recipe(architecture), request)
        assert progress.step == 3
    freeze_bundle([root / "unet3d", root / "deepmedic"], root / "bundle", FreezeOptions(name="srs", plan=SRS_PLAN))
    return root


def infer(root, output, *options):
    arguments = ["infer", f"--data-path={root / 'test'}", f"--weights={root / 'bundle'}", "--device=cpu"]
    return run([*arguments, f"--output-path={output}", *options])


def test_the_bundle_says_what_it_needs(trained, capsys):
    plan = open_bundle(trained / "bundle").plan
    assert plan.required_modalities == {"ct", "t1c"}
    assert plan.regions.names == ("metastasis",)
    assert [member.network.architecture for member in plan.members] == ["unet3d", "deepmedic"]
    assert plan.registration is not None
    assert plan.registration.grids_mm == (4.0, 2.0)
    arguments = ["check", f"--data-path={trained / 'test'}", f"--weights={trained / 'bundle'}"]
    assert run(arguments) == ExitCode.DONE
    (trained / "lacking").mkdir()
    case = trained / "lacking" / CASES[0]
    case.mkdir()
    name = f"{CASES[0]}-t1c.nii.gz"
    (case / name).write_bytes((trained / "test" / CASES[0] / name).read_bytes())
    arguments[1] = f"--data-path={trained / 'lacking'}"
    assert run(arguments) == ExitCode.INPUT
    assert "ct is missing" in capsys.readouterr().out


def test_a_bundle_that_was_trained_to_do_without_the_ct_does(trained, capsys):
    recipe = tiny_recipe("unet3d")
    recipe = recipe.model_copy(
        update={"data": DataRecipe(**{**recipe.data.model_dump(), "drop_channels": {"ct": 0.5}})}
    )
    folder = trained / "without-ct"
    request = RunRequest((trained / "train",), folder / "run", trained / "cache", max_steps=2, threads=1, workers=0)
    train_run(recipe, request)
    freeze_bundle([folder / "run"], folder / "bundle", FreezeOptions(name="srs", plan=SRS_PLAN))
    plan = open_bundle(folder / "bundle").plan
    assert plan.required_modalities == {"t1c"}
    assert plan.modalities == {"ct", "t1c"}
    with_ct, without = CASES
    cases = shutil.copytree(trained / "test", folder / "cases")
    (cases / without / f"{without}-ct.nii.gz").unlink()
    arguments = ["infer", f"--data-path={cases}", f"--weights={folder / 'bundle'}", "--device=cpu"]
    labels, report = folder / "labels", folder / "report"
    assert run([*arguments, f"--output-path={labels}", f"--report-dir={report}"]) == ExitCode.DONE
    assert names_in(labels) == [f"{with_ct}.nii.gz", f"{without}.nii.gz"]
    assert "segmented from t1c alone" in (report / "report.html").read_text()
    assert f"case {without}: missing ct: segmented from t1c alone\n" in capsys.readouterr().err
    # The CT's grid is asked for: only the case that has one gets a label map.
    on_ct = folder / "on-ct"
    options = [f"--output-path={on_ct}", "--grid=ct", "--on-error=skip"]
    assert run([*arguments, *options]) == ExitCode.SOME_FAILED
    assert names_in(on_ct) == [f"{with_ct}.nii.gz"]


def test_from_heads_to_scores(trained):
    output, report = trained / "labels", trained / "report"
    assert infer(trained, output, f"--report-dir={report}") == ExitCode.DONE
    assert names_in(output) == [f"{case}.nii.gz" for case in CASES]
    for case in CASES:
        labels = nib.load(output / f"{case}.nii.gz")
        image = nib.load(trained / "test" / case / f"{case}-t1c.nii.gz")
        np.testing.assert_array_equal(labels.affine, image.affine)
        assert set(np.unique(labels.dataobj)) <= {0, 1}
    scores = trained / "scores.json"
    paths = [f"--reference-path={trained / 'test'}", f"--prediction-path={output}", f"--output={scores}"]
    command = [sys.executable, "-m", "evaluation", "score", "--protocol=hu2019", *paths]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(scores.read_text())) == set(CASES)
    run_file = json.loads((report / "run.json").read_text())
    assert (run_file["schema_version"], run_file["labels"]) == ("1.2", {"1": "metastasis"})
    for facts in run_file["cases"]:
        known = np.loadtxt(trained / "test" / facts["case_id"] / f"{facts['case_id']}-mr-to-ct.txt")
        found = np.array(facts["registration"]["mr_to_ct"])
        assert np.abs(found - known)[:3, :3].max() < 0.05
        assert not facts["registration"]["is_identity"]
    assert_speaks_of_metastases(report)


FIRST_SYSTEM = re.compile(r"\bwt\b|_wt|\btc\b|_tc|_et\b|et_volume|whole tumour|netc|oedema|enhanc|core", re.IGNORECASE)


def assert_speaks_of_metastases(report, grid="t1c"):
    """Page, tables and flags of a report have this system's words, and say at what spacing the networks worked."""
    cases, lesions = (rows_of(report / name) for name in ("cases.csv", "lesions.csv"))
    page = re.sub(
        r"<(style|script).*?</\1>|data:image[^\"]*", "", (report / "report.html").read_text(), flags=re.DOTALL
    )
    for text in (page, (report / "cases.csv").read_text(), (report / "lesions.csv").read_text()):
        assert FIRST_SYSTEM.findall(text) == []
    assert {row["label_grid"] for row in cases} == {grid}
    assert "metastases" in page.lower()
    for row in cases:
        assert "brain's edge" not in row["flags"]
        count, volume = int(row["lesions_26connected_metastasis"]), float(row["metastasis_volume_mm3"])
        own = [lesion for lesion in lesions if lesion["case_id"] == row["case_id"]]
        assert len(own) == count
        assert sum(float(lesion["metastasis_volume_mm3"]) for lesion in own) == pytest.approx(volume, abs=1e-2)
    for facts in json.loads((report / "run.json").read_text())["cases"]:
        details = [flag["detail"] for flag in facts["flags"] if flag["code"] == "resampled"]
        assert len(details) == 1
        assert details[0].endswith("segmented at 1.2x1.2x2 mm")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_label_maps_on_the_planning_cts_grid(trained):
    output, report = trained / "on-ct", trained / "report-on-ct"
    options = ["--grid=ct", f"--report-dir={report}"]
    assert infer(trained, output, *options, "--save=probabilities,agreement") == ExitCode.DONE
    assert_speaks_of_metastases(report, grid="ct")
    saved = names_in(report / "cases" / CASES[0])
    assert {"agreement-metastasis.nii.gz", "probability-metastasis.nii.gz"} <= set(saved)
    lesions = rows_of(report / "lesions.csv")
    for case in CASES:
        labels = nib.load(output / f"{case}.nii.gz")
        image = nib.load(trained / "test" / case / f"{case}-ct.nii.gz")
        assert labels.shape == image.shape
        np.testing.assert_array_equal(labels.affine, image.affine)
        measured = sum(int(row["voxels"]) for row in lesions if row["case_id"] == case)
        assert measured == np.count_nonzero(labels.dataobj)  # what is measured is what was written
    shutil.rmtree(report)  # a second run finds the label maps there and measures them anew
    assert infer(trained, output, *options, "--resume") == ExitCode.DONE
    assert_speaks_of_metastases(report, grid="ct")
    again = rows_of(report / "lesions.csv")
    assert [row["voxels"] for row in again] == [row["voxels"] for row in lesions]


def test_the_planning_cts_grid_needs_a_planning_ct(tmp_path, capsys):
    """A member that does without the CT segments a case that has none, but never on the CT's grid."""
    bundle = write_untrained_bundle(tmp_path / "bundle", {"both": ("ct", "t1c"), "mr": ("t1c",)})
    data = write_tiny_cohort(tmp_path / "data", 1)
    (case,) = names_in(data)
    (data / case / f"{case}-ct.nii.gz").unlink()
    arguments = ["infer", f"--data-path={data}", f"--weights={bundle}", "--device=cpu"]
    assert run([*arguments, f"--output-path={tmp_path / 'mr'}"]) == ExitCode.DONE
    assert "missing ct" in capsys.readouterr().err
    assert run([*arguments, f"--output-path={tmp_path / 'ct'}", "--grid=ct"]) == ExitCode.INPUT
    assert names_in(tmp_path / "ct") == []
    assert "has no ct whose grid" in capsys.readouterr().err


def test_an_empty_ct_is_an_error_for_its_case_alone(trained, tmp_path):
    data = tmp_path / "data"
    write_tiny_cohort(data, 2, first=3)
    path = data / CASES[0] / f"{CASES[0]}-ct.nii.gz"
    image = nib.load(path)
    noise = np.random.default_rng(0).normal(-1000, 10, image.shape).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, image.affine), path)
    arguments = ["infer", f"--data-path={data}", f"--weights={trained / 'bundle'}", "--device=cpu"]
    code = run([*arguments, f"--output-path={tmp_path / 'out'}", "--on-error=skip"])
    assert code == ExitCode.SOME_FAILED
    assert names_in(tmp_path / "out") == [f"{CASES[1]}.nii.gz"]
