"""Agreement per lesion: closed forms, and a plain implementation over voxels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from metseg.decide.agreement import LesionAgreement, lesion_agreement


def plain_agreement(labels, members):
    numbers, count = ndimage.label(np.isin(labels, (1, 2, 3)), structure=np.ones((3, 3, 3)))
    lesions = []
    for number in range(1, count + 1):
        shares, entropies = [], []
        for index in zip(*np.nonzero(numbers == number), strict=True):
            share = sum(member[index] in {1, 2, 3} for member in members) / len(members)
            shares.append(share)
            entropies.append(-sum(p * math.log2(p) for p in (share, 1 - share) if p > 0))
        finders = sum(bool(np.isin(member[numbers == number], (1, 2, 3)).any()) for member in members)
        lesions.append(LesionAgreement(number, len(shares), finders, float(np.mean(shares)), float(np.mean(entropies))))
    return lesions


def test_closed_form():
    final = np.zeros((6, 6, 12), np.uint8)
    final[1:3, 1:3, 1:3] = 3  # 8 voxels, all three agree
    final[1:3, 1:3, 5:7] = 2  # 8 voxels, two of three
    final[4, 4, 10:12] = 1  # one voxel found by one, one by all
    all_three, two, one = final.copy(), final.copy(), final.copy()
    one[1:3, 1:3, 5:7] = 0
    one[4, 4, 10] = two[4, 4, 10] = 0
    one[4, 4, 11] = 4  # a resection cavity is no vote for a tumour
    sure, likely, split = lesion_agreement(final, [all_three, two, one])
    third = -math.log2(1 / 3) / 3 - math.log2(2 / 3) * 2 / 3
    assert sure == LesionAgreement(1, 8, 3, 1.0, 0.0)
    assert (likely.voxels, likely.finders) == (8, 2)
    assert likely.vote_share == pytest.approx(2 / 3)
    assert likely.entropy_bits == pytest.approx(third)
    assert (split.voxels, split.finders) == (2, 2)
    assert split.vote_share == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert split.entropy_bits == pytest.approx(third)


def test_halves_are_one_bit_and_the_members_own_labels_do_not_matter():
    final = np.full((2, 2, 2), 3, np.uint8)
    (lesion,) = lesion_agreement(final, [np.full_like(final, 1), np.zeros_like(final)])
    assert (lesion.vote_share, lesion.entropy_bits) == (0.5, 1.0)
    (lesion,) = lesion_agreement(final, [np.full_like(final, 1), np.full_like(final, 2)])
    assert (lesion.vote_share, lesion.entropy_bits) == (1.0, 0.0)


def test_an_added_member_counts_for_the_lesions_that_it_found_alone():
    """The small-lesion model is silent on the large lesion: that is no vote against it."""
    final = np.zeros((6, 6, 12), np.uint8)
    final[1:4, 1:4, 1:4] = 2
    final[4, 4, 10:12] = 3
    large, both, small = np.where(final == 2, final, 0), final.copy(), np.where(final == 3, final, 0)
    large[1, 1, 1] = 0
    first, second = lesion_agreement(final, [large, both], [small])
    assert first == lesion_agreement(final, [large, both])[0]
    assert (second.finders, second.vote_share) == (2, pytest.approx(2 / 3))
    third = -math.log2(1 / 3) / 3 - math.log2(2 / 3) * 2 / 3
    assert second.entropy_bits == pytest.approx(third)
    (_, alone) = lesion_agreement(final, [large, large], [small])
    assert (alone.finders, alone.vote_share) == (1, pytest.approx(1 / 3))


def test_a_few_voxels_of_an_added_member_in_a_large_lesion_are_no_vote_against_it():
    """With one member that votes, else, most large lesions would be flagged as hardly agreed on."""
    final = np.zeros((6, 6, 6), np.uint8)
    final[1:5, 1:5, 1:5] = 2
    small = np.zeros_like(final)
    for part, counted in ((1, False), (2, True)):
        small[1 : 1 + part, 1:5, 1:5] = 2
        (lesion,) = lesion_agreement(final, [final], [small])
        assert lesion.finders == 1 + counted
        assert lesion.vote_share == (0.75 if counted else 1)
        assert (lesion.entropy_bits > 0) == counted


def test_no_lesion_no_entry():
    empty = np.zeros((2, 2, 2), np.uint8)
    assert lesion_agreement(empty, [empty]) == ()
    assert lesion_agreement(np.full_like(empty, 4), [empty]) == ()


def test_wrong_members_are_refused():
    with pytest.raises(ValueError, match=r"found \[\]"):
        lesion_agreement(np.zeros((2, 2, 2), np.uint8), [])
    with pytest.raises(ValueError, match=r"found \[\(2, 2, 3\)\]"):
        lesion_agreement(np.zeros((2, 2, 2), np.uint8), [np.zeros((2, 2, 3), np.uint8)])


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from("CF"))
def test_equals_plain(seed, member_count, order):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 7, 3))
    draw = [rng.choice(5, shape, p=[0.8, 0.05, 0.05, 0.05, 0.05]).astype(np.uint8) for _ in range(member_count + 1)]
    final, *members = [np.asarray(labels, order=order) for labels in draw]
    found = lesion_agreement(final, members)
    expected = plain_agreement(final, members)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.lesion, one.voxels, one.finders) == (other.lesion, other.voxels, other.finders)
        assert one.vote_share == pytest.approx(other.vote_share)
        assert one.entropy_bits == pytest.approx(other.entropy_bits)
