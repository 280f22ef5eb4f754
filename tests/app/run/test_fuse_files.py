"""`metseg fuse`'s work on files: the golden raters, headers, and what each wrong input is told."""

import hashlib
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from metseg.errors import InputError, OutputError, UsageError
from metseg.plan.plan import FusionPlan
from metseg.run.fuse_files import fuse_files

GOLDEN = Path(__file__).parents[2] / "golden"
EXPECTED = json.loads((GOLDEN / "fusion.json").read_text())
OBLIQUE = np.array([[-0.86, 0.05, 0.1, 80], [0.06, -0.85, 0.2, 90], [0.07, 0.11, 1.48, -70], [0, 0, 0, 1]])
SHAPE = (6, 7, 5)


def labels_of(path):
    return np.asarray(nib.load(path).dataobj)


def save(path, labels, affine=OBLIQUE, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(labels, dtype), affine), path)
    return path


@pytest.fixture
def blob():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5, 2:5, 1:4] = 2
    labels[3, 3, 2] = 3
    return labels


@pytest.mark.parametrize("method", ["simple", "majority"])
def test_golden_raters_as_files(tmp_path, method):
    raters = [GOLDEN / "raters" / f"thick-{rater}.nii.gz" for rater in range(3)]
    (written,) = fuse_files(raters, tmp_path / "thick.nii.gz", FusionPlan(method=method))
    expected = EXPECTED["thick-3"][method]
    fused = labels_of(tmp_path / "thick.nii.gz")
    assert hashlib.sha256(fused.tobytes(order="C")).hexdigest() == expected["sha256"]
    assert written.case_id == "thick"
    assert written.inputs == tuple(raters)
    assert written.output == tmp_path / "thick.nii.gz"
    assert written.label_voxels == {label: voxels for label, voxels in enumerate(expected["voxels"], 1) if voxels}


def test_folders_are_fused_case_by_case(tmp_path):
    for rater in range(3):
        for name in ("one", "few"):
            target = tmp_path / f"rater{rater}" / f"{name}.nii.gz"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(GOLDEN / "raters" / f"{name}-{rater}.nii.gz", target)
    (tmp_path / "rater1" / "report.json").write_text("{}")
    (tmp_path / "rater2" / "._one.nii.gz").write_bytes(b"")
    output = tmp_path / "new" / "fused"
    written = fuse_files([tmp_path / f"rater{rater}" for rater in range(3)], output, FusionPlan())
    assert [item.case_id for item in written] == ["few", "one"]
    assert sorted(path.name for path in output.iterdir()) == ["few.nii.gz", "one.nii.gz"]
    for name in ("one", "few"):
        fused = labels_of(output / f"{name}.nii.gz")
        assert hashlib.sha256(fused.tobytes(order="C")).hexdigest() == EXPECTED[f"{name}-3"]["simple"]["sha256"]


def test_the_first_file_gives_the_header(tmp_path, blob):
    first = nib.Nifti1Image(blob.astype(np.float32), OBLIQUE)
    first.set_qform(OBLIQUE, code=1)
    first.set_sform(OBLIQUE, code=4)
    first.header["descrip"] = b"made elsewhere"
    nib.save(first, tmp_path / "a.nii.gz")
    save(tmp_path / "b.nii", blob, dtype=np.int16)
    fuse_files([tmp_path / "a.nii.gz", tmp_path / "b.nii"], tmp_path / "c.nii.gz", FusionPlan())
    fused, header = nib.load(tmp_path / "c.nii.gz"), first.header
    np.testing.assert_array_equal(np.asarray(fused.dataobj), blob)
    assert fused.get_data_dtype() == np.uint8
    for key in ("pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qform_code", "sform_code", "descrip"):
        assert fused.header[key].tobytes() == nib.load(tmp_path / "a.nii.gz").header[key].tobytes(), key
    assert header["sform_code"] == 4


