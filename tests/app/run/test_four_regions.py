"""A bundle with a fourth region, disjoint and with a label of its own: nothing but its plan says so."""

import csv
import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from evaluation import score_case
from metseg.__main__ import run
from metseg.decide.fusion import fuse_labels
from metseg.decide.size_rules import apply_size_rules
from metseg.errors import ExitCode
from metseg.files.discovery import discover_cases
from metseg.labels import BACKGROUND, BRATS_REGIONS, ET, NETC, RC, SNFH, Regions
from metseg.plan.bundle import open_bundle
from metseg.plan.plan import FusionPlan, Plan, PostprocessPlan
from metseg.predict.device import choose_device
from metseg.predict.engine import load_engine
from metseg.run.pipeline import segment
from phantoms import phantom
from support import ALL, SUB, write_bundle, write_case

FOUR = Regions.of({"WT": (NETC, SNFH, ET), "TC": (NETC, ET), "ET": (ET,), "RC": (RC,)})
NO_RULES = dict.fromkeys(("min_wt_mm3", "min_netc_mm3", "min_snfh_mm3", "min_et_mm3"), 0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Three untrained members, one of which is added by maximum."""
    return write_bundle(
        tmp_path_factory.mktemp("weights") / "b",
        channels=(ALL, SUB, ALL),
        regions=FOUR.names,
        scale=1.5,
        tta={"variant": "none"},
        postprocess=NO_RULES,
        fusion={"method": "majority", "added_by_maximum": ["m2"]},
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_case(folder, "c0", images=phantom(seed=3))
    return folder


def plain_decode(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Voxel by voxel, as docs/fusion.md says it."""
    labels = np.zeros(masks.shape[1:], dtype=np.uint8)
    for voxel in np.ndindex(labels.shape):
        wt, tc, et, rc = masks[(slice(None), *voxel)]
        label = SNFH if wt and not tc else NETC if tc and not et else ET if et else BACKGROUND
        labels[voxel] = RC if rc and not tc else label
    return labels


def test_decoding_is_the_plain_rule_for_every_combination():
    masks = np.array([[bool(code >> bit & 1) for code in range(16)] for bit in range(4)]).reshape(4, 16, 1, 1)
    np.testing.assert_array_equal(FOUR.decode(masks), plain_decode(masks))


@pytest.mark.parametrize("labels", [BACKGROUND, NETC, SNFH, ET, RC])
def test_splitting_and_decoding_give_a_label_back(labels):
    volume = np.full((2, 2, 2), labels, dtype=np.uint8)
    np.testing.assert_array_equal(FOUR.decode(FOUR.split(volume)), volume)


def test_the_plan_alone_says_that_there_are_four(bundle):
    plan = open_bundle(bundle).plan
    assert plan.regions == FOUR
    assert [region.name for region in plan.regions.disjoint] == ["RC"]
    stated = plan.model_dump(mode="json")
    assert stated["regions"][3] == {"name": "RC", "labels": [RC]}
    assert Plan.model_validate(stated).sha256 == plan.sha256


def test_a_case_goes_through_inference_fusion_and_rules(bundle, data):
    engine = load_engine(open_bundle(bundle), choose_device("cpu", precision="float32"))
    segmented = segment(discover_cases(data)[0], engine)
    assert set(np.unique(segmented.labels)) >= {SNFH, RC}
    members = segmented.decision.predictions.members
    votes = [FOUR.decode(member.probabilities >= np.float32(0.5)) for member in members]
    voted = fuse_labels(votes[:2], FusionPlan(method="majority"), FOUR)
    union = FOUR.split(voted) | FOUR.split(votes[2])
    np.testing.assert_array_equal(segmented.decision.labels, plain_decode(union))


def test_a_plan_may_leave_out_a_region_of_its_members(bundle, data):
    """For challenges without the cavity: the same networks, three regions."""
    four = load_engine(open_bundle(bundle), choose_device("cpu", precision="float32"))
    stated = four.plan.model_dump(mode="json")
    plan = Plan.model_validate({**stated, "regions": ["WT", "TC", "ET"]})
    assert plan.regions == BRATS_REGIONS
    assert plan.sha256 != four.plan.sha256
    files = discover_cases(data)[0]
    segmented, whole = (segment(files, engine) for engine in (replace(four, plan=plan), four))
    for ours, theirs in zip(segmented.decision.predictions.members, whole.decision.predictions.members, strict=True):
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities[:3])
    assert RC not in segmented.labels
    assert RC in whole.labels


