"""Metastases in a phantom patient: what was there stays, what is added is labelled and visible."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from metseg.errors import UsageError
from metseg.files.discovery import discover_cases
from metseg.labels import ET, RC, SNFH
from training.cohort.case import generate_case
from training.cohort.command import implant
from training.cohort.implant import (
    estimate_background,
    estimate_noise,
    implant_lesions,
    read_background,
    tissue_shares,
    write_implants,
)
from training.cohort.operation_settings import OperationSettings
from training.cohort.settings import TINY_GRID, CohortSettings, LesionSettings, load_settings
from training.cohort.writing import write_case
from training.patients import find_patient

SETTINGS = CohortSettings(
    lesions=LesionSettings(none_probability=0, count_median=5, giant_probability=0, dominant_probability=0)
)


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A simulated case plays the real one."""
    folder = tmp_path_factory.mktemp("implant")
    write_case(generate_case(load_settings(size="tiny"), 5, 2), folder)
    return folder, discover_cases(folder)


def test_tissue_shares_of_three_known_classes():
    rng = np.random.default_rng(0)
    classes = rng.integers(3, size=(30, 30, 30))
    image = (np.array([0.2, 0.5, 0.8])[classes] + 0.03 * rng.standard_normal(classes.shape)).astype(np.float32)
    shares = np.stack(tissue_shares(image, np.ones(image.shape, dtype=bool)))
    assert (shares.argmax(0) == classes).mean() > 0.999
    assert shares.sum(0) == pytest.approx(np.ones(image.shape), abs=1e-5)


def test_a_cavity_in_a_real_brain_leaves_the_patients_own_tumour(patient):
    background = read_background(patient[1][0])
    operated = SETTINGS.model_copy(
        update={"operation": OperationSettings(probability=1, volume_ml=(1, 2)), "grid": TINY_GRID}
    )
    plain, case = (implant_lesions(background, settings, seed=1, variant=0) for settings in (SETTINGS, operated))
    own, cavity = background.labels > 0, case.labels == RC
    assert cavity.any()
    assert not (plain.labels == RC).any()
    np.testing.assert_array_equal(case.labels[own], background.labels[own])
    for name in ("t1n", "t1c", "t2w", "t2f"):
        np.testing.assert_array_equal(case.images[name][own], plain.images[name][own])
        assert (case.images[name][case.labels > 0] > 0).all()
    assert np.median(case.images["t2w"][cavity]) != np.median(plain.images["t2w"][cavity])


def test_noise_is_measured():
    image = (0.5 + 0.02 * np.random.default_rng(1).standard_normal((40, 40, 40))).astype(np.float32)
    assert estimate_noise(image, np.ones(image.shape, dtype=bool)) == pytest.approx(0.02, rel=0.05)


def test_own_lesions_stay_and_new_ones_are_known(patient):
    background = read_background(patient[1][0])
    case = implant_lesions(background, SETTINGS, seed=1, variant=0)
    own = background.labels > 0
    assert own.any()
    assert np.array_equal(case.labels[own], background.labels[own])
    new = (case.labels > 0) & ~own
    assert new.any()
    assert not (case.labels[~background.background.mask] > 0).any()
    for name, image in case.images.items():
        before = background.background.images[name]
        after = image / 2000
        assert np.abs(after - before)[own].max() < 1e-3  # rounding to integers
        untouched = ~ndimage.binary_dilation(case.labels > 0, iterations=12)
        assert np.abs(after - before)[untouched].max() < 1e-3
    enhanced = ndimage.binary_erosion((case.labels == ET) & new)
    if enhanced.any():
        t1c = case.images["t1c"] / 2000 - background.background.images["t1c"]
        assert t1c[enhanced].mean() > 0.05
    assert set(np.unique(case.labels)) <= {0, 1, SNFH, ET}


def test_variants_differ_and_repeat(patient):
    background = read_background(patient[1][0])
    one, other, again = (implant_lesions(background, SETTINGS, seed=1, variant=number) for number in (0, 1, 0))
    assert not np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.labels, again.labels)
    assert np.array_equal(one.images["t1c"], again.images["t1c"])


def test_files_are_cases_of_the_same_patient(patient, tmp_path):
    written = list(write_implants(patient[1], SETTINGS, variants=2, seed=3, output=tmp_path))
    found = discover_cases(tmp_path)
    assert [files.case_id for files in found] == [case.case_id for case in written]
    assert {find_patient(files.case_id) for files in found} == {find_patient(patient[1][0].case_id)}
    labels = np.asanyarray(nib.load(tmp_path / found[0].case_id / f"{found[0].case_id}-seg.nii.gz").dataobj)
    assert np.array_equal(labels, written[0].labels)


def test_variants_of_two_timepoints_have_names_of_their_own(patient, tmp_path):
    first = patient[1][0].case_id
    second = f"{find_patient(first)}-001"
    shutil.copytree(patient[0] / first, tmp_path / "data" / first)
    (tmp_path / "data" / second).mkdir()
    for path in (patient[0] / first).iterdir():
        shutil.copy(path, tmp_path / "data" / second / path.name.replace(first, second))
    cases = discover_cases(tmp_path / "data")
    written = list(write_implants(cases, SETTINGS, variants=1, seed=3, output=tmp_path / "out"))
    expected = [f"{find_patient(first)}-{number}" for number in (101, 102)]
    assert [case.case_id for case in written] == expected
    assert [files.case_id for files in discover_cases(tmp_path / "out")] == expected
    alone = implant_lesions(read_background(cases[0]), SETTINGS, seed=3, variant=0)
    assert np.array_equal(written[0].labels, alone.labels)


def test_an_id_that_is_not_there_is_refused(patient, tmp_path):
    known = patient[1][0].case_id
    with pytest.raises(UsageError, match=r"--only TYPO: no such case among the 1 of"):
        implant([patient[0]], output=tmp_path / "out", variants=1, only=["TYPO", known])
    assert not (tmp_path / "out").exists()
    implant([patient[0]], output=tmp_path / "out", variants=1, only=[known])
    assert len(discover_cases(tmp_path / "out")) == 1


@pytest.mark.parametrize("grey", [0.66, 0.685])
def test_a_brain_of_low_contrast_has_levels_all_the_same(grey):
    """Grey and white matter that noise mixes, and a few voxels far brighter: no class is lost to these."""
    rng = np.random.default_rng(0)
    labels = np.zeros((40, 40, 40), dtype=np.uint8)
    true = rng.choice([0.3, grey, 0.7], size=labels.shape, p=[0.1, 0.45, 0.45])
    image = (true + 0.05 * rng.standard_normal(labels.shape)).astype(np.float32)
    image[rng.random(labels.shape) < 0.007] += 0.5
    mask = np.ones(labels.shape, dtype=bool)
    background = estimate_background({"t1n": image, "t1c": image}, mask, labels)
    for level in background.levels.values():
        assert 0.2 < level.csf < 0.45 < level.gm <= level.wm < 0.85
