"""Whole heads in every image: the brain of the skull-stripped case, skull and scalp around it in each sequence."""

import nibabel as nib
import numpy as np
import pytest

from training.cohort.case import generate_case
from training.cohort.head_case import generate_head_case
from training.cohort.settings import MODALITIES, load_settings
from training.cohort.writing import write_cohort

TINY = load_settings(size="tiny")
SEED = 5


@pytest.fixture(scope="module")
def case():
    return generate_head_case(TINY, SEED, 0)


def test_files_lie_in_the_layout_and_depend_on_seed_and_number_alone(case, tmp_path):
    (written,) = write_cohort(TINY, cases=1, seed=SEED, output=tmp_path, simulate=generate_head_case)
    kinds = sorted(path.name.removeprefix(f"{case.case_id}-") for path in written.folder.iterdir())
    images = [f"{kind}.nii.gz" for kind in (*MODALITIES, "ct", "brain", "seg")]
    assert kinds == sorted([*images, "mr-to-ct.txt"])
    for kind, expected in case.volumes.items():
        found = nib.load(written.folder / f"{case.case_id}-{kind}.nii.gz")
        assert np.array_equal(np.asanyarray(found.dataobj), expected.voxels), kind


def test_brain_and_lesions_are_those_of_the_stripped_case(case):
    stripped = generate_case(TINY, SEED, 0)
    assert [lesion.diameter_mm for lesion in case.lesions] == [lesion.diameter_mm for lesion in stripped.lesions]
    for label in range(1, 4):
        assert (case.labels == label).sum() == (stripped.labels == label).sum()
    assert not (case.labels[~case.brain] > 0).any()


def test_every_sequence_shows_dark_bone_between_brain_and_bright_scalp(case):
    whole = case.images["t1c"] > 0
    assert whole.sum() > 1.3 * case.brain.sum()
    for modality in MODALITIES:
        image = case.images[modality]
        assert image.shape == case.grid.shape
        assert np.array_equal(image > 0, whole)
        around = image[whole & ~case.brain]
        assert np.percentile(around, 90) > 2 * np.percentile(around, 15)
