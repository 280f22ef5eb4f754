"""Blocks of volumes equal what numpy's padding gives, wherever they lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as s

from metseg.space.blocks import cut_padded, cut_repeated, paste

SHAPE = (5, 4, 3)
VOLUME = np.arange(1, 2 * 60 + 1).reshape(2, *SHAPE)
PAD = 12
starts = s.tuples(*[s.integers(-7, 7)] * 3)
sizes = s.tuples(*[s.integers(1, 5)] * 3)


@pytest.mark.parametrize(("cut", "mode"), [(cut_padded, "constant"), (cut_repeated, "edge")])
@given(start=starts, size=sizes)
def test_a_block_is_that_of_the_padded_volume(cut, mode, start, size):
    padded = np.pad(VOLUME, [(0, 0), *[(PAD, PAD)] * 3], mode=mode)
    sides = [slice(PAD + first, PAD + first + side) for first, side in zip(start, size, strict=True)]
    expected = padded[(slice(None), *sides)]
    assert np.array_equal(cut(VOLUME, start, size), expected)
    assert np.array_equal(cut(VOLUME[0], start, size), expected[0])


@given(start=starts, size=sizes)
def test_what_is_pasted_is_what_was_cut(start, size):
    block = cut_padded(VOLUME, start, size)
    ones = paste(np.ones(size, dtype=np.uint8), start, SHAPE)
    assert np.array_equal(paste(block, start, SHAPE), VOLUME * ones)