def test_a_member_that_is_added_may_lack_the_cavity_and_no_other(bundle, data, tmp_path):
    stated = open_bundle(bundle).plan.model_dump(mode="json")
    three = write_bundle(tmp_path / "b", channels=(ALL,), regions=BRATS_REGIONS.names)
    (small,) = open_bundle(three).plan.model_dump(mode="json")["members"]
    mixed = shutil.copytree(bundle, tmp_path / "mixed")
    shutil.copy(three / small["weights"], mixed / "small.safetensors")
    small |= {"name": "small", "weights": "small.safetensors"}
    voting = stated["members"][:2]
    fusion = {"method": "majority", "added_by_maximum": ["small"]}
    content = {**stated, "members": [*voting, small], "fusion": fusion}
    (mixed / "plan.yaml").write_text(yaml.safe_dump(content))
    engine = load_engine(open_bundle(mixed), choose_device("cpu", precision="float32"))
    *_, last = segment(discover_cases(data)[0], engine).decision.predictions.members
    assert last.name == "small"
    assert last.probabilities.shape[0] == 4
    assert last.probabilities[:3].any()
    assert not last.probabilities[3].any()
    with pytest.raises(ValueError, match=r"'small' must predict the plan's WT, TC, ET, RC, found \['WT', 'TC', 'ET'\]"):
        Plan.model_validate({**content, "fusion": {"method": "majority"}})
    with pytest.raises(ValueError, match=r"member 'small' must predict the plan's WT, TC, ET, found \['WT', 'TC'\]"):
        Plan.model_validate({**content, "members": [*voting, small | {"regions": ["WT", "TC"]}]})


def test_size_rules_know_the_cavity():
    labels = np.zeros((20, 12, 12), dtype=np.uint8)
    labels[1:4, 1:4, 1:4] = RC  # 27 voxels
    labels[8:12, 4:8, 4:8] = RC  # 64 voxels
    labels[15:19, 4:8, 4:8] = ET
    kept = apply_size_rules(labels, PostprocessPlan(min_disjoint_mm3=50), FOUR)
    expected = labels.copy()
    expected[1:4, 1:4, 1:4] = BACKGROUND
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(apply_size_rules(labels, PostprocessPlan(), FOUR), labels)


def test_report_and_scores_count_it(bundle, data, tmp_path):
    out, report = tmp_path / "out", tmp_path / "report"
    arguments = ["infer", "--data-path", data, "--output-path", out, "--report-dir", report, "--weights", bundle]
    assert run([str(part) for part in [*arguments, "--device", "cpu"]]) == ExitCode.DONE
    labels = np.asanyarray(nib.load(out / "c0.nii.gz").dataobj)
    assert (labels == RC).any()
    with (report / "cases.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["rc_volume_mm3"]) == (labels == RC).sum()
    assert float(row["wt_volume_mm3"]) == np.isin(labels, FOUR.whole.labels).sum()
    assert json.loads((report / "run.json").read_text())["labels"]["4"] == "RC"
    assert "RC" in (report / "report.html").read_text()
    scores = score_case(labels, labels, (1.0, 1.0, 1.0), "brats2026")
    assert scores.region("RC").columns()["all_instance_fp"] == 0
    assert scores.region("RC").columns()["all_instance_tp"] > 0


def test_three_regions_of_the_same_networks_know_no_cavity(bundle, data):
    """The members' first three channels decide; the fourth is what the plan adds."""
    engine = load_engine(open_bundle(bundle), choose_device("cpu", precision="float32"))
    segmented = segment(discover_cases(data)[0], engine)
    three = replace(FOUR, listed=FOUR.listed[:3])
    for member in segmented.decision.predictions.members:
        with_cavity = FOUR.decode(member.probabilities >= np.float32(0.5))
        without = three.decode(member.probabilities[:3] >= np.float32(0.5))
        np.testing.assert_array_equal(with_cavity[with_cavity != RC], without[with_cavity != RC])
