"""The main job on real patients, where METSEG_REAL_CASES names a folder of them; said and skipped elsewhere."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from metseg.__main__ import run
from metseg.errors import ExitCode
from metseg.files.read import read_label_map
from metseg.files.submission import check_submission
from metseg.plan.bundle import bundle_folder
from support import names_in

REAL_CASES = os.environ.get("METSEG_REAL_CASES", "")
pytestmark = pytest.mark.skipif(not REAL_CASES, reason="METSEG_REAL_CASES names no folder of real cases")

WANTED = ("BraTS-MET-00110-000", "BraTS-GLI-00008-000", "BraTS-GLI-00011-000")
"""One RAS on disk, two LPS."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    for name in WANTED:
        (folder / name).symlink_to(Path(REAL_CASES).resolve() / name)
    return folder


@pytest.fixture(scope="module")
def quick_plan(tmp_path_factory):
    """The bundle's plan with one pass over one window: what is tested here does not depend on either."""
    plan = yaml.safe_load((bundle_folder() / "plan.yaml").read_text())
    path = tmp_path_factory.mktemp("plan") / "quick.yaml"
    path.write_text(yaml.safe_dump(plan | {"name": "quick", "tta": {"variant": "none"}, "window": {"extent": "whole"}}))
    return path


@pytest.mark.timeout(900)
def test_real_cases_give_label_maps_that_the_challenge_accepts(data, quick_plan, tmp_path):
    options = [f"--data-path={data}", f"--output-path={tmp_path}", f"--plan={quick_plan}", "--device=cpu"]
    assert run(["check", f"--data-path={data}"]) == ExitCode.DONE
    assert run(["infer", *options]) == ExitCode.DONE
    assert names_in(tmp_path) == sorted(f"{name}.nii.gz" for name in WANTED)
    assert [finding for finding in check_submission(data, tmp_path) if finding.severity == "error"] == []
    for name in WANTED:
        written, source = nib.load(tmp_path / f"{name}.nii.gz"), nib.load(data / name / f"{name}-t1c.nii.gz")
        for field in source.header:
            if field not in {"datatype", "bitpix", "scl_slope", "scl_inter"}:
                assert written.header[field].tobytes() == source.header[field].tobytes(), field
        labels = read_label_map(tmp_path / f"{name}.nii.gz").labels
        assert labels.max() <= 3
        assert labels.any(), f"{name}: every one of these patients has a tumour of centimetres"
        brain = np.asanyarray(source.dataobj) != 0
        assert (labels[~brain] > 0).mean() < 0.01
