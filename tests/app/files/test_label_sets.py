"""Label 4: enhancing tumour up to 2021, a resection cavity from 2025 on; which of the two is never guessed."""

import nibabel as nib
import numpy as np
import pytest

from metseg.errors import InputError
from metseg.files.label_sets import require_clear_files, require_clear_maps
from metseg.files.read import read_label_map
from metseg.labels import (
    BRATS_REGIONS,
    METASTASIS_REGIONS,
    Region,
    follow_convention,
    settles_rc,
    tells_et_from_rc,
)
from metseg.systems import BRATS


def label_file(path, *labels):
    voxels = np.zeros((4, 5, 6), np.uint8)
    voxels.reshape(-1)[: len(labels)] = labels
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


@pytest.mark.parametrize(
    ("found", "expected"),
    [((), False), ((1, 2), False), ((1, 2, 3), True), ((1, 2, 4), False), ((1, 2, 3, 4), True), ((4, 255), True)],
)
def test_a_3_or_labels_of_no_challenge_settle_what_4_means(found, expected):
    assert settles_rc(np.array([[0, *found]], np.uint8)) is expected


@pytest.mark.parametrize(
    ("regions", "expected"),
    [(BRATS_REGIONS, True), (BRATS.regions, True), (METASTASIS_REGIONS, False), ([Region("any", (1, 2, 3, 4))], False)],
)
def test_it_matters_to_regions_that_tell_the_two_apart(regions, expected):
    assert tells_et_from_rc(regions) is expected


def test_the_convention_of_2021_has_et_where_4_is():
    labels = np.asfortranarray(np.array([[0, 1, 2], [4, 4, 0]], np.uint8))
    kept = labels.copy()
    followed = follow_convention(labels, "brats2021")
    np.testing.assert_array_equal(followed, [[0, 1, 2], [3, 3, 0]])
    assert followed.flags.f_contiguous
    np.testing.assert_array_equal(labels, kept)
    assert follow_convention(labels, "brats2025") is labels
    assert follow_convention(labels, None) is labels


def test_a_file_with_3_and_4_is_not_of_2021(tmp_path):
    path = label_file(tmp_path / "a.nii.gz", 1, 3, 4)
    with pytest.raises(InputError, match=r"a\.nii\.gz: holds labels 3 and 4, but brats2021 has no 3"):
        read_label_map(path, convention="brats2021")
    assert set(np.unique(read_label_map(path, convention="brats2025").labels)) == {0, 1, 3, 4}


def test_a_set_with_4_and_no_3_gets_both_readings_and_the_option(tmp_path):
    paths = [label_file(tmp_path / f"{name}.nii.gz", *labels) for name, *labels in (("a", 1, 2), ("b", 4), ("c", 1, 4))]
    with pytest.raises(InputError) as caught:
        require_clear_files(paths, "references", None)
    message = str(caught.value)
    assert message.startswith("references: 2 of 3 label maps hold 4 (b.nii.gz, c.nii.gz), none 3")
    assert "enhancing tumour in challenges up to 2021" in message
    assert "resection cavity" in message
    assert "--labels brats2021" in caught.value.hint
    assert "--labels brats2025" in caught.value.hint
    for convention in ("brats2021", "brats2025"):
        require_clear_files(paths, "references", convention)


def test_a_3_in_any_file_makes_the_set_clear_and_ends_the_reading(tmp_path):
    paths = [label_file(tmp_path / "a.nii.gz", 4), label_file(tmp_path / "b.nii.gz", 3)]
    read = []

    def one_by_one():
        for path in (*paths, tmp_path / "never"):
            read.append(path)
            yield path

    require_clear_files(one_by_one(), "label maps", None)
    assert read == paths


def test_what_cannot_be_read_is_left_to_its_own_reader(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"")
    require_clear_files([tmp_path / "a.nii.gz", tmp_path / "gone.nii.gz"], "label maps", None)
    with pytest.raises(InputError, match=r"^references: holds 4 and no 3;"):
        require_clear_files([tmp_path / "a.nii.gz", label_file(tmp_path / "b.nii.gz", 4)], "references", None)


def test_maps_in_memory_are_judged_alike(tmp_path):
    labels = np.full((2, 2, 2), 4, np.uint8)
    with pytest.raises(InputError, match="label map x: holds 4 and no 3"):
        require_clear_maps([(tmp_path / "x.nii.gz", labels)], "label map x", None)
    require_clear_maps([(tmp_path / "x.nii.gz", labels)], "label map x", "brats2025")


def test_nearly_whole_labels_are_judged_without_a_second_warning(tmp_path, caplog):
    voxels = np.zeros((4, 5, 6), np.float32)
    voxels[0, 0, :2] = 3.9999998, 0.9999999
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="holds 4 and no 3"):
        require_clear_files([tmp_path / "a.nii.gz"], "label maps", None)
    assert not caplog.records
