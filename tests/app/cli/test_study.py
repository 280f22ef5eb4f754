"""`metseg study`: from DICOM studies to label maps, a report and DICOM objects."""

import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest

from dicom_study_support import CT, T1C, T1N, make_head, small, write_study
from metseg.__main__ import run
from metseg.dicom.import_json import read_import_json
from metseg.dicom.stripping import brain_from_file
from metseg.errors import ExitCode
from metseg.files.header import make_header
from metseg.files.write import write_label_map
from metseg.systems import SYSTEMS
from radiosurgery_support import write_untrained_bundle
from support import names_in, write_bundle

COARSE = small(T1C)
PLANNING = {
    "t1c": replace(T1C, spacing_mm=(2.6, 2.6, 2.6), shape=(88, 88, 75)),
    "ct": replace(CT, spacing_mm=(2.5, 2.5, 3), shape=(92, 96, 60)),
}
OBJECTS = ["rtstruct.dcm", "seg.dcm"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A study of one sequence in few voxels, a mask of a part of the brain, and a bundle that reads t1c alone."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder / "a", {"t1c": COARSE})
    grid = make_head().grid
    mask = np.zeros(grid.shape, dtype=np.uint8)
    mask[tuple(slice(side // 2 - 10, side // 2 + 10) for side in grid.shape)] = 1
    write_label_map(folder / "mask.nii.gz", mask, make_header(grid))
    one_pass = {"window": {"size": (64, 64, 64), "overlap": 0.25}, "tta": {"variant": "none"}}
    write_bundle(folder / "bundle", channels=[("t1c",)], **one_pass)
    return folder


@pytest.fixture
def found_brains(work, monkeypatch):
    """The mask in place of the networks, where --brain-mask can't be given: it is of one study."""
    monkeypatch.setattr("metseg.dicom.stripping.brain_by_networks", brain_from_file(work / "mask.nii.gz"))


def study(work, output, *options, names=("a",)):
    paths = [f"--dicom-path={work / name}" for name in names]
    mask = [f"--brain-mask={work / 'mask.nii.gz'}"] if len(names) == 1 else []
    fixed = [f"--weights={work / 'bundle'}", "--device=cpu", f"--output-path={output}"]
    return run(["study", *paths, *mask, *fixed, *options])


def times_of(folder):
    return {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and "report" not in path.parts
    }


@pytest.fixture(scope="module")
def done(work):
    output = work / "out"
    assert study(work, output, "--case-id=A") == ExitCode.DONE
    return output


def test_a_study_goes_all_the_way(work, done):
    assert names_in(done) == ["cases", "dicom", "labels", "report"]
    assert names_in(done / "labels") == ["A.nii.gz"]
    assert names_in(done / "dicom/A") == OBJECTS
    assert {"report.html", "lesions.csv", "cases.csv", "run.json"} <= set(names_in(done / "report"))
    image = pydicom.dcmread(next((work / "a").iterdir()))
    assert pydicom.dcmread(done / "dicom/A/seg.dcm").StudyInstanceUID == image.StudyInstanceUID
    (frame,) = pydicom.dcmread(done / "dicom/A/rtstruct.dcm").ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == image.FrameOfReferenceUID
    labels, t1c = (nibabel.load(done / name) for name in ("labels/A.nii.gz", "cases/A/A-t1c.nii.gz"))
    assert np.asarray(labels.dataobj).any(), "otherwise --resume segments again, as infer does"
    np.testing.assert_array_equal(labels.affine, t1c.affine)


def test_what_is_there_is_refused_without_resume_and_left_with_it(work, done, capsys):
    before = times_of(done)
    assert study(work, done, "--case-id=A") == ExitCode.OUTPUT
    assert "--resume" in capsys.readouterr().err
    assert study(work, done, "--case-id=A", "--resume") == ExitCode.DONE
    assert times_of(done) == before
    assert "1 of 1 studies complete" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["labels/A.nii.gz", "dicom/A/seg.dcm", "dicom/A", "cases/A"])
def test_resume_makes_what_is_missing_and_what_depends_on_it(work, done, tmp_path, missing):
    shutil.copytree(done, tmp_path / "out")
    lost = tmp_path / "out" / missing
    before = times_of(tmp_path / "out")
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert study(work, tmp_path / "out", "--case-id=A", "--resume") == ExitCode.DONE
    after = times_of(tmp_path / "out")
    made = {path.relative_to(tmp_path / "out").parts[0] for path, when in after.items() if before.get(path) != when}
    steps = ["cases", "labels", "dicom"]
    assert made == set(steps[steps.index(missing.split("/")[0]) :])
    assert after.keys() == before.keys()


@pytest.mark.usefixtures("found_brains")
def test_a_study_that_fails_costs_itself_alone(work, tmp_path, capsys):
    write_study(tmp_path / "bad", {"t1n": small(T1N)})
    shutil.copytree(work / "a", tmp_path / "good")
    for name in ("bundle", "mask.nii.gz"):
        (tmp_path / name).symlink_to(work / name)
    names = ["--case-id=bad", "--case-id=good"]
    assert study(tmp_path, tmp_path / "stop", *names, names=("bad", "good")) == ExitCode.INPUT
    assert names_in(tmp_path / "stop/labels") == []
    capsys.readouterr()
    options = [*names, "--on-error=skip"]
    assert study(tmp_path, tmp_path / "skip", *options, names=("bad", "good")) == ExitCode.SOME_FAILED
    said = capsys.readouterr().err
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert str(tmp_path / "bad") in error
    assert "no t1c" in error
    assert "1 of 2 studies complete" in said
    assert names_in(tmp_path / "skip/labels") == ["good.nii.gz"]
    assert names_in(tmp_path / "skip/dicom") == ["good"]
    assert names_in(tmp_path / "skip/dicom/good") == OBJECTS


def test_an_export_that_fails_leaves_the_label_map_and_is_said(work, done, tmp_path, capsys):
    shutil.copytree(done, tmp_path / "out")
    shutil.rmtree(tmp_path / "out/dicom")
    write_study(tmp_path / "a", {"t1c": COARSE})  # another patient's
    for name in ("bundle", "mask.nii.gz"):
        (tmp_path / name).symlink_to(work / name)
    options = ["--case-id=A", "--resume"]
    assert study(tmp_path, tmp_path / "out", *options) == ExitCode.INPUT
    assert "the one that the case was made from" in capsys.readouterr().err
    assert study(tmp_path, tmp_path / "out", *options, "--on-error=skip") == ExitCode.SOME_FAILED
    assert "0 of 1 studies complete" in capsys.readouterr().err
    assert names_in(tmp_path / "out/labels") == ["A.nii.gz"]


def test_a_case_of_another_system_is_not_run(work, done, tmp_path, capsys):
    shutil.copytree(done, tmp_path / "out")
    path = tmp_path / "out/cases/A/import.json"
    facts = read_import_json(path)
    path.write_text(facts.model_copy(update={"system": "radiosurgery"}).model_dump_json())
    assert study(work, tmp_path / "out", "--case-id=A", "--resume") == ExitCode.INPUT
    assert "was imported for radiosurgery" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--dicom-path=a", "b", "--case-id=x", "--case-id=X"],
        ["--dicom-path=a", "b", "--brain-mask=m"],
        ["--dicom-path=a", "--plan=no-such-plan"],
        ["--dicom-path=a", "--on-error=blank"],
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_made(work, tmp_path, options):
    weights = f"--weights={work / 'bundle'}"
    assert run(["study", weights, f"--output-path={tmp_path / 'out'}", *options]) == ExitCode.USAGE
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("found_brains")
def test_studies_of_both_systems_run_one_bundle_after_the_other(work, tmp_path, monkeypatch):
    """CT and t1c alone are radiosurgery; the other study is of the default bundle."""
    write_study(tmp_path / "planning", PLANNING)
    root = tmp_path / "weights"
    grid = {"spacing_mm": (3.0, 3.0, 4.0), "frame": (96, 96), "registration": {"grids_mm": (8.0, 4.0)}}
    write_untrained_bundle(root / SYSTEMS["radiosurgery"].bundle, {"unet": ("ct", "t1c")}, **grid)
    monkeypatch.setattr("metseg.plan.bundle.bundles_root", lambda: root)
    monkeypatch.setenv("METSEG_WEIGHTS", str(work / "bundle"))
    monkeypatch.setenv("METSEG_DEVICE", "cpu")
    output = tmp_path / "out"
    paths = [f"--dicom-path={work / 'a'}", str(tmp_path / "planning")]
    assert run(["study", *paths, "--case-id=A", "--case-id=P", f"--output-path={output}"]) == ExitCode.DONE
    assert read_import_json(output / "cases/A/import.json").system == "brats"
    assert read_import_json(output / "cases/P/import.json").system == "radiosurgery"
    assert names_in(output / "labels") == ["A.nii.gz", "P.nii.gz"]
    assert names_in(output / "dicom/P") == ["rtstruct-ct.dcm", *OBJECTS]
    assert (output / "report/report.html").is_file()
    assert (output / "report/radiosurgery/report.html").is_file()
    ct = next(path for path in (tmp_path / "planning").iterdir() if pydicom.dcmread(path).Modality == "CT")
    (frame,) = pydicom.dcmread(output / "dicom/P/rtstruct-ct.dcm").ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == pydicom.dcmread(ct).FrameOfReferenceUID
