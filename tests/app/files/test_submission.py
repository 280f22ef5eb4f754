"""The validator's rules on a finished output folder."""

import nibabel as nib
import numpy as np
import pytest

from metseg.files.image import read_image
from metseg.files.submission import check_submission
from metseg.files.write import write_label_map

SHAPE = (12, 11, 10)


@pytest.fixture
def folders(tmp_path):
    """Two cases with oblique grids and a faultless submission for them."""
    turn = nib.quaternions.quat2mat(nib.quaternions.fillpositive([0.1, -0.2, 0.05]))
    affine = nib.affines.from_matvec(turn @ np.diag([-0.8594, -0.8594, 1.5]), [90.1, 110.3, -70.7])
    data, predictions = tmp_path / "data", tmp_path / "predictions"
    predictions.mkdir()
    for name in ("one", "two"):
        (data / name).mkdir(parents=True)
        image = nib.Nifti1Image(np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16), affine)
        nib.save(image, data / name / f"{name}-t1c.nii.gz")
        header = read_image(data / name / f"{name}-t1c.nii.gz").header
        write_label_map(predictions / f"{name}.nii.gz", labels(), header)
    return data, predictions


def labels():
    made = np.zeros(SHAPE, np.uint8)
    made[3:6, 3:6, 3:6] = 2
    made[4, 4, 4] = 3
    return made


def resave(path, data=None, *, zooms=None, shift=0.0):
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += shift
    new = nib.Nifti1Image(np.asarray(image.dataobj) if data is None else data, affine, image.header)
    new.set_data_dtype(new.dataobj.dtype)
    new.header.set_slope_inter(1, 0)
    if zooms is not None:
        new.header["pixdim"][1:4] = zooms(new.header["pixdim"][1:4])
    nib.save(new, path)


def fresh_header(path):
    """What a program does that keeps the affine only."""
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, :3] *= 1 + 1e-7
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


def test_a_faultless_submission_has_no_problem(folders):
    assert check_submission(*folders) == ()


FAULTS = {
    "missing": (lambda p: (p / "one.nii.gz").unlink(), "missing", "error", "one.nii.gz is missing"),
    "sub-folder": (lambda p: (p / "logs").mkdir(), "foreign", "error", "sub-folder logs"),
    "report": (lambda p: (p / "report.html").write_text("x"), "foreign", "error", "report.html is not a label map"),
    "leftover": (
        lambda p: (p / ".one.nii.gz.0a1b2c3d.partial").write_text("x"),
        "foreign",
        "error",
        ".partial is not a label",
    ),
    "unknown": (lambda p: (p / "three.nii.gz").write_bytes(b""), "unknown", "error", "three.nii.gz belongs to no case"),
    "duplicate": (
        lambda p: (p / "ONE.nii.gz").write_bytes(b""),
        "duplicate",
        "error",
        "several files for one case: ONE.nii.gz, one.nii.gz",
    ),
    "uncompressed": (
        lambda p: resaved_as(p / "one.nii.gz", p / "one.nii"),
        "foreign",
        "error",
        "one.nii: names must end in .nii.gz",
    ),
    "not an image": (lambda p: (p / "one.nii.gz").write_text("x"), "corrupt", "error", "not a NIfTI file"),
    "4-D": (lambda p: resave(p / "one.nii.gz", labels()[..., None]), "not-3d", "error", "4-D, expected 3-D"),
    "other shape": (
        lambda p: resave(p / "one.nii.gz", labels()[:-1]),
        "shape",
        "error",
        "11x11x10 voxels, expected 12x11x10, the shape of t1c",
    ),
    "last bit of the voxel size": (
        lambda p: resave(p / "one.nii.gz", zooms=lambda z: np.nextafter(z, np.float32(9))),
        "spacing",
        "error",
        "expected exactly (0.8593999",
    ),
    "fresh header": (lambda p: fresh_header(p / "one.nii.gz"), "spacing", "error", "expected exactly"),
    "moved": (
        lambda p: resave(p / "one.nii.gz", shift=2.0),
        "moved",
        "warning",
        "lies elsewhere than t1c: corners up to 2 mm",
    ),
    "label 4": (
        lambda p: resave(p / "one.nii.gz", labels() * 2),
        "labels",
        "error",
        "holds 4, 6, expected whole numbers",
    ),
    "nearly whole": (
        lambda p: resave(p / "one.nii.gz", labels() * np.float32(0.9999999)),
        "labels",
        "error",
        "holds 1.9999998, 2.9999995, expected whole numbers from 0 to 3",
    ),
    "probabilities": (
        lambda p: resave(p / "one.nii.gz", labels() / np.float32(2)),
        "labels",
        "error",
        "holds 1.5, expected whole numbers from 0 to 3",
    ),
    "stored as float": (
        lambda p: resave(p / "one.nii.gz", labels().astype(np.float32)),
        "data-type",
        "warning",
        "stored as float32, expected uint8",
    ),
}


def resaved_as(source, target):
    nib.save(nib.load(source), target)
    source.unlink()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(folders, fault):
    data, predictions = folders
    act, code, severity, message = FAULTS[fault]
    act(predictions)
    findings = check_submission(data, predictions)
    found = [finding for finding in findings if finding.code == code]
    assert found, findings
    assert found[0].severity == severity
    assert any(message in finding.what for finding in found), found


def test_a_case_without_reference_image_is_a_warning_only(folders):
    data, predictions = folders
    (data / "one" / "one-t1c.nii.gz").rename(data / "one" / "one-t1n.nii.gz")
    (finding,) = check_submission(data, predictions)
    assert (finding.case_id, finding.severity) == ("one", "warning")
    assert "t1c is missing" in finding.what


def test_a_missing_prediction_folder_is_said(folders):
    (finding,) = check_submission(folders[0], folders[1] / "gone")
    assert "prediction folder" in finding.what


def test_label_4_is_told_with_both_meanings(folders):
    data, predictions = folders
    resave(predictions / "one.nii.gz", np.where(labels() == 3, 4, labels()).astype(np.uint8))
    (finding,) = check_submission(data, predictions)
    assert finding.what.endswith("holds 4, expected whole numbers from 0 to 3")
    assert "enhancing tumour in challenges up to 2021: write 3 for it" in finding.hint
    assert "cavity" in finding.hint


@pytest.mark.parametrize(
    ("allowed", "held", "expected"),
    [
        ((1, 2, 3), 4, "holds 4, expected whole numbers from 0 to 3"),
        ((1, 2, 3, 4), 4, None),
        ((1, 2, 3, 4), 5, "holds 5, expected whole numbers from 0 to 4"),
        ((1, 2, 4), 4, None),
        ((1, 2, 4), 3, "holds 3, expected 0, 1, 2, 4"),
        ((1,), 2, "holds 2, expected whole numbers from 0 to 1"),
    ],
)
def test_label_maps_may_hold_what_the_plan_predicts_or_the_user_says(folders, allowed, held, expected):
    data, predictions = folders
    for name in ("one", "two"):
        resave(predictions / f"{name}.nii.gz", np.where(labels() == 3, held, labels() > 0).astype(np.uint8))
    findings = check_submission(data, predictions, labels=allowed)
    assert {finding.what.removeprefix(f"{finding.case_id}.nii.gz: ") for finding in findings} == ({expected} - {None})
