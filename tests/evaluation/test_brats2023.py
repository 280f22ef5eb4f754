import numpy as np
import pytest
from hypothesis import given, settings

from benchmarks.scores import plain_brats2023
from evaluation import score_case
from evaluation.brats2023 import CHALLENGES, Brats2023
from metseg.errors import InputError, UsageError
from phantoms import UNIT, cube, draw_map, map_pairs, spacings

SCORES = ("sensitivity", "specificity", "legacy_dice", "legacy_hd95_mm", "lesion_wise_dice", "lesion_wise_hd95_mm")


def score_et(reference, prediction, spacing=UNIT, protocol="brats2023"):
    return score_case(reference, prediction, spacing, protocol).region("ET")


def test_empty_against_empty_is_perfect():
    empty = draw_map()
    scores = score_et(empty, empty)
    assert [getattr(scores, name) for name in SCORES] == [1, 1, 1, 0, 1, 0]
    assert scores.lesions == ()


def test_empty_prediction_misses_everything():
    scores = score_et(draw_map(cube(5, 5, 5)), draw_map())
    assert [getattr(scores, name) for name in SCORES] == [0, 1, 0, 374, 0, 374]
    assert (scores.tp, scores.fp, scores.fn) == (0, 0, 1)


def test_stray_voxel_on_a_perfect_map_halves_one_lesion():
    reference = draw_map(cube(3, 3, 3))
    scores = score_et(reference, draw_map(cube(3, 3, 3), cube(15, 15, 12, side=1)))
    assert (scores.tp, scores.fp, scores.fn) == (1, 1, 0)
    assert scores.lesion_wise_dice == 0.5
    assert scores.lesion_wise_hd95_mm == 187
    stray = scores.lesions[1]
    assert (stray.kind, stray.volume_mm3, stray.centroid_voxel) == ("false_positive", 1.0, (15.0, 15.0, 12.0))


@pytest.mark.parametrize(("spacing", "expected"), [(UNIT, 3), ((2.0, 1.0, 1.0), 6)])
def test_two_voxels(spacing, expected):
    """A voxel's surfels are its eight corners, of equal area: half lie 2 voxels from the other's, half 3."""
    scores = score_et(draw_map(cube(5, 5, 5, side=1)), draw_map(cube(8, 5, 5, side=1)), spacing)
    assert scores.legacy_hd95_mm == expected
    assert scores.legacy_dice == 0


@pytest.mark.parametrize(("offset", "matched"), [((3, 0, 0), 1), ((3, 3, 0), 1), ((3, 3, 3), 0), ((4, 0, 0), 0)])
def test_touching_means_sharing_a_face_or_an_edge_with_the_lesion(offset, matched):
    scores = score_et(draw_map(cube(5, 5, 5)), draw_map(cube(5 + offset[0], 5 + offset[1], 5 + offset[2])))
    assert (scores.tp, scores.fp, scores.fn) == (matched, 1 - matched, 1 - matched)
    assert scores.lesion_wise_dice == 0


@pytest.mark.parametrize(("gap", "lesions"), [(1, 1), (2, 1), (3, 2)])
def test_gap_that_the_dilation_closes(gap, lesions):
    reference = draw_map(cube(3, 5, 5), cube(6 + gap, 5, 5))
    scores = score_et(reference, reference)
    assert scores.tp == lesions
    assert scores.lesion_wise_dice == 1
    assert scores.lesion_wise_hd95_mm == 0


def test_glioma_parameters_close_wider_gaps_and_ignore_more():
    gliomas = Brats2023(CHALLENGES["GLI"])
    for gap, lesions in ((6, 1), (7, 2)):
        reference = draw_map(cube(2, 5, 5, side=4), cube(6 + gap, 5, 5, side=4))
        assert score_et(reference, reference, protocol=gliomas).tp == lesions
    small = draw_map(cube(3, 3, 3))
    assert score_et(small, small, protocol=gliomas).tp == 0  # 27 mm3 are under its 50


def test_bridge_over_two_lesions_serves_both_with_its_whole_volume():
    reference = draw_map(cube(3, 5, 5), cube(13, 5, 5))
    bridge = draw_map(((3, 5, 5), (13, 3, 3)))
    scores = score_et(reference, bridge)
    assert (scores.tp, scores.fp, scores.fn) == (2, 0, 0)
    assert [lesion.matched_components for lesion in scores.lesions] == [(1,), (1,)]
    assert scores.lesion_wise_dice == pytest.approx(2 * 27 / (27 + 117))
    assert scores.lesion_wise_hd95_mm == 10  # the bridge's far end: 14 planes of corners, the last at 10


def test_parts_of_one_lesion_are_scored_together():
    parts = draw_map(cube(5, 5, 5, side=3), ((9, 5, 5), (2, 3, 3)))
    scores = score_et(draw_map(((5, 5, 5), (6, 3, 3))), parts)
    assert (scores.tp, scores.fp) == (1, 0)
    assert scores.lesions[0].matched_components == (1, 2)
    assert scores.lesion_wise_dice == pytest.approx(2 * 45 / (54 + 45))