def test_any_label_up_to_255(tmp_path, blob):
    files = [save(tmp_path / f"{i}.nii.gz", np.where(blob == 3, 255, blob * 2)) for i in range(3)]
    (written,) = fuse_files(files, tmp_path / "out.nii.gz", FusionPlan())
    assert written.label_voxels == {4: 26, 255: 1}


def test_rounding_of_the_affine_is_the_same_grid(tmp_path, blob):
    a = save(tmp_path / "a.nii.gz", blob)
    b = save(tmp_path / "b.nii.gz", blob, affine=OBLIQUE + 1e-5)
    fuse_files([a, b], tmp_path / "out.nii.gz", FusionPlan())
    assert (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(
    ("second", "affine", "found"),
    [
        (np.zeros((6, 7, 4)), OBLIQUE, "6x7x4 voxels"),
        (np.zeros(SHAPE), np.diag([1, 1, 1, 1]), "corners up to"),
        (np.zeros(SHAPE), OBLIQUE @ np.diag([-1, 1, 1, 1]), "corners up to"),
    ],
)
def test_different_grids_are_refused_naming_both_files(tmp_path, blob, second, affine, found):
    a, b = save(tmp_path / "a.nii.gz", blob), save(tmp_path / "b.nii.gz", second, affine=affine)
    with pytest.raises(InputError, match="different grids") as caught:
        fuse_files([a, b], tmp_path / "out.nii.gz", FusionPlan())
    assert str(a) in str(caught.value)
    assert str(b) in str(caught.value)
    assert found in str(caught.value)
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(
    ("values", "found"), [([0.5, 1.5], "0.5, 1.5"), ([-1, 256], "-1, 256"), ([np.nan], "nan"), ([300] * 9, "300")]
)
def test_values_that_are_no_labels_are_refused(tmp_path, blob, values, found):
    image = blob.astype(np.float32)
    image.reshape(-1)[: len(values)] = values
    a, b = save(tmp_path / "a.nii.gz", blob), save(tmp_path / "b.nii.gz", image, dtype=np.float32)
    with pytest.raises(InputError, match=r"b\.nii\.gz: holds") as caught:
        fuse_files([a, b], tmp_path / "out.nii.gz", FusionPlan())
    assert f"holds {found}, expected whole numbers from 0 to 255" in str(caught.value)


def test_a_file_that_is_no_image_is_refused(tmp_path, blob):
    a = save(tmp_path / "a.nii.gz", blob)
    (tmp_path / "b.nii.gz").write_bytes(a.read_bytes()[:60])
    with pytest.raises(InputError, match=r"label map .*b\.nii\.gz: "):
        fuse_files([a, tmp_path / "b.nii.gz"], tmp_path / "out.nii.gz", FusionPlan())


def test_maximum_names_the_files_whose_label_has_no_region(tmp_path, blob):
    files = [save(tmp_path / f"{i}.nii.gz", blob * 2) for i in range(2)]
    with pytest.raises(InputError, match=r"0\.nii\.gz.*1\.nii\.gz: .*found label 4"):
        fuse_files(files, tmp_path / "out.nii.gz", FusionPlan(method="maximum"))


def test_wrong_uses(tmp_path, blob):
    a, b = (save(tmp_path / f"{name}.nii.gz", blob) for name in "ab")
    (tmp_path / "folder").mkdir()
    out, plan = tmp_path / "out.nii.gz", FusionPlan()
    with pytest.raises(UsageError, match="at least 2 label maps or folders, found 1"):
        fuse_files([a], out, plan)
    with pytest.raises(InputError, match=r"gone\.nii\.gz does not exist"):
        fuse_files([a, tmp_path / "gone.nii.gz"], out, plan)
    with pytest.raises(UsageError, match="can't be mixed"):
        fuse_files([a, tmp_path / "folder"], out, plan)
    with pytest.raises(UsageError, match="is also an input"):
        fuse_files([a, b], tmp_path / "folder" / ".." / "b.nii.gz", plan)
    with pytest.raises(UsageError, match=r"does not end in \.nii\.gz or \.nii"):
        fuse_files([a, b], tmp_path / "folder", plan)
    with pytest.raises(UsageError, match="needs probabilities"):
        fuse_files([a, b], out, FusionPlan(method="mean"))
    with pytest.raises(OutputError):
        fuse_files([a, b], tmp_path / "nowhere" / "out.nii.gz", plan)
    assert not out.exists()


def test_wrong_folders(tmp_path, blob):
    x, y, plan = tmp_path / "x", tmp_path / "y", FusionPlan()
    for name in ("1", "2", "3", "4", "5"):
        save(x / f"{name}.nii.gz", blob)
    save(y / "5.nii.gz", blob)
    save(y / "6.nii.gz", blob)
    with pytest.raises(InputError, match=r"1, 2, 3 and 1 more only in .*x; 6 only in .*y"):
        fuse_files([x, y], tmp_path / "out", plan)
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no label map in .*empty"):
        fuse_files([x, tmp_path / "empty"], tmp_path / "out", plan)
    save(y / "5.nii", blob)
    with pytest.raises(InputError, match=r"two label maps of case 5 in .*y: 5\.nii and 5\.nii\.gz"):
        fuse_files([x, y], tmp_path / "out", plan)
    with pytest.raises(UsageError, match="is also an input"):
        fuse_files([x, y], y, plan)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be made"):
        fuse_files([x, x], tmp_path / "file", plan)


def as_of_2021(labels):
    return np.where(labels == 3, 4, labels).astype(np.uint8)


def test_a_rater_of_2021_is_asked_about_and_votes_as_the_others(tmp_path, blob):
    a, b = save(tmp_path / "a.nii.gz", blob), save(tmp_path / "b.nii.gz", blob)
    old, output = save(tmp_path / "old.nii.gz", as_of_2021(blob)), tmp_path / "out.nii.gz"
    with pytest.raises(
        InputError, match=r"label map \S+old.nii.gz: holds 4 and no 3; .*2021, a resection cavity"
    ) as caught:
        fuse_files([a, old, b], output, FusionPlan())
    assert "--labels brats2021" in caught.value.hint
    assert not output.exists()
    fuse_files([a, old, old], output, FusionPlan(), convention="brats2021")
    np.testing.assert_array_equal(labels_of(output), blob)
    fuse_files([a, old, old], output, FusionPlan(), convention="brats2025")
    np.testing.assert_array_equal(labels_of(output), as_of_2021(blob))


def test_each_folder_is_judged_apart(tmp_path, blob):
    et_alone, rc_alone = np.where(blob == 3, 3, 0), np.where(blob == 3, 4, 0)
    for rater, (one, two) in {"a": (et_alone, rc_alone), "b": (rc_alone, rc_alone)}.items():
        save(tmp_path / rater / "one.nii.gz", one)
        save(tmp_path / rater / "two.nii.gz", two)
    folders, output = [tmp_path / "a", tmp_path / "b"], tmp_path / "out"
    with pytest.raises(InputError, match=r"label maps in \S+b: 2 of 2 label maps hold 4"):
        fuse_files(folders, output, FusionPlan())
    assert not output.exists()
    fuse_files(folders, output, FusionPlan(method="majority"), convention="brats2021")
    np.testing.assert_array_equal(labels_of(output / "one.nii.gz"), et_alone)
    np.testing.assert_array_equal(labels_of(output / "two.nii.gz"), et_alone)


def test_nearly_whole_labels_are_fused_with_a_warning(tmp_path, blob, caplog):
    files = [save(tmp_path / "a.nii.gz", blob), save(tmp_path / "b.nii.gz", blob * 0.9999999, dtype=np.float64)]
    fuse_files(files, tmp_path / "out.nii.gz", FusionPlan())
    np.testing.assert_array_equal(labels_of(tmp_path / "out.nii.gz"), blob)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "b.nii.gz: 1.9999998, 2.9999998 rounded" in warning
