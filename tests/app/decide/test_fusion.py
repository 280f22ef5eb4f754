"""Fusion against the official program's output, a plain reference implementation, closed forms and properties."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metseg.decide.fusion import fuse_labels, fuse_probabilities, member_labels
from metseg.decide.patterns import MAX_PATTERN_CODES, count_patterns
from metseg.errors import InputError, UsageError
from metseg.plan.plan import FusionPlan

GOLDEN = Path(__file__).parents[2] / "golden"
EXPECTED = json.loads((GOLDEN / "fusion.json").read_text())
LABEL_METHODS = ("simple", "simple_langerak", "majority", "maximum")


# ---- The plain implementations: one label after the other, whole arrays, every iteration over all voxels.


def plain_dice(mask, other):
    total = mask.sum() + other.sum()
    return 2.0 * (mask & other).sum() / total if total else 0.0


def plain_vote(masks, weights):
    votes = np.zeros(masks[0].shape)
    total = 0.0
    for mask, weight in zip(masks, weights, strict=True):
        votes = votes + weight * mask
        total = total + weight
    is_tied = np.abs(votes - total / 2) < 1e-9
    return (votes >= total / 2) & (total > 0), bool(is_tied.any())


def plain_simple(maps, plan):
    """The fused map, and whether some weighted vote came within rounding of half of the weight."""
    fused = np.zeros_like(maps[0])
    tied = False
    for label in sorted(set(np.concatenate([np.unique(m) for m in maps]).tolist()) - {0}):
        masks = [m == label for m in maps]
        estimate, _ = plain_vote(masks, [1.0] * len(masks))
        count = int(estimate.sum())
        for _ in range(plan.max_iterations):
            weights = [(1.0 + plain_dice(mask, estimate)) ** 2 for mask in masks]
            estimate, is_tied = plain_vote(masks, weights)
            tied |= is_tied
            new_count = int(estimate.sum())
            if abs(new_count - count) < plan.min_change_voxels:
                break
            count = new_count
        fused[estimate] = label
    return fused, tied


def plain_langerak(maps, plan):
    fused = np.zeros_like(maps[0])
    for label in sorted(set(np.concatenate([np.unique(m) for m in maps]).tolist()) - {0}):
        masks = [m == label for m in maps]
        estimate, _ = plain_vote(masks, [1.0] * len(masks))
        estimates = [estimate]
        for _ in range(plan.max_iterations):
            scores = [plain_dice(mask, estimate) for mask in masks]
            limit = np.mean(scores) - plan.langerak_alpha * np.std(scores) - 1e-12
            kept = [(mask, score) for mask, score in zip(masks, scores, strict=True) if score >= limit]
            masks = [mask for mask, _ in kept]
            estimate, _ = plain_vote(masks, [score for _, score in kept])
            if any(np.array_equal(estimate, earlier) for earlier in estimates):
                break
            estimates.append(estimate)
        fused[estimate] = label
    return fused


def plain_majority(maps):
    fused = np.zeros_like(maps[0])
    for index in np.ndindex(fused.shape):
        votes = [int(m[index]) for m in maps]
        winners = [label for label in set(votes) - {0} if votes.count(label) >= len(votes) / 2]
        fused[index] = min(winners, default=0)
    return fused


SEVERAL = st.integers(1, 6)


@st.composite
def member_maps(draw, *, members=SEVERAL, labels=(0, 1, 2, 3)):
    """Maps that mostly agree, as members do: a common map with some of its voxels redrawn for each."""
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = draw(st.sampled_from([0.05, 0.3, 1.0]))
    truth = rng.choice(labels, shape)
    maps = []
    for _ in range(draw(members)):
        redrawn = rng.random(shape) < noise
        maps.append(np.where(redrawn, rng.choice(labels, shape), truth).astype(np.uint8))
    return maps


SIMPLE_PLANS = st.builds(
    FusionPlan,
    method=st.just("simple"),
    max_iterations=st.sampled_from([1, 2, 25]),
    min_change_voxels=st.sampled_from([0, 1, 5, 25]),
)


# ---- Golden figures.


def test_golden_file_is_complete():
    assert len(EXPECTED) == 28


@pytest.mark.parametrize("method", ["simple", "majority"])
@pytest.mark.parametrize("case", EXPECTED)
def test_equals_the_official_program(case, method):
    name, members = case.rsplit("-", 1)
    maps = [
        np.asarray(nib.load(GOLDEN / "raters" / f"{name}-{rater}.nii.gz").dataobj, dtype=np.uint8)
        for rater in range(int(members))
    ]
    fused = fuse_labels(maps, FusionPlan(method=method))
    expected = EXPECTED[case][method]
    assert [int((fused == label).sum()) for label in (1, 2, 3)] == expected["voxels"]
    assert hashlib.sha256(fused.tobytes(order="C")).hexdigest() == expected["sha256"]


# ---- The counting pass decides what the plain loops decide.


@given(member_maps(), SIMPLE_PLANS)
def test_simple_equals_plain(maps, plan):
    np.testing.assert_array_equal(fuse_labels(maps, plan), plain_simple(maps, plan)[0])


@given(member_maps(labels=(0, 2, 4, 77, 255)), SIMPLE_PLANS)
def test_simple_takes_any_label(maps, plan):
    np.testing.assert_array_equal(fuse_labels(maps, plan), plain_simple(maps, plan)[0])


@given(member_maps(), st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.sampled_from([1, 2, 25]))
def test_langerak_equals_plain(maps, alpha, iterations):
    plan = FusionPlan(method="simple_langerak", langerak_alpha=alpha, max_iterations=iterations)
    np.testing.assert_array_equal(fuse_labels(maps, plan), plain_langerak(maps, plan))


@given(member_maps(labels=(0, 1, 2, 3, 4, 200)))
def test_majority_equals_plain(maps):
    np.testing.assert_array_equal(fuse_labels(maps, FusionPlan(method="majority")), plain_majority(maps))


@given(member_maps(members=st.integers(11, 40)))
def test_many_members_and_more_codes_than_fit_a_table(maps):
    plan = FusionPlan()
    assert 4 ** len(maps) > MAX_PATTERN_CODES
    np.testing.assert_array_equal(fuse_labels(maps, plan), plain_simple(maps, plan)[0])


@given(member_maps(members=st.integers(1, 14), labels=(0, 1, 3, 255)))
def test_patterns_partition_the_foreground(maps):
    patterns = count_patterns(maps)
    seen = np.any(maps, axis=0)
    columns = [tuple(column) for column in patterns.votes.T]
    assert len(set(columns)) == len(columns)
    assert patterns.voxel_counts.sum() == seen.sum()
    assert (patterns.voxel_counts > 0).all()
    for number, labels in enumerate(maps):
        np.testing.assert_array_equal(patterns.to_label_map(patterns.votes[number]), labels)


# ---- Properties.


@given(member_maps(members=st.integers(2, 5)), SIMPLE_PLANS, st.randoms(use_true_random=False))
def test_the_order_of_members_never_changes_simple(maps, plan, random):
    expected, tied = plain_simple(maps, plan)
    assume(not tied)
    shuffled = random.sample(maps, len(maps))
    np.testing.assert_array_equal(fuse_labels(shuffled, plan), expected)


@given(member_maps(members=st.just(1)), st.integers(1, 7), st.sampled_from(LABEL_METHODS))
def test_equal_maps_fuse_to_themselves(maps, members, method):
    np.testing.assert_array_equal(fuse_labels(maps * members, FusionPlan(method=method)), maps[0])


@given(member_maps(), st.sampled_from(LABEL_METHODS))
def test_memory_order_does_not_matter_and_inputs_stay(maps, method):
    plan = FusionPlan(method=method)
    before = [m.copy() for m in maps]
    expected = fuse_labels(maps, plan)
    np.testing.assert_array_equal(fuse_labels([np.asfortranarray(m) for m in maps], plan), expected)
    mixed = [np.asfortranarray(m) if i % 2 else m[::-1][::-1] for i, m in enumerate(maps)]
    np.testing.assert_array_equal(fuse_labels(mixed, plan), expected)
    for labels, copy in zip(maps, before, strict=True):
        np.testing.assert_array_equal(labels, copy)
        assert not np.shares_memory(labels, expected)


# ---- Closed forms.


def line(*labels):
    return np.array(labels, dtype=np.uint8).reshape(-1, 1, 1)


def test_ties_are_foreground_and_the_two_methods_order_labels_differently():
    maps = [line(1, 3, 0, 2), line(3, 1, 2, 0)]
    assert fuse_labels(maps, FusionPlan(method="majority")).ravel().tolist() == [1, 1, 2, 2]
    # Each label's Dice with the tied estimate is the same for both: all stay tied, and the later label overwrites.
    assert fuse_labels(maps, FusionPlan()).ravel().tolist() == [3, 3, 2, 2]


def test_simple_believes_the_member_that_agrees_with_the_others():
    # Two members: the union is the first estimate; A covers 100 of its 130 voxels, B 60, so A outweighs B.
    a, b = np.zeros((130, 1, 1), np.uint8), np.zeros((130, 1, 1), np.uint8)
    a[:100], b[70:] = 1, 1
    np.testing.assert_array_equal(fuse_labels([a, b], FusionPlan()), a)
    union = fuse_labels([a, b], FusionPlan(method="majority"))
    assert union.all()


def test_langerak_drops_the_outlier_for_good():
    good, outlier = np.zeros((8, 8, 8), np.uint8), np.zeros((8, 8, 8), np.uint8)
    good[2:6, 2:6, 2:6] = 3
    outlier[7, :, :] = 3
    maps = [good, outlier, good]
    fused = fuse_labels(maps, FusionPlan(method="simple_langerak"))
    np.testing.assert_array_equal(fused, good)


def test_langerak_without_any_agreement_is_empty_instead_of_everything():
    # Three disjoint members: no voxel reaches half of the votes, every score is 0, and 0 of 0 weight is no majority.
    maps = [line(1, 0, 0), line(0, 1, 0), line(0, 0, 1)]
    assert not fuse_labels(maps, FusionPlan(method="simple_langerak")).any()


def test_maximum_of_masks_is_a_union_per_region_not_of_label_numbers():
    # NETC against SNFH: TC and WT, so NETC; the maximum of the numbers would say SNFH.
    assert fuse_labels([line(1, 2, 3, 0), line(2, 0, 1, 0)], FusionPlan(method="maximum")).ravel().tolist() == [
        1,
        2,
        3,
        0,
    ]


@pytest.mark.parametrize("method", LABEL_METHODS)
def test_nothing_fuses_to_nothing(method):
    empty = np.zeros((3, 4, 5), np.uint8)
    fused = fuse_labels([empty, empty], FusionPlan(method=method))
    assert fused.shape == (3, 4, 5)
    assert fused.dtype == np.uint8
    assert not fused.any()


@pytest.mark.parametrize(
    ("maps", "found"),
    [
        ([], "found none"),
        ([np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8)], r"found uint8 \(2, 2, 3\)"),
        ([np.zeros((2, 2, 2), np.int16)], "found int16"),
    ],
)
def test_wrong_maps_are_refused(maps, found):
    with pytest.raises(ValueError, match=found):
        fuse_labels(maps, FusionPlan())


def test_wrong_methods_are_refused():
    maps = [line(4, 1)]
    with pytest.raises(UsageError, match="'mean' needs probabilities"):
        fuse_labels(maps, FusionPlan(method="mean"))
    with pytest.raises(InputError, match="found label 4"):
        fuse_labels(maps, FusionPlan(method="maximum"))
    with pytest.raises(UsageError, match="'simple' works on label maps"):
        fuse_probabilities([np.zeros((3, 1, 1, 1), np.float32)], FusionPlan(), 0.5)


# ---- Probabilities.


PROBABILITY = hnp.arrays(np.float32, (3, 2, 3, 2), elements=st.floats(0, 1, width=32))


def plain_probabilities(members, reduce, threshold):
    wt, tc, et = reduce(np.stack(members).astype(np.float64), axis=0) >= np.float32(threshold)
    labels = np.zeros(wt.shape, np.uint8)
    labels[et] = 3
    labels[tc & ~et] = 1
    labels[wt & ~tc] = 2
    return labels


@given(st.lists(PROBABILITY, min_size=1, max_size=4), st.sampled_from([0.1, 0.3, 0.5, 0.9]))
def test_probabilities_equal_plain(members, threshold):
    totals = np.sum(np.stack(members), axis=0, dtype=np.float64)
    assume((np.abs(totals / len(members) - np.float32(threshold)) > 1e-12).all())
    for method, reduce in (("mean", np.mean), ("maximum", np.max)):
        fused = fuse_probabilities(members, FusionPlan(method=method), threshold)
        np.testing.assert_array_equal(fused, plain_probabilities(members, reduce, threshold))


@given(PROBABILITY, st.integers(1, 7), st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from(["mean", "maximum"]))
def test_equal_probabilities_decode_like_one_member(probabilities, members, threshold, method):
    fused = fuse_probabilities([probabilities] * members, FusionPlan(method=method), threshold)
    np.testing.assert_array_equal(fused, member_labels(probabilities, threshold))


def test_ten_equal_probabilities_just_under_the_threshold_stay_out():
    # Added up one by one in float32, ten of these round up to a mean of 0.1.
    under = np.nextafter(np.float32(0.1), np.float32(0))
    assert sum([under] * 10, np.float32(0)) / np.float32(10) >= np.float32(0.1)
    members = [np.full((3, 1, 1, 1), under)] * 10
    assert fuse_probabilities(members, FusionPlan(method="mean"), 0.1).item() == 0
    assert member_labels(np.full((3, 1, 1, 1), 0.1, np.float32), 0.1).item() == 3


def test_mean_and_maximum_differ_where_they_should():
    sure, blind = np.full((3, 1, 1, 1), 0.9, np.float32), np.full((3, 1, 1, 1), 0.05, np.float32)
    assert fuse_probabilities([sure, blind], FusionPlan(method="mean"), 0.5).item() == 0
    assert fuse_probabilities([sure, blind], FusionPlan(method="maximum"), 0.5).item() == 3


def test_enhancing_outside_the_core_ends_as_oedema():
    channels = np.array([0.9, 0.1, 0.9], np.float32).reshape(3, 1, 1, 1)
    assert member_labels(channels, 0.5).item() == 2


@pytest.mark.parametrize("members", [[], [np.zeros((3, 1, 1, 1), np.float32), np.zeros((3, 1, 1, 2), np.float32)]])
def test_probabilities_of_several_shapes_are_refused(members):
    with pytest.raises(ValueError, match="of one shape"):
        fuse_probabilities(members, FusionPlan(method="mean"), 0.5)
