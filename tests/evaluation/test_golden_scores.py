"""The official programs' own figures, for twelve pairs of label maps and both protocols."""

import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from evaluation import score_case

GOLDEN = Path(__file__).parents[1] / "golden"
SCORES = json.loads((GOLDEN / "scores.json").read_text())
CASES = [(protocol, case) for protocol in ("brats2023", "brats2026") for case in SCORES[protocol]]


def flatten(entry, prefix=""):
    for key, value in entry.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key} ")
        else:
            yield prefix + key, value


def test_there_are_twelve_pairs_of_each_protocol():
    assert len(CASES) == 24


@pytest.mark.parametrize(("protocol", "case"), CASES)
def test_equals_the_official_program(protocol, case):
    reference, prediction = (nib.load(GOLDEN / "labelmaps" / f"{case}-{role}.nii.gz") for role in ("ref", "pred"))
    scores = score_case(
        np.asanyarray(reference.dataobj), np.asanyarray(prediction.dataobj), reference.header.get_zooms(), protocol
    )
    found, expected = dict(flatten(scores.to_json())), dict(flatten(SCORES[protocol][case]))
    assert list(found) == list(expected)  # names and their order
    for name, value in expected.items():
        if value is None:
            assert math.isnan(found[name]), name
        elif "Num_" in name or "_tp_" in name or "_fp_" in name or "_fn_" in name:
            assert found[name] == value, name
        else:
            assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-12), name
