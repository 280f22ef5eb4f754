"""Operated brains and variants of a cohort: what a cavity looks like, and that other cases stay as they were."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from metseg.errors import UsageError
from metseg.labels import ET, RC, SNFH
from training.cohort.case import generate_case
from training.cohort.settings import MODALITIES, CohortSettings, load_settings

COHORTS = Path(__file__).parents[2] / "training" / "cohorts"
TINY = load_settings(size="tiny")
SEED = 5


def operated(**changes) -> CohortSettings:
    """Tiny brains that were all operated on."""
    own = TINY.operation.model_copy(update={"probability": 1.0, **changes})
    return TINY.model_copy(update={"operation": own})


def without_metastases(settings: CohortSettings) -> CohortSettings:
    lesions = settings.lesions.model_copy(update={"none_probability": 1.0})
    return settings.model_copy(update={"lesions": lesions})


@pytest.fixture(scope="module")
def cases():
    return [generate_case(operated(), SEED, index) for index in range(6)]


def is_same(one, other):
    images = all(np.array_equal(one.images[name], other.images[name]) for name in MODALITIES)
    return images and np.array_equal(one.labels, other.labels)


def test_every_case_has_one_cavity_of_the_asked_size_inside_the_brain(cases):
    low, high = (1000 * millilitres * TINY.grid.lesion_scale**3 for millilitres in TINY.operation.volume_ml)
    for case in cases:
        cavity = case.labels == RC
        _, count = ndimage.label(cavity, structure=np.ones((3, 3, 3)))
        assert count == 1
        assert 0.5 * low < cavity.sum() <= 1.1 * high
        assert set(np.unique(case.labels)) <= {0, 1, 2, 3, 4}
        assert all((case.images[name][case.labels > 0] > 0).all() for name in MODALITIES)


def test_cavities_reach_the_surface(cases):
    for case in cases:
        depth = ndimage.distance_transform_edt(case.images["t1c"] > 0)
        assert depth[case.labels == RC].min() < 6


def test_fluid_is_bright_on_t2w_and_dark_or_not_on_t2f():
    dark = without_metastases(operated(suppressed_probability=1.0, blood_probability=0.0, residual_probability=0.0))
    bright = without_metastases(
        operated(suppressed_probability=0.0, protein_t2f=(1.3, 1.4), blood_probability=0.0, residual_probability=0.0)
    )
    for index in range(3):
        one, other = generate_case(dark, SEED, index), generate_case(bright, SEED, index)
        core = ndimage.binary_erosion(one.labels == RC)
        tissue = (one.labels == 0) & (ndimage.distance_transform_edt(one.images["t1n"] > 0) > 6)
        assert np.median(one.images["t2w"][core]) > 1.5 * np.median(one.images["t2w"][tissue])
        assert np.median(one.images["t1n"][core]) < np.median(one.images["t1n"][tissue])
        assert np.median(one.images["t2f"][core]) < np.median(one.images["t2f"][tissue])
        assert np.median(other.images["t2f"][core]) > np.median(other.images["t2f"][tissue])


def test_blood_is_bright_on_t1():
    bloody = operated(blood_probability=1.0, blood_share=(1.0, 1.0), blood_t1=(1.7, 1.8), residual_probability=0.0)
    case = generate_case(without_metastases(bloody), SEED, 0)
    core = ndimage.binary_erosion(case.labels == RC)
    assert np.median(case.images["t1n"][core]) > 1.2 * np.median(case.images["t1n"][case.images["t1n"] > 0])


def test_tumour_at_the_wall_is_labelled_and_outside_the_cavity():
    settings = without_metastases(operated(residual_probability=1.0))
    found = [generate_case(settings, SEED, index) for index in range(4)]
    assert all(case.lesions for case in found)
    for case in found:
        tumour = np.isin(case.labels, (1, 3))
        assert (ndimage.binary_dilation(case.labels == RC, iterations=3) & tumour).any()
        assert all(tumour[lesion.centre] for lesion in case.lesions)


def test_without_tumour_at_the_wall_nothing_is_labelled_as_enhancing():
    """A thin enhancing wall and dura are none by the challenge's definition; gliosis is SNFH."""
    settings = without_metastases(operated(residual_probability=0.0, rim_probability=1.0, dura_probability=1.0))
    labels = [generate_case(settings, SEED, index).labels for index in range(4)]
    assert not any(np.isin(each, (1, ET)).any() for each in labels)
    assert all((each == SNFH).any() for each in labels)


def test_a_cohort_without_operations_is_what_it_was_and_so_are_the_others_cases_of_a_mixed_one():
    plain = [generate_case(TINY, SEED, index) for index in range(6)]
    mixed = [generate_case(operated(probability=0.4), SEED, index) for index in range(6)]
    was_operated = [bool((case.labels == RC).any()) for case in mixed]
    assert any(was_operated)
    assert not all(was_operated)
    for one, other, changed in zip(plain, mixed, was_operated, strict=True):
        assert is_same(one, other) != changed


def test_a_variant_changes_its_share_of_the_cases_and_leaves_the_others():
    varied = CohortSettings.model_validate(
        {
            **TINY.model_dump(),
            "variants": {"pale": {"share": 0.4, "contrast": {"t1c": {"wm": [0.7, 0.8]}}}},
        }
    )
    assert varied.vary("pale").contrast.t1c.wm == (0.7, 0.8)
    assert varied.vary("pale").contrast.t1c.csf == TINY.contrast.t1c.csf
    same = [is_same(generate_case(TINY, SEED, index), generate_case(varied, SEED, index)) for index in range(6)]
    assert any(same)
    assert not all(same)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants: {a: {share: 0.6}, b: {share: 0.6}}", "must not exceed 1 together"),
        ("variants: {a: {share: 0.1, lesions: {enhancement: [2, 1]}}}", "a range runs from low to high"),
        ("variants: {a: {share: 0.1, lesions: {colour: red}}}", "Extra inputs are not permitted"),
        ("operation: {probability: 2}", "less than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_settings(tmp_path / "s.yaml")


def test_the_project_s_cohorts_can_be_read():
    mixed, all_operated = (load_settings(COHORTS / f"{name}.yaml") for name in ("mixed", "operated"))
    assert mixed.operation.probability == 0.25
    assert set(mixed.variants) == {"weak_contrast", "nonenhancing", "long_tails"}
    assert all_operated == load_settings().model_copy(update={"operation": all_operated.operation})


def test_tumours_that_hardly_enhance_are_labelled_as_they_look():
    lesions = TINY.lesions.model_copy(
        update={"nonenhancing_probability": 1.0, "giant_probability": 1.0, "none_probability": 0.0}
    )
    case = generate_case(TINY.model_copy(update={"lesions": lesions}), SEED, 0)
    counts = np.bincount(case.labels.ravel(), minlength=4)
    assert counts[1] > 4 * counts[3]


def test_a_long_tail_leaves_the_brain_little_of_the_scale():
    artefacts = TINY.artefacts.model_copy(update={"tail_probability": {"t1n": 1.0}, "tail_gain": (2.0, 2.5)})
    long, plain = (
        generate_case(TINY.model_copy(update={"artefacts": each}), SEED, 1) for each in (artefacts, TINY.artefacts)
    )
    share = [np.median(image[image > 0]) / np.percentile(image[image > 0], 99.5) for image in brains(long, plain)]
    assert share[0] < 0.7 * share[1]
    assert all(np.array_equal(long.images[name], plain.images[name]) for name in ("t1c", "t2w", "t2f"))


def brains(*cases):
    return [case.images["t1n"].astype(np.float32) for case in cases]
