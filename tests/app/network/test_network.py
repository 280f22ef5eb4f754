import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from metseg.network import build_network
from metseg.network.cpu_layers import ChunkedMish, SingleGroupNorm, arrange_for_cpu, channel_moments
from metseg.network.segresnet import VAE_PREFIX, build_segresnet_vae
from metseg.plan.plan import SegResNetPlan

PLAN = SegResNetPlan(init_filters=8)
SIZE = (32, 32, 16)


def test_without_its_vae_branch_the_training_network_is_the_frozen_one_bitwise():
    torch.manual_seed(0)
    training = build_segresnet_vae(PLAN, in_channels=4, out_channels=3, input_image_size=SIZE).eval()
    frozen = build_network(PLAN, in_channels=4, out_channels=3).eval()
    state = {name: value for name, value in training.state_dict().items() if not name.startswith(VAE_PREFIX)}
    frozen.load_state_dict(state, strict=True)
    batch = torch.rand(1, 4, *SIZE)
    with torch.inference_mode():
        assert torch.equal(training(batch)[0], frozen(batch))


def test_facts_of_the_network():
    network = build_network(SegResNetPlan(init_filters=16), in_channels=4, out_channels=3)
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_702_227
    assert sum(isinstance(module, nn.GroupNorm) for module in network.modules()) == 25
    assert all(m.num_groups == 8 for m in network.modules() if isinstance(m, nn.GroupNorm))
    assert not any(isinstance(module, nn.ReLU) for module in network.modules()), "the paper uses Mish"


def test_matplotlib_is_not_loaded_with_it_and_can_be_loaded_later():
    """matplotlib refuses to be imported where no folder can be written to, and MONAI would import it."""
    program = (
        "import sys; from metseg.network import build_network; from metseg.plan.plan import SegResNetPlan; "
        "build_network(SegResNetPlan(init_filters=8), in_channels=4, out_channels=3); "
        "assert 'matplotlib' not in sys.modules; import matplotlib.pyplot"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_arranged_for_a_cpu_it_is_the_same_function(layout):
    torch.manual_seed(0)
    network = build_network(PLAN, in_channels=4, out_channels=3).eval()
    arranged = arrange_for_cpu(copy.deepcopy(network))
    replaced = {type(module).__name__ for module in arranged.modules()}
    assert {"ChunkedMish", "SingleGroupNorm"} <= replaced
    assert "Mish" not in replaced
    batch = torch.rand(1, 4, *SIZE).contiguous(memory_format=layout)
    with torch.inference_mode():
        torch.testing.assert_close(arranged(batch), network(batch), rtol=1e-4, atol=1e-5)


def test_mish_is_exact_in_its_tails_and_across_chunks():
    extremes = torch.tensor([-1e38, -1e4, 1e4, 1e38, 0.0])
    values = torch.cat([torch.linspace(-100, 100, 200_001), extremes]).reshape(1, 1, -1, 1, 1)
    torch.testing.assert_close(ChunkedMish()(values), nn.functional.mish(values), rtol=1e-5, atol=1e-6)


def test_mish_is_the_same_to_the_bit_for_any_number_of_threads():
    torch.manual_seed(0)
    batch = (torch.randn(1, 8, 31, 41, 29) * 6).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(ChunkedMish()(batch))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_norm_of_other_inputs_is_torchs_own():
    norm = nn.GroupNorm(2, 4)
    batch = torch.rand(2, 4, 3, 3, 3)
    assert torch.equal(SingleGroupNorm(norm)(batch), norm(batch))


def test_moments_of_a_brain_in_much_background_are_exact():
    """One pass must not lose the variance to the squares, nor what is far from most voxels."""
    torch.manual_seed(0)
    batch = torch.full((1, 2, 48, 64, 40), 30.0)
    batch[:, :, 30:44, 20:50, 10:30] += torch.randn(1, 2, 14, 30, 20) * 0.1 + 100
    batch[:, 1] = 1000
    mean, variance = channel_moments(batch.contiguous(memory_format=torch.channels_last_3d))
    exact = batch.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3, 4)), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), exact.var((0, 2, 3, 4), unbiased=False), rtol=1e-5, atol=0)
    assert variance[1] == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_norm_is_exact_and_the_same_for_any_number_of_threads(threads):
    torch.manual_seed(0)
    norm = nn.GroupNorm(8, 8)
    scales = torch.linspace(0.5, 3, 8).view(1, 8, 1, 1, 1)
    batch = (torch.randn(1, 8, 60, 64, 40) * scales + 20).contiguous(memory_format=torch.channels_last_3d)
    expected = copy.deepcopy(norm).double()(batch.double().contiguous())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            found = SingleGroupNorm(norm)(batch)
    finally:
        torch.set_num_threads(before)
    # torch's own channels-last kernels are off by 1e-3 here, by another amount for each number of threads.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_short_last_axis_is_halved_without_foreign_memory(length):
    torch.manual_seed(0)
    conv = nn.Conv3d(16, 32, 3, stride=2, padding=1, bias=False)
    batch = torch.randn(1, 16, 12, 12, length).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    expected = conv(batch.float()).detach()
    placed = conv.to(dtype=torch.bfloat16, memory_format=torch.channels_last_3d)
    arranged = arrange_for_cpu(nn.Sequential(placed))
    assert list(arranged.state_dict()) == ["0.weight"]
    for _ in range(4):
        freed = [torch.full((1 << power,), torch.nan) for power in range(10, 20)]  # what a kernel may read by mistake
        del freed
        with torch.inference_mode():
            torch.testing.assert_close(arranged(batch).float(), expected, rtol=0.05, atol=0.02)
