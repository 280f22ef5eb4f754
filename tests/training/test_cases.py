"""Cases of several folders: one ID means one case, and a case is known by its files."""

import numpy as np
import pytest

from metseg.errors import UsageError
from metseg.labels import ET, METASTASIS_REGIONS, SNFH
from metseg.space.grid import Grid
from metseg.space.resampling import find_resampling
from metseg.systems import BRATS
from training.data.cases import case_key, find_cases
from training.references import bring_to_network
from training.tables.experiment import load_experiment
from training.tables.model_steps import run_model_steps
from training.tables.stages import TablesRequest
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
        run_model_steps(load_experiment("tiny"), TablesRequest(tmp_path / "out", data=two_folders))


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
