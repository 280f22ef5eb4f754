"""The rules one by one, their order, and a plain reference implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from metseg.decide.size_rules import apply_size_rules
from metseg.plan.plan import PostprocessPlan

PAPER = PostprocessPlan()
OFF = {"min_wt_mm3": 0, "min_netc_mm3": 0, "min_snfh_mm3": 0, "min_et_mm3": 0}


def plain_rules(labels, plan):
    labels = labels.copy()
    for targets, minimum, new_label in (
        ((1, 2, 3), plan.min_wt_mm3, 0),
        ((1, 3), plan.min_further_core_mm3 or 0, 2),
        ((1,), plan.min_netc_mm3, 3),
        ("further ET", 0, 1),
        ((2,), plan.min_snfh_mm3, 0),
        ((3,), plan.min_et_mm3, 0),
    ):
        original = labels.copy()
        if targets == "further ET":
            relabel_further_enhancement(labels, plan.min_further_et_share or 0)
            continue
        numbers, count = ndimage.label(np.isin(labels, targets), structure=np.ones((3, 3, 3)))
        for number in range(1, count + 1):
            component = numbers == number
            if component.sum() < minimum and (targets != (1, 3) or has_larger_core(original, numbers, component)):
                labels[component] = new_label
    return labels


def has_larger_core(labels, cores, component):
    lesions, _ = ndimage.label(np.isin(labels, (1, 2, 3)), structure=np.ones((3, 3, 3)))
    beside = cores[lesions == lesions[component][0]]
    return np.bincount(beside[beside > 0]).max() > component.sum()


def relabel_further_enhancement(labels, share):
    numbers, count = ndimage.label(labels == 3, structure=np.ones((3, 3, 3)))
    cores, _ = ndimage.label(np.isin(labels, (1, 3)), structure=np.ones((3, 3, 3)))
    sizes = np.bincount(numbers.ravel())
    for number in range(1, count + 1):
        component = numbers == number
        beside = np.unique(numbers[(cores == cores[component][0]) & (numbers > 0)])
        if sizes[number] < share * sizes[beside].max():
            labels[component] = 1


def rod(*parts, shape=(4, 5, 80)):
    """A rod of one voxel's width along z: (label, voxels) after (label, voxels), from z = 1."""
    labels = np.zeros(shape, np.uint8)
    z = 1
    for label, voxels in parts:
        labels[2, 2, z : z + voxels] = label
        z += voxels
    return labels


@pytest.mark.parametrize(
    ("rule", "label", "threshold", "replacement"),
    [
        ("min_wt_mm3", 1, 25, 0),
        ("min_wt_mm3", 2, 25, 0),
        ("min_wt_mm3", 3, 25, 0),
        ("min_netc_mm3", 1, 20, 3),
        ("min_snfh_mm3", 2, 20, 0),
        ("min_et_mm3", 3, 10, 0),
    ],
)
def test_each_rule_alone_with_the_paper_s_threshold(rule, label, threshold, replacement):
    assert getattr(PAPER, rule) == threshold
    plan = PostprocessPlan(**{**OFF, rule: threshold})
    stays, goes = rod((label, threshold)), rod((label, threshold - 1))
    np.testing.assert_array_equal(apply_size_rules(stays, plan), stays)
    np.testing.assert_array_equal(apply_size_rules(goes, plan), np.where(goes == label, replacement, goes))


def test_whole_tumour_counts_its_three_labels_together():
    stays = rod((2, 10), (1, 5), (3, 10))
    np.testing.assert_array_equal(apply_size_rules(stays, PostprocessPlan(**{**OFF, "min_wt_mm3": 25})), stays)
    goes = rod((2, 10), (1, 4), (3, 10))
    assert not apply_size_rules(goes, PostprocessPlan(**{**OFF, "min_wt_mm3": 25})).any()


def test_corners_connect():
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[np.arange(25), np.arange(25), np.arange(25)] = 3
    np.testing.assert_array_equal(apply_size_rules(labels, PAPER), labels)
    labels[12, 12, 12] = 0
    assert not apply_size_rules(labels, PAPER).any()


def test_core_that_becomes_enhancing_counts_as_enhancing():
    # 6 + 4 = 10 voxels of ET after rule 2: rule 4 keeps them, and would not have kept the 4 of the network.
    labels = rod((2, 20), (1, 6), (3, 4))
    np.testing.assert_array_equal(apply_size_rules(labels, PAPER), rod((2, 20), (3, 10)))
    labels = rod((2, 20), (1, 6), (3, 3))
    np.testing.assert_array_equal(apply_size_rules(labels, PAPER), rod((2, 20)))


