"""The brain extraction's network: the same function as deepbet's TorchScript, loaded strictly from checked weights."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from metseg.errors import WeightsError
from metseg.network.linknet import LinkNet3d
from metseg.plan.brain_weights import BRAIN_FILE, brain_folder, load_brain_plan
from metseg.predict.weights import fill_network, verify_weights

SIDE = 64


def deepbet_root():
    """Where deepbet is installed, without importing it: its window toolkit isn't."""
    found = importlib.util.find_spec("deepbet")
    return Path(found.origin).parents[1] if found and found.origin else None


def load(name):
    item = getattr(load_brain_plan(brain_folder()), name)
    path = brain_folder() / item.weights
    return fill_network(LinkNet3d(), verify_weights(path, item.sha256), path)


@pytest.mark.parametrize("name", ["locate", "segment"])
def test_bundled_weights_load_strictly_and_give_probabilities(name):
    network = load(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_126_258
    image = torch.from_numpy(np.random.default_rng(1).random((1, 1, SIDE, SIDE, 32), dtype=np.float32))
    with torch.inference_mode():
        found = network(image)
    assert found.shape == (1, SIDE, SIDE, 32)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


@pytest.mark.skipif(deepbet_root() is None, reason="deepbet is not installed (see .ci/run)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["locate", "segment"])
def test_it_is_deepbets_network(name):
    item = getattr(load_brain_plan(brain_folder()), name)
    original = deepbet_root() / item.source_file
    assert hashlib.sha256(original.read_bytes()).hexdigest() == item.source_sha256
    theirs = torch.jit.load(original, map_location="cpu").eval()
    ours = LinkNet3d().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.from_numpy(np.random.default_rng(2).random((1, 1, SIDE, SIDE, SIDE), dtype=np.float32))
    with torch.inference_mode():
        expected = theirs(image)[:, 1]
        assert torch.equal(ours(image), expected)
        halved = load(name)(image)
    torch.testing.assert_close(halved, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("damage", ["altered", "missing", "no document", "broken document"])
def test_damaged_weights_are_one_clear_error(damage, tmp_path):
    plan = load_brain_plan(brain_folder())
    weights = tmp_path / plan.locate.weights
    content = bytearray((brain_folder() / plan.locate.weights).read_bytes())
    document = tmp_path / BRAIN_FILE
    document.write_bytes((brain_folder() / BRAIN_FILE).read_bytes())
    if damage == "altered":
        content[-1] ^= 1
    if damage != "missing":
        weights.write_bytes(content)
    if damage == "no document":
        document.unlink()
    if damage == "broken document":
        document.write_text("package: 1\n")
    with pytest.raises(WeightsError, match="weights") as caught:
        verify_weights(weights, load_brain_plan(tmp_path).locate.sha256)
    assert caught.value.hint
