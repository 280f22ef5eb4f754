"""Cases of several folders: one ID means one case, and a case is known by its files."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from metseg.errors import InputError, UsageError
from metseg.labels import ET, METASTASIS_REGIONS, SNFH
from metseg.space.grid import Grid
from metseg.space.resampling import find_resampling
from metseg.systems import BRATS
from training.cohort.measure import measure_cohort
from training.data.cache import make_entry_key, prepare_entry
from training.data.cases import case_key, find_cases
from training.data.false_positives import find_false_positives
from training.data.prepared import prepare_training_case
from training.references import bring_to_network, find_reference
from training.tables.experiment import load_experiment
from training.tables.model_steps import train_model_steps
from training.tables.request import TablesRequest
from training.train.run import RunRequest, train_run
from training_support import small_recipe, write_labelled_case, write_labelled_cohort


@pytest.fixture
def two_folders(tmp_path):
    return write_labelled_cohort(tmp_path / "one", 2), write_labelled_cohort(tmp_path / "two", 1, first_seed=7)


def test_a_case_id_in_two_folders_is_refused(two_folders):
    with pytest.raises(UsageError, match=r"found P-00000-000 in .*one and in .*two$") as caught:
        find_cases(two_folders)
    assert "--first" in caught.value.hint


def test_many_ids_in_two_folders_are_counted(tmp_path):
    folders = [write_labelled_cohort(tmp_path / name, 5) for name in ("one", "two")]
    with pytest.raises(UsageError, match=r"P-00002-000 in \S+ and in \S+ and 2 more$"):
        find_cases(folders)


def test_cases_of_several_folders_are_found_together(two_folders, tmp_path):
    write_labelled_case(tmp_path / "three", "P-00009-000", 3)
    assert list(find_cases([two_folders[0], tmp_path / "three"])) == ["P-00000-000", "P-00001-000", "P-00009-000"]


def test_training_and_tables_refuse_an_id_in_two_folders(two_folders, tmp_path):
    request = RunRequest(two_folders, tmp_path / "run", tmp_path / "cache", device="cpu", threads=1)
    with pytest.raises(UsageError, match="found P-00000-000 in"):
        train_run(small_recipe(), request)
    with pytest.raises(UsageError, match="found P-00000-000 in"):
        train_model_steps(load_experiment("tiny"), TablesRequest(tmp_path / "out", data=two_folders))


def test_a_key_follows_images_and_reference(two_folders):
    first, second = (find_cases([folder])["P-00000-000"] for folder in two_folders)
    assert case_key(first).startswith("P-00000-000-")
    assert case_key(first) != case_key(second)
    before = case_key(first)
    reference = first.folder / "P-00000-000-seg.nii.gz"
    reference.write_bytes((second.folder / reference.name).read_bytes())
    assert case_key(first) != before


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_radiosurgery_reference_may_call_its_metastases_anything(label):
    grid = Grid((20, 20, 10), np.diag([1.0, 1.0, 2.0, 1.0]))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[5:12, 6:13, 3:7] = label
    resampling = find_resampling(grid, (0.6, 0.6, 2.0))
    found = bring_to_network(labels, resampling, METASTASIS_REGIONS)
    np.testing.assert_array_equal(found, bring_to_network(np.minimum(labels, 1), resampling, METASTASIS_REGIONS))
    assert set(np.unique(found)) == {0, 1}


def test_one_region_of_several_is_that_region_alone():
    grid = Grid((8, 8, 8), np.eye(4))
    labels = np.full(grid.shape, SNFH, dtype=np.uint8)
    labels[2:4, 2:4, 2:4] = ET
    only_et = BRATS.regions_named(["ET"])
    found = only_et.split(bring_to_network(labels, find_resampling(grid), only_et))
    assert found.sum() == 8


# ---- what label 4 of the references means


def of_2021(folder):
    """The references of a folder of cases with ET as 4."""
    for path in folder.rglob("*-seg.nii.gz"):
        image = nib.load(path)
        labels = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(labels == ET, 4, labels).astype(np.uint8), image.affine), path)
    return folder


def test_references_of_2021_are_asked_about_and_trained_on_as_todays(tmp_path):
    todays = write_labelled_cohort(tmp_path / "todays", 3)
    old = of_2021(write_labelled_cohort(tmp_path / "old", 3))
    request = RunRequest((old,), tmp_path / "run", tmp_path / "cache", device="cpu", threads=1, max_steps=1, workers=0)
    with pytest.raises(
        InputError, match=r"references in \S+old: 3 of 3 label maps hold 4 .*2021, a resection"
    ) as caught:
        train_run(small_recipe(), request)
    assert "--labels brats2021" in caught.value.hint
    assert not (tmp_path / "run").exists()
    train_run(small_recipe(), replace(request, convention="brats2021"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["labels"] == "brats2021"
    recipe = small_recipe()
    for case_id, files in find_cases([old], convention="brats2021").items():
        expected = prepare_training_case(find_cases([todays])[case_id], recipe.data, recipe.regions)
        found = prepare_training_case(files, recipe.data, recipe.regions)
        np.testing.assert_array_equal(found.components, expected.components)


def test_each_folder_of_references_is_judged_apart(tmp_path):
    todays = write_labelled_case(tmp_path / "todays", "P-00000-000", 1).parent
    old = of_2021(write_labelled_case(tmp_path / "old", "P-00001-000", 2).parent)
    with pytest.raises(InputError, match=r"references in \S+old: holds 4 and no 3"):
        find_cases([todays, old])
    assert len(find_cases([todays, old], convention="brats2021")) == 2
    assert len(find_cases([todays, old], regions=METASTASIS_REGIONS)) == 2, "any label is a metastasis"


def test_prepared_volumes_know_what_4_meant(tmp_path):
    folder = of_2021(write_labelled_case(tmp_path / "old", "P-00000-000", 1).parent)
    read = {said: find_cases([folder], convention=said)["P-00000-000"] for said in ("brats2021", "brats2025")}
    (as_et, as_cavity), recipe = read.values(), small_recipe()
    assert make_entry_key(as_et, recipe) != make_entry_key(as_cavity, recipe)
    assert case_key(as_et) != case_key(as_cavity)
    assert make_entry_key(replace(as_cavity, convention=None), recipe) == make_entry_key(as_cavity, recipe)


def test_predictions_of_2021_are_asked_about(tmp_path):
    folder = write_labelled_case(tmp_path / "data", "P-00000-000", 1).parent
    (files,) = find_cases([folder]).values()
    maps, recipe = tmp_path / "maps", small_recipe()
    entries = {files.case_id: prepare_entry(files, recipe, tmp_path / "cache")}
    maps.mkdir()
    shutil.copy(find_reference(files), maps / "P-00000-000.nii.gz")
    image = nib.load(maps / "P-00000-000.nii.gz")
    wrong = (np.asarray(image.dataobj) == 0).astype(np.uint8) * 4
    nib.save(nib.Nifti1Image(wrong, image.affine), maps / "P-00000-000.nii.gz")
    with pytest.raises(InputError, match=r"--predictions \S+maps: holds 4 and no 3"):
        find_false_positives([files], [maps], entries, recipe)
    said = replace(files, convention="brats2021")
    assert find_false_positives([said], [maps], entries, recipe)
    assert not find_false_positives([replace(files, convention="brats2025")], [maps], entries, recipe)


def test_a_cohort_of_2021_is_measured_as_todays(tmp_path):
    todays = write_labelled_cohort(tmp_path / "todays", 2)
    expected = list(measure_cohort(todays))
    old = of_2021(todays)
    with pytest.raises(InputError, match="2 of 2 label maps hold 4"):
        list(measure_cohort(old))
    assert list(measure_cohort(old, convention="brats2021")) == expected


def test_nearly_whole_references_are_trained_on(tmp_path):
    folder = write_labelled_case(tmp_path / "data", "P-00000-000", 1)
    (files,), recipe = find_cases([folder.parent]).values(), small_recipe()
    expected = prepare_training_case(files, recipe.data, recipe.regions)
    image = nib.load(find_reference(files))
    near = np.asarray(image.dataobj).astype(np.float32) * np.float32(0.9999999)
    nib.save(nib.Nifti1Image(near, image.affine), find_reference(files))
    np.testing.assert_array_equal(
        prepare_training_case(files, recipe.data, recipe.regions).components, expected.components
    )
