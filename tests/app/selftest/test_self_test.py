import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metseg.__main__ import run
from metseg.errors import ExitCode, WeightsError
from metseg.plan.bundle import bundles_root, open_bundle
from metseg.plan.plan import FusionPlan
from metseg.plan.radiosurgery import RegistrationPlan
from metseg.predict.device import choose_device
from metseg.prepare.registration_check import HEAD_HU
from metseg.selftest.expected import EXPECTED_FILE, read_expected, write_expected
from metseg.selftest.phantoms import STRIPPED_HEAD, WHOLE_HEAD, find_phantom
from metseg.selftest.verdict import (
    Result,
    Verdict,
    expect_again,
    find_undecided,
    run_self_test,
    segment_phantom,
    shorten_plan,
)
from radiosurgery_support import write_untrained_bundle
from support import ALL, write_bundle

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A bundle of untrained members with the result that it gives."""
    folder = write_bundle(
        tmp_path_factory.mktemp("weights") / "b", channels=(ALL,), window={"size": STRIPPED_HEAD.shape}
    )
    bundle = open_bundle(folder)
    result = segment_phantom(bundle, choose_device("cpu", precision="float32"))
    write_expected(folder, expect_again(result, bundle))
    return folder, result


def test_the_phantom_is_the_same_everywhere():
    images = STRIPPED_HEAD.images
    assert STRIPPED_HEAD.sha256 == "d259a2feed1c146d817b77de6acbbb25a9345fa831f957860d0e26cd54ab459c"
    assert {image.shape for image in images.values()} == {STRIPPED_HEAD.shape}
    for parts, radius in zip(STRIPPED_HEAD.metastases, (9, 5, 4), strict=True):
        x, y, z = (round(value) for value in parts[0].centre)
        brain = np.median(images["t1c"][images["t1c"] > 0])
        assert images["t1c"][x, y, z + radius - 1] > 1.5 * brain


def test_without_a_folder_for_temporary_files_it_says_so(tested, capsys, monkeypatch):
    folder, _ = tested

    def refuse(**_options):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    assert run(["self-test", f"--weights={folder}", "--device=cpu"]) == ExitCode.OUTPUT
    assert "TMPDIR" in capsys.readouterr().err


def test_the_same_weights_pass_in_float32(tested, capsys, monkeypatch):
    folder, _ = tested
    fixed = choose_device("cpu", precision="float32")
    monkeypatch.setattr("metseg.predict.device.choose_device", lambda _choice: fixed)
    assert run(["self-test", f"--weights={folder}", "--device=cpu"]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert "self-test passed" in text
    assert "every decided voxel as stored" in text


def test_another_result_fails(tested, capsys, monkeypatch):
    folder, result = tested
    wrong = np.roll(result.labels, 3, axis=0)
    found = Result(wrong, result.undecided, result.lesions, 1.0)
    monkeypatch.setattr("metseg.selftest.verdict.segment_phantom", lambda *_: found)
    assert run(["self-test", f"--weights={folder}", "--device=cpu"]) == ExitCode.DEVICE
    captured = capsys.readouterr()
    assert "FAILED" in captured.out
    assert "do not trust" in captured.err


@pytest.mark.parametrize(
    ("lesions", "dice", "is_exact", "must_be_exact", "passed"),
    [
        (3, 1.0, True, True, True),
        (3, 0.999, False, True, False),
        (3, 0.99, False, False, True),
        (3, 0.9899, False, False, False),
        (2, 1.0, False, False, False),
    ],
)
def test_what_passes(lesions, dice, is_exact, must_be_exact, passed):
    assert Verdict("d", lesions, 3, dice, is_exact, must_be_exact, 1.0).passed is passed


def test_a_result_of_another_plan_or_phantom_is_no_measure(tested):
    folder, _ = tested
    bundle, device = open_bundle(folder), choose_device("cpu")
    for key in ("phantom_sha256", "plan_sha256"):
        other = read_expected(folder).model_copy(update={key: "0" * 64})
        with pytest.raises(WeightsError, match=f"another {key.split('_')[0]}"):
            run_self_test(bundle, other, [device])


def test_only_undecided_voxels_may_differ(tested):
    folder, result = tested
    expected = read_expected(folder)
    assert 0 < result.undecided.sum() < 0.05 * result.undecided.size
    np.testing.assert_array_equal(expected.undecided, result.undecided)
    other = result.labels.copy()
    other[result.undecided] = 1
    assert expected.hash_decided(other) == expected.decided_sha256
    place = tuple(np.argwhere(~result.undecided)[0])
    other[place] ^= 1
    assert expected.hash_decided(other) != expected.decided_sha256


def test_a_plans_name_and_tta_do_not_matter(tested):
    plan = open_bundle(tested[0]).plan
    other = plan.model_copy(update={"name": "x", "description": "y"})
    assert shorten_plan(plan).sha256 == shorten_plan(other).sha256
    assert shorten_plan(plan).tta.variant == "none"


def test_a_bundle_without_or_with_a_damaged_result_says_so(tested, tmp_path, capsys):
    folder, _ = tested
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in folder.iterdir():
        if path.name != EXPECTED_FILE:
            (bare / path.name).symlink_to(path)
    assert run(["self-test", f"--weights={bare}"]) == ExitCode.WEIGHTS
    assert "make-self-test" in capsys.readouterr().err
    content = json.loads((folder / EXPECTED_FILE).read_text())
    for change in ({"labels_zlib_base64": "AAAA"}, {"undecided_zlib_base64": "AAAA"}, {"decided_sha256": "0" * 64}):
        (bare / EXPECTED_FILE).write_text(json.dumps(content | change))
        with pytest.raises(WeightsError):
            _ = read_expected(bare).labels
    (bare / EXPECTED_FILE).write_text("{}")
    with pytest.raises(WeightsError):
        read_expected(bare)


def test_the_script_refuses_weights_that_do_not_segment(tested):
    folder, _ = tested
    before = (folder / EXPECTED_FILE).read_bytes()
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/make-self-test", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "of the phantom is labelled" in done.stdout
    assert (folder / EXPECTED_FILE).read_bytes() == before


@pytest.mark.skipif(
    not list(bundles_root().glob(f"*/{EXPECTED_FILE}")), reason="no bundle with a stored result in weights/"
)
def test_the_bundled_weights_give_what_is_stored_beside_them():
    for path in bundles_root().glob(f"*/{EXPECTED_FILE}"):
        bundle, expected = open_bundle(path.parent), read_expected(path.parent)
        assert expected.lesions >= 1
        (verdict,) = run_self_test(bundle, expected, [choose_device("cpu", precision="float32")])
        assert verdict.passed, verdict


@pytest.fixture(scope="module")
def radiosurgery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "srs"
    return write_untrained_bundle(folder, {"unet": ("ct", "t1c")}, fusion={"method": "mean"})


def test_the_whole_head_is_the_same_everywhere_and_shows_what_it_should():
    phantom = WHOLE_HEAD
    assert phantom.sha256 == "55017fb9d6ac1de3493aeee9d1bae3cbb7dccc5de82852d37120a51bb6f6368b"
    head = phantom.images["ct"] > HEAD_HU
    assert head.sum() * np.prod(phantom.spacing_mm) / 1000 > RegistrationPlan().smallest_head_ml
    for outer, *_ in phantom.metastases:
        x, y, z = (round(c / side) for c, side in zip(outer.centre, phantom.spacing_mm, strict=True))
        rim = phantom.images["t1c"][x + round(outer.half_axes[0]) - 2, y, z]
        assert rim > 2 * np.median(phantom.images["t1c"][head])


def test_a_bundle_gets_the_phantom_that_has_its_images():
    assert find_phantom({"t1c", "t2f"}) is STRIPPED_HEAD
    assert find_phantom({"t1c", "ct"}) is WHOLE_HEAD
    with pytest.raises(WeightsError, match="ct, t2f"):
        find_phantom({"t2f", "ct"})


def test_a_radiosurgery_bundle_goes_through_registration_and_passes(radiosurgery, capsys, monkeypatch):
    bundle, fixed = open_bundle(radiosurgery), choose_device("cpu", precision="float32")
    result = segment_phantom(bundle, fixed)
    assert result.labels.shape == WHOLE_HEAD.shape
    assert 0 < (result.labels > 0).mean() < 1
    write_expected(radiosurgery, expect_again(result, bundle))
    monkeypatch.setattr("metseg.predict.device.choose_device", lambda _choice: fixed)
    assert run(["self-test", f"--weights={radiosurgery}", "--device=cpu"]) == ExitCode.DONE
    assert "every decided voxel as stored" in capsys.readouterr().out


def test_the_mean_of_probabilities_near_the_threshold_is_undecided(radiosurgery):
    """Two members may be sure and opposed."""
    plan = open_bundle(radiosurgery).plan
    sure = [np.full((1, 2, 3, 4), value, dtype=np.float32) for value in (0.2, 0.8)]
    assert find_undecided(sure, plan).all()
    assert not find_undecided(sure, plan.model_copy(update={"fusion": FusionPlan()})).any()
