"""A bundle that was trained to do without some sequences takes any set that has t1c; others refuse as before."""

import json
from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
import torch

from metseg.__main__ import run
from metseg.errors import ExitCode, InputError
from metseg.files.discovery import discover_cases
from metseg.plan.bundle import open_bundle
from metseg.plan.plan import MemberPlan, TtaPlan
from metseg.predict.device import choose_device
from metseg.predict.engine import load_engine
from metseg.predict.passes import CaseNoise, augmented_images
from metseg.prepare.channels import fill_channel, find_constant
from metseg.prepare.prepare import prepare
from metseg.run.pipeline import segment
from phantoms import phantom
from support import ALL, write_bundle, write_case

OPTIONAL = ("t1n", "t2w", "t2f")
PRESENCE = ("has-t1n", "has-t2w", "has-t2f")
CHANNELS = (*ALL, "sub", *PRESENCE)
SUBSETS = [frozenset(some) for count in range(4) for some in combinations(OPTIONAL, count)]
NO_RULES = dict.fromkeys(("min_wt_mm3", "min_netc_mm3", "min_snfh_mm3", "min_et_mm3"), 0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = write_bundle(
        tmp_path_factory.mktemp("weights") / "b",
        channels=(CHANNELS,),
        optional=OPTIONAL,
        tta={"variant": "none"},
        window={"extent": "whole"},
        postprocess=NO_RULES,
    )
    return load_engine(open_bundle(folder), choose_device("cpu", precision="float32"))


def read_case(folder, without=()):
    images = {name: volume for name, volume in phantom(seed=3).items() if name not in without}
    write_case(folder, "c0", images=images)
    return discover_cases(folder)[0]


@pytest.mark.parametrize("missing", SUBSETS, ids=lambda missing: "+".join(sorted(missing)) or "nothing")
def test_what_is_missing_is_0_and_the_network_is_told(engine, missing, tmp_path):
    segmented = segment(read_case(tmp_path, missing), engine)
    (member,) = segmented.decision.predictions.members
    layout = segmented.decision.predictions.layout
    complete = segment(read_case(tmp_path / "all"), engine) if missing else segmented
    channels = prepare(segmented.case, engine.plan).channels
    box = [
        layout.cut(channels[name]) if name in channels else np.full(layout.shape, told(name, missing))
        for name in CHANNELS
    ]
    with torch.inference_mode():
        logits = engine.members[0].network(torch.from_numpy(np.stack(box).astype(np.float32))[None])[0]
    np.testing.assert_allclose(member.probabilities, logits.sigmoid().numpy(), atol=1e-5)
    if missing:
        assert "missing-modality" in {finding.code for finding in segmented.findings}
        assert not np.array_equal(member.probabilities, complete.decision.predictions.members[0].probabilities)


def told(name, missing):
    """A channel that is no image: 1 where one is there, else 0."""
    return float(name in PRESENCE and name.removeprefix("has-") not in missing)


def test_t1c_is_needed(engine, tmp_path):
    with pytest.raises(InputError, match=r"case c0: t1c missing in .*; found t1n, t2f, t2w"):
        segment(read_case(tmp_path, ["t1c"]), engine)


def test_a_bundle_without_optional_images_refuses_as_before(tmp_path):
    bundle = write_bundle(tmp_path / "b", channels=(ALL,))
    engine = load_engine(open_bundle(bundle), choose_device("cpu", precision="float32"))
    with pytest.raises(InputError, match=r"case c0: t1n, t2w missing in .*; found t1c, t2f") as caught:
        segment(read_case(tmp_path / "data", ["t1n", "t2w"]), engine)
    assert caught.value.hint == "Add c0-t1n.nii.gz: no member of test works without it."


def test_noise_of_the_passes_leaves_alone_what_is_no_image():
    images = {"t1c": np.full((4, 4, 4), 0.5, np.float32), "t2w": np.full((4, 4, 4), 0.5, np.float32)}
    image = torch.from_numpy(np.stack([fill_channel(name, images) for name in CHANNELS]))
    noise = CaseNoise(TtaPlan(variant="aurora", noise_std_max=0.1), 7)
    spared = find_constant(CHANNELS, images)
    assert [CHANNELS[place] for place in spared] == ["t1n", "t2f", "sub", *PRESENCE]
    plain = [noisy for noisy, _ in augmented_images(image, noise)]
    seen = [noisy for noisy, _ in augmented_images(image, noise.sparing(spared))]
    kept = [place for place in range(len(CHANNELS)) if place not in spared]
    for one, other in zip(plain[1:], seen[1:], strict=True):
        assert torch.equal(other[list(spared)], image[list(spared)])
        assert torch.equal(other[kept], one[kept])
        assert not torch.equal(other[kept], image[kept])


def test_the_plan_says_what_is_needed_and_its_hash_knows():
    member = MemberPlan(name="m", weights="m.safetensors", sha256="0" * 64, channels=CHANNELS, optional=OPTIONAL)
    assert member.modalities == set(ALL)
    assert member.required_modalities == {"t1c"}


@pytest.mark.parametrize("optional", [("t1c",), ("ct",), ("t1n", "t2w")])
def test_what_a_member_does_not_read_or_needs_is_not_optional(optional):
    with pytest.raises(ValueError, match="optional must name images that it reads, t1c excepted"):
        MemberPlan(name="m", weights="m.safetensors", sha256="0" * 64, channels=("t1n", "t1c"), optional=optional)


def test_what_is_there_and_what_is_missing_is_said_everywhere(tmp_path, capsys):
    bundle = write_bundle(tmp_path / "b", channels=(CHANNELS,), optional=OPTIONAL, tta={"variant": "none"})
    read_case(tmp_path / "data", ["t1n", "t2w", "t2f"])
    where = ["--data-path", str(tmp_path / "data"), "--weights", str(bundle)]
    assert run(["check", *where]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "t2f is missing" in said
    assert "The case is segmented by the members that do without it." in said
    report = tmp_path / "report"
    assert run(["infer", *where, "--output-path", str(tmp_path / "o"), "--report-dir", str(report)]) == ExitCode.DONE
    logged = capsys.readouterr().err
    assert "needs t1c; does better with t1n, t2f, t2w" in logged
    missing = "missing t1n, t2f, t2w: segmented from t1c alone: the whole tumour is what shows there"
    assert missing in logged
    told = json.loads((report / "run.json").read_text())
    assert told["bundle"]["required_modalities"] == ["t1c"]
    assert told["bundle"]["modalities"] == ["t1c", "t1n", "t2f", "t2w"]
    assert told["cases"][0]["modalities"] == ["t1c"]
    assert "missing t1n, t2f, t2w" in (report / "report.html").read_text()


def test_finished_maps_may_hold_what_their_plan_predicts(tmp_path):
    bundle = write_bundle(
        tmp_path / "b", channels=(ALL,), regions=("WT", "TC", "ET", "RC"), tta={"variant": "none"}, scale=1.5
    )
    read_case(tmp_path / "data")
    paths = ["--data-path", str(tmp_path / "data")]
    out = ["--prediction-path", str(tmp_path / "o")]
    weights = ["--weights", str(bundle)]
    assert run(["infer", *paths, "--output-path", str(tmp_path / "o"), *weights]) == ExitCode.DONE
    assert (np.asanyarray(nib.load(tmp_path / "o" / "c0.nii.gz").dataobj) == 4).any()
    assert run(["check", *paths, *out, *weights]) == ExitCode.DONE
    assert run(["check", *paths, *out, "--labels", "brats2025"]) == ExitCode.DONE
    assert run(["check", *paths, *out, "--labels", "brats2021"]) == ExitCode.INPUT
    assert run(["check", *paths, "--labels", "brats2025"]) == ExitCode.USAGE