@pytest.mark.parametrize(("spacing", "counted"), [(UNIT, 0), ((1.0, 1.0, 1.5), 1)])
def test_lesions_up_to_two_cubic_millimetres_are_ignored(spacing, counted):
    reference = draw_map(((5, 5, 5), (2, 1, 1)))
    scores = score_et(reference, reference, spacing)
    assert (scores.tp, scores.fp, scores.fn) == (counted, 0, 0)
    missed = score_et(reference, draw_map(), spacing)
    assert (missed.tp, missed.fn) == (0, counted)
    assert missed.lesion_wise_dice == 1 - counted
    assert missed.lesions[0].size_class == ("counted" if counted else "ignored")


def test_resection_cavity_belongs_to_no_region():
    cavity = draw_map(cube(5, 5, 5), label=4)
    assert all(region.fp == 0 for region in score_case(draw_map(), cavity, UNIT, "brats2023").regions)


def test_missing_prediction_is_worse_than_a_blank_one():
    scores = Brats2023().score_missing(draw_map(), UNIT).region("WT")
    assert (scores.lesion_wise_dice, scores.lesion_wise_hd95_mm, scores.legacy_dice) == (0, 374, 0)


@settings(max_examples=60, deadline=None)
@given(map_pairs(), spacings)
def test_equals_the_plain_implementation(pair, spacing):
    plain = plain_brats2023(*pair, spacing)
    for region in score_case(*pair, spacing, "brats2023").regions:
        found = (region.tp, region.fp, region.fn, region.lesion_wise_dice, region.lesion_wise_hd95_mm)
        assert found == pytest.approx(plain[region.region], rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(map_pairs(), spacings)
def test_glioma_parameters_equal_the_plain_implementation(pair, spacing):
    plain = plain_brats2023(*pair, spacing, dilation=3, ignored_mm3=50)
    for region in score_case(*pair, spacing, Brats2023(CHALLENGES["GLI"])).regions:
        found = (region.tp, region.fp, region.fn, region.lesion_wise_dice, region.lesion_wise_hd95_mm)
        assert found == pytest.approx(plain[region.region], rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(map_pairs(), spacings)
def test_a_map_against_itself_is_perfect(pair, spacing):
    for region in score_case(pair[0], pair[0], spacing, "brats2023").regions:
        assert (region.fp, region.fn) == (0, 0)
        assert [getattr(region, name) for name in SCORES] == pytest.approx([1, 1, 1, 0, 1, 0])


@settings(max_examples=40, deadline=None)
@given(map_pairs(), spacings)
def test_mirroring_both_maps_changes_nothing(pair, spacing):
    expected = score_case(*pair, spacing, "brats2023").to_json()
    for axis in range(3):
        mirrored = score_case(*(np.flip(labels, axis) for labels in pair), spacing, "brats2023").to_json()
        for region, columns in expected.items():
            assert mirrored[region] == pytest.approx(columns, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(map_pairs())
def test_an_isolated_false_positive_never_raises_a_score(pair):
    """Only the legacy HD95 is left out: a stray voxel near a missed lesion may shorten a distance."""
    reference, prediction = (np.pad(labels, ((0, 8), (0, 0), (0, 0))) for labels in pair)
    before = score_case(reference, prediction, UNIT, "brats2023")
    prediction[-2, 5, 5] = 3
    after = score_case(reference, prediction, UNIT, "brats2023")
    for one, other in zip(before.regions, after.regions, strict=True):
        assert other.fp == one.fp + 1
        for name in ("sensitivity", "specificity", "legacy_dice", "lesion_wise_dice"):
            assert getattr(other, name) <= getattr(one, name)
        assert other.lesion_wise_hd95_mm >= one.lesion_wise_hd95_mm


@settings(max_examples=25, deadline=None)
@given(map_pairs())
def test_memory_order_data_type_and_empty_margins_change_nothing(pair):
    expected = score_case(*pair, UNIT, "brats2023")
    for variant in (np.asfortranarray, lambda a: a.astype(np.float64), lambda a: a.astype(np.int16)):
        assert score_case(*map(variant, pair), UNIT, "brats2023") == expected
    padded = score_case(*(np.pad(labels, ((3, 9), (0, 4), (7, 1))) for labels in pair), UNIT, "brats2023")
    for one, other in zip(expected.regions, padded.regions, strict=True):
        assert (other.tp, other.fp, other.fn) == (one.tp, one.fp, one.fn)
        assert other.lesion_wise_dice == one.lesion_wise_dice
        assert other.lesion_wise_hd95_mm == one.lesion_wise_hd95_mm


def test_refuses_what_it_cannot_score():
    empty = draw_map()
    with pytest.raises(InputError, match="one shape"):
        score_case(empty, empty[1:], UNIT, "brats2023")
    with pytest.raises(InputError, match="positive"):
        score_case(empty, empty, (1, 0, 1), "brats2023")
    odd = empty.astype(np.float32)
    odd[0, 0, :3] = [0.5, 7, np.nan]
    with pytest.raises(InputError, match=r"reference holds values .*: 0\.5, 7, nan"):
        score_case(odd, empty, UNIT, "brats2023")
    with pytest.raises(UsageError, match="brats2023, brats2026"):
        score_case(empty, empty, UNIT, "brats2019")