def test_whole_tumour_is_judged_before_its_parts_go():
    # 19 + 9 voxels pass rule 1 together; rules 3 and 4 then take both, though a later rule 1 would never see them.
    assert not apply_size_rules(rod((2, 19), (3, 9)), PAPER).any()
    # Rule 3 takes the oedema; the 10 voxels of ET that remain are under 25 but rule 1 is over.
    np.testing.assert_array_equal(apply_size_rules(rod((2, 19), (3, 10)), PAPER), rod((0, 19), (3, 10)))


def test_components_of_a_label_are_counted_one_by_one():
    labels = rod((3, 9), (2, 30), (3, 10))
    np.testing.assert_array_equal(apply_size_rules(labels, PAPER), rod((0, 9), (2, 30), (3, 10)))


def test_a_speck_of_core_beside_a_larger_core_becomes_oedema():
    rule = PostprocessPlan(**{**OFF, "min_further_core_mm3": 10})
    two = rod((3, 20), (2, 5), (1, 4), (3, 5))
    np.testing.assert_array_equal(apply_size_rules(two, rule), rod((3, 20), (2, 14)))
    np.testing.assert_array_equal(apply_size_rules(two, PostprocessPlan(**OFF)), two)
    for stays in (
        rod((3, 20), (2, 5), (1, 4), (3, 6)),  # exactly the threshold
        rod((3, 20), (0, 3), (2, 20), (3, 9)),  # the only core of its lesion
        rod((3, 9), (2, 5), (3, 9)),  # none is the larger
    ):
        np.testing.assert_array_equal(apply_size_rules(stays, rule), stays)
    np.testing.assert_array_equal(apply_size_rules(two, rule, voxel_volume_mm3=2.0), two)


def test_a_speck_of_enhancement_in_the_core_of_a_larger_one_becomes_core():
    rule = PostprocessPlan(**{**OFF, "min_further_et_share": 0.1})
    core = rod((3, 30), (1, 5), (3, 2), (2, 4))
    np.testing.assert_array_equal(apply_size_rules(core, rule), rod((3, 30), (1, 7), (2, 4)))
    np.testing.assert_array_equal(apply_size_rules(core, PostprocessPlan(**OFF)), core)
    for stays in (
        rod((3, 30), (1, 5), (3, 3)),  # exactly the share
        rod((3, 30), (2, 5), (3, 2)),  # a core of its own in the same oedema: it may be another metastasis
        rod((3, 30), (0, 5), (3, 2)),  # a lesion of its own
    ):
        np.testing.assert_array_equal(apply_size_rules(stays, rule), stays)


def test_a_speck_that_becomes_core_is_no_hole():
    # Under min_et_mm3 too: what is core first is not removed.
    rules = PostprocessPlan(**{**OFF, "min_further_et_share": 0.1, "min_et_mm3": 10})
    np.testing.assert_array_equal(apply_size_rules(rod((3, 30), (1, 5), (3, 2)), rules), rod((3, 30), (1, 7)))


def test_thresholds_are_volumes_on_other_grids():
    labels = rod((3, 30))
    assert not apply_size_rules(labels, PAPER, voxel_volume_mm3=0.5).any()
    np.testing.assert_array_equal(apply_size_rules(rod((3, 13)), PAPER, voxel_volume_mm3=2.0), rod((3, 13)))
    # A spacing that is 1 mm but for rounding.
    np.testing.assert_array_equal(apply_size_rules(rod((3, 25)), PAPER, voxel_volume_mm3=0.9999999), rod((3, 25)))


def test_resection_cavity_is_left_alone():
    labels = rod((4, 3), (3, 24))
    np.testing.assert_array_equal(apply_size_rules(labels, PAPER), rod((4, 3)))


def test_an_empty_map_stays_empty():
    assert not apply_size_rules(np.zeros((3, 4, 5), np.uint8), PAPER).any()


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.3, 0.97),
    st.builds(
        PostprocessPlan,
        min_wt_mm3=st.integers(0, 30),
        min_netc_mm3=st.integers(0, 8),
        min_snfh_mm3=st.integers(0, 8),
        min_et_mm3=st.integers(0, 8),
        min_further_core_mm3=st.none() | st.integers(0, 12),
        min_further_et_share=st.none() | st.sampled_from([0.0, 0.3, 0.6]),
    ),
    st.sampled_from("CF"),
)
def test_equals_plain_and_leaves_its_input(seed, background, plan, order):
    rng = np.random.default_rng(seed)
    share = (1 - background) / 3
    labels = rng.choice(4, rng.integers(1, 10, 3), p=[background, share, share, share]).astype(np.uint8, order=order)
    before = labels.copy()
    np.testing.assert_array_equal(apply_size_rules(labels, plan), plain_rules(labels, plan))
    np.testing.assert_array_equal(labels, before)
