"""The empty margin around the brain: it matters to the paper's percentiles, not to those over the brain."""

import numpy as np
import pytest

from metseg.files.discovery import discover_cases
from metseg.plan.bundle import open_bundle
from metseg.predict.device import choose_device
from metseg.predict.engine import load_engine
from metseg.prepare.prepare import prepare
from metseg.run.pipeline import read, segment
from phantoms import phantom
from support import ALL, SUB, write_bundle, write_case

MARGINS = (8, 20)
"""Both hold the windows, so that none reaches beyond the volume."""


def cut(volume, margin):
    inner = tuple(slice(margin, side - margin) for side in volume.shape)
    return volume[inner]


def segment_with_margins(tmp_path, over):
    """Label maps of one brain in grids of two sizes, cut to the smaller one's inside."""
    bundle = write_bundle(
        tmp_path / "b",
        channels=(ALL, SUB),
        scale=1.5,
        intensity={"percentiles_over": over},
        tta={"variant": "aurora"},
        postprocess=dict.fromkeys(("min_wt_mm3", "min_netc_mm3", "min_snfh_mm3", "min_et_mm3"), 0),
    )
    engine = load_engine(open_bundle(bundle), choose_device("cpu"))
    for margin in MARGINS:
        images = {name: np.pad(image, margin) for name, image in phantom(seed=3).items()}
        write_case(tmp_path / "data", f"m{margin}", images=images)
    found = {files.case_id: segment(files, engine) for files in discover_cases(tmp_path / "data")}
    return [found[f"m{margin}"] for margin in MARGINS]


@pytest.mark.parametrize("over", ["volume", "brain"])
def test_the_margin_changes_the_label_map_under_the_papers_rule_alone(tmp_path, over):
    small, large = segment_with_margins(tmp_path, over)
    assert small.labels.any()
    same = np.array_equal(cut(small.labels, MARGINS[0]), cut(large.labels, MARGINS[1]))
    assert same == (over == "brain")
    codes = {finding.code for finding in (*small.findings, *large.findings)}
    assert ("margin" in codes) == (over == "volume")


def test_a_crop_to_the_brain_has_the_channels_of_the_whole_grid(tmp_path):
    bundle = write_bundle(tmp_path / "b", intensity={"percentiles_over": "brain"})
    plan = open_bundle(bundle).plan
    images = {name: np.pad(image, 5) for name, image in phantom(seed=3).items()}
    filled = np.argwhere(np.logical_or.reduce([image > 0 for image in images.values()]))
    tight = tuple(slice(low, high + 1) for low, high in zip(filled.min(axis=0), filled.max(axis=0), strict=True))
    write_case(tmp_path / "data", "a-whole", images=images)
    write_case(tmp_path / "data", "b-tight", images={name: image[tight] for name, image in images.items()})
    whole, crop = (prepare(read(files, plan), plan) for files in discover_cases(tmp_path / "data"))
    for name, channel in crop.channels.items():
        np.testing.assert_array_equal(channel[crop.brain], whole.channels[name][whole.brain])
        assert np.count_nonzero(channel) == np.count_nonzero(whole.channels[name])
