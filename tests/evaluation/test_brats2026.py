import math

import numpy as np
import pytest
from hypothesis import given, settings

from benchmarks.scores import plain_brats2026
from evaluation import score_case
from evaluation.brats2026 import Brats2026
from phantoms import UNIT, cube, draw_map, map_pairs, spacings


def score_et(reference, prediction, spacing=UNIT, protocol="brats2026"):
    return score_case(reference, prediction, spacing, protocol).region("ET")


def test_empty_against_empty_has_no_numbers_but_the_official_zeros():
    scores = score_et(draw_map(), draw_map())
    assert math.isnan(scores.all_instances.f1)
    assert scores.large_instances.f1 == 0
    assert math.isnan(scores.small_instances.f1)
    assert math.isnan(scores.dsc.mean)


def test_cube_shifted_by_one_voxel():
    """Of the 26 surface voxels of each cube 10 lie 1 mm off the other's surface."""
    scores = score_et(draw_map(cube(5, 5, 5)), draw_map(cube(6, 5, 5)))
    assert scores.dsc.mean == pytest.approx(2 * 18 / 54)
    assert (scores.hd95_mm.mean, scores.nsd.mean) == (1, 1)  # a distance equal to the tolerance is within it
    assert (scores.large_instances.tp, scores.all_instances.tp) == (1, 1)


def test_stray_voxel_on_a_perfect_map_halves_one_instance():
    scores = score_et(draw_map(cube(3, 3, 3)), draw_map(cube(3, 3, 3), cube(15, 15, 12, side=1)))
    assert (scores.dsc.mean, scores.dsc.std) == (0.5, 0.5)
    assert (scores.hd95_mm.mean, scores.hd95_mm.std) == (186.5, 186.5)
    assert scores.large_instances.f1 == pytest.approx(2 / 3)


def test_large_begins_at_27_cubic_millimetres():
    """26 voxels are small, 27 large; of a small instance only the counts are scored."""
    reference = draw_map(cube(3, 3, 3))
    assert score_et(reference, reference).large_instances.tp == 1
    reference[3, 3, 3] = 0
    small = score_et(reference, reference)
    assert (small.large_instances.tp, small.small_instances.tp) == (0, 1)
    assert math.isnan(small.dsc.mean)
    assert score_et(reference, reference, (1.0, 1.0, 1.1)).large_instances.tp == 1
    assert score_et(reference, reference, protocol=Brats2026(large_volume_mm3=10)).large_instances.tp == 1


def test_found_means_a_dice_of_at_least_one_fifth():
    reference = draw_map(((2, 2, 2), (9, 3, 3)))
    exactly = draw_map(((2, 2, 2), (1, 3, 3)))  # 2 * 9 / (81 + 9) = 0.2
    assert score_et(reference, exactly).large_instances.tp == 1
    exactly[2, 2, 2] = 0
    below = score_et(reference, exactly)
    assert (below.all_instances.tp, below.large_instances.tp, below.large_instances.fn) == (1, 0, 1)
    assert below.dsc.mean > 0  # not found, but its value counts
    assert score_et(reference, exactly, protocol=Brats2026(overlap_threshold=0.1)).large_instances.tp == 1


def test_matching_is_one_to_one_and_minimises_the_summed_cost():
    """A bridge over both instances can match only one of them; the other takes what it can get."""
    reference = draw_map(cube(2, 2, 2), cube(12, 2, 2))
    bridge = draw_map(((2, 2, 2), (13, 3, 3)))
    scores = score_et(reference, bridge)
    assert (scores.all_instances.tp, scores.all_instances.fp, scores.all_instances.fn) == (1, 0, 1)


def test_ties_go_to_the_component_that_comes_first_along_z():
    """Two halves of one instance with equal Dice: the first in (z, y, x) order matches, wherever it lies along x."""
    reference = draw_map(((2, 2, 2), (7, 3, 7)))
    halves = draw_map(((6, 2, 2), (3, 3, 3)), ((2, 2, 6), (3, 3, 3)))
    matched, stray = score_et(reference, halves).lesions
    assert matched.matched_components == (1,)
    assert stray.centroid_voxel == (3, 3, 7)


def test_spacing_is_applied_to_the_axes_as_the_official_program_does_unless_asked():
    reference, shifted = draw_map(cube(5, 5, 5)), draw_map(cube(6, 5, 5))
    spacing = (1.0, 1.0, 3.0)
    assert score_et(reference, shifted, spacing).hd95_mm.mean == 3  # a step along x, taken for one along z
    assert score_et(reference, shifted, spacing, Brats2026(true_millimetres=True)).hd95_mm.mean == 1


def test_resection_cavity_is_scored():
    cavity = draw_map(cube(5, 5, 5), label=4)
    scores = score_case(cavity, cavity, UNIT, "brats2026")
    assert scores.region("RC").dsc.mean == 1
    assert scores.region("WT").all_instances.tp == 0


def test_missing_prediction_scores_zero_and_373():
    columns = Brats2026().score_missing(draw_map(cube(5, 5, 5)), UNIT).to_json()
    assert len(columns) == 72
    assert all(value == (373 if "hd95" in name else 0) for name, value in columns.items())


@settings(max_examples=60)
@given(map_pairs(), spacings)
def test_equals_the_plain_implementation(pair, spacing):
    true_millimetres = plain_brats2026(*pair, spacing)
    official = plain_brats2026(*pair, spacing[::-1])
    for options, plain in ((Brats2026(true_millimetres=True), true_millimetres), (Brats2026(), official)):
        for region in score_case(*pair, spacing, options).regions:
            counts = region.all_instances
            found = (counts.tp, counts.fp, counts.fn, region.dsc.mean, region.hd95_mm.mean, region.nsd.mean)
            assert found == pytest.approx(plain[region.region], rel=1e-12, nan_ok=True)


@settings(max_examples=30)
@given(map_pairs(), spacings)
def test_a_map_against_itself_is_perfect(pair, spacing):
    for region in score_case(pair[0], pair[0], spacing, "brats2026").regions:
        assert (region.all_instances.fp, region.all_instances.fn) == (0, 0)
        if region.large_instances.tp:
            assert (region.dsc.mean, region.hd95_mm.mean, region.nsd.mean) == (1, 0, 1)


@settings(max_examples=30)
@given(map_pairs())
def test_an_isolated_false_positive_never_raises_a_score(pair):
    reference, prediction = (np.pad(labels, ((0, 8), (0, 0), (0, 0))) for labels in pair)
    before = score_case(reference, prediction, UNIT, "brats2026")
    prediction[-2, 5, 5] = 3
    after = score_case(reference, prediction, UNIT, "brats2026")
    for name in ("ET", "TC", "WT"):
        one, other = before.region(name), after.region(name)
        assert other.all_instances.fp == one.all_instances.fp + 1
        assert other.large_instances.f1 <= one.large_instances.f1
        if one.lesions and not math.isnan(one.dsc.mean):
            assert other.dsc.mean <= one.dsc.mean
            assert other.nsd.mean <= one.nsd.mean
            assert other.hd95_mm.mean >= one.hd95_mm.mean
