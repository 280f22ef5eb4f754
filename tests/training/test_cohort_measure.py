"""Measuring a cohort: two lesions of known volume, parts and contrast."""

import nibabel as nib
import numpy as np
import pytest

from metseg.errors import InputError, UsageError
from training.cohort.measure import describe, measure_case, measure_cohort


def write(folder, labels, t1c, spacing=(1.0, 1.0, 1.0)):
    folder.mkdir(parents=True)
    affine = np.diag([*spacing, 1.0])
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), folder / f"{folder.name}-seg.nii.gz")
    nib.save(nib.Nifti1Image(t1c.astype(np.int16), affine), folder / f"{folder.name}-t1c.nii.gz")


@pytest.fixture
def case(tmp_path):
    labels = np.zeros((40, 40, 40))
    labels[4:12, 4:12, 4:12] = 2
    labels[6:10, 6:10, 6:10] = 3
    labels[7:9, 7:9, 7:9] = 1
    labels[30:32, 30:32, 30:33] = 3
    noise = np.random.default_rng(0).standard_normal(labels.shape)
    t1c = np.rint(1000 + 50 * noise)
    t1c[labels == 3] = 1250
    folder = tmp_path / "A-1"
    write(folder, labels, t1c, spacing=(1.0, 1.0, 2.0))
    return folder


def test_volumes_parts_and_contrast(case):
    measured = measure_case(case)
    large, small = measured.lesions
    assert (large.volume_mm3, small.volume_mm3) == (128, 24)
    assert (large.necrotic, small.necrotic) == (True, False)
    assert (large.swollen, small.swollen) == (True, False)
    assert measured.oedema_mm3 == 2 * (8**3 - 4**3)
    assert small.contrast == pytest.approx(5, rel=0.2)


def test_a_lesion_is_found_where_a_predicted_core_touches_it(case, tmp_path):
    assert [lesion.found for lesion in measure_case(case).lesions] == [None, None]
    predicted = np.zeros((40, 40, 40), np.uint8)
    predicted[4:12, 4:12, 4:12] = 2
    predicted[31, 31, 32] = 3
    nib.save(nib.Nifti1Image(predicted, np.diag([1, 1, 2, 1])), tmp_path / f"{case.name}.nii.gz")
    (measured,) = measure_cohort(case.parent, tmp_path)
    assert [lesion.found for lesion in measured.lesions] == [False, True], "oedema is no core"


def test_cohort_of_real_layout_is_described(case):
    write(case.parent / "B-2", np.zeros((8, 8, 8)), np.ones((8, 8, 8)))
    (case.parent / "notes.txt").write_text("not a case")
    rows = dict(describe(list(measure_cohort(case.parent))))
    assert rows["cases, lesions"] == "2, 2"
    assert rows["cores of at most 27 mm3"] == "50%"
    assert rows["cores with NETC"] == "50%"


def test_nothing_to_measure_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"no case with a -seg\.nii\.gz or \.nii"):
        list(measure_cohort(tmp_path))
    rows = dict(describe(list(measure_cohort_of_empty(tmp_path / "cohort"))))
    assert rows["core volume, mm3"] == "-"


def measure_cohort_of_empty(folder):
    write(folder / "C-3", np.zeros((8, 8, 8)), np.ones((8, 8, 8)))
    return measure_cohort(folder)


def rewrite(path, change, name=None):
    """Writes a file anew with other voxels, under another name where one is given."""
    image = nib.load(path)
    voxels = change(np.asanyarray(image.dataobj))
    path.unlink()
    nib.save(nib.Nifti1Image(voxels, image.affine), path.with_name(name or path.name))


def test_files_without_compression_and_with_a_trailing_axis_are_read(case):
    expected = measure_case(case)
    rewrite(case / "A-1-seg.nii.gz", lambda voxels: voxels[..., np.newaxis], "A-1-seg.nii")
    rewrite(case / "A-1-t1c.nii.gz", lambda voxels: voxels, "A-1-t1c.nii")
    assert list(measure_cohort(case.parent)) == [expected]


def test_files_that_cannot_be_measured_are_named(case):
    path = case / "A-1-t1c.nii.gz"
    rewrite(path, lambda voxels: voxels[:-1])
    with pytest.raises(InputError, match=r"A-1-t1c\.nii\.gz: its grid is not that of .*A-1-seg\.nii\.gz: 39x40x40"):
        measure_case(case)
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"image .*A-1-t1c\.nii\.gz: not a NIfTI file"):
        measure_case(case)
    path.unlink()
    with pytest.raises(InputError, match=r"case A-1: no A-1-t1c\.nii\.gz or \.nii in"):
        measure_case(case)


def test_a_missing_prediction_is_named(case):
    with pytest.raises(InputError, match=r"label map .*A-1\.nii\.gz: the file does not exist"):
        measure_case(case, case.parent)
