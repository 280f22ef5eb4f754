"""OpenVINO's graphs compute what torch's modules compute, in the same order for any number of threads."""

import numpy as np
import openvino as ov
import pytest
import torch
from torch import nn

from metseg.network import build_network
from metseg.network.graphs import build_graph
from metseg.plan.networks import DeepMedicPlan, SegResNetPlan, UNet3dPlan

SEGRESNET = SegResNetPlan(init_filters=8)


def seeded_network(plan, in_channels, out_channels):
    """Norms that do something: weights, biases and moments other than one and zero."""
    torch.manual_seed(0)
    network = build_network(plan, in_channels=in_channels, out_channels=out_channels).eval()
    for module in network.modules():
        if isinstance(module, nn.GroupNorm | nn.BatchNorm3d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network


def run_graph(plan, network, window, *, precision="f32", threads=2):
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    in_float32 = precision == "f32"
    graph = build_graph(plan, state, in_channels=window.shape[1], sides=window.shape[2:], in_float32=in_float32)
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    (result,) = ov.Core().compile_model(graph, "CPU", settings)([window.numpy()]).values()
    return torch.from_numpy(np.array(result))


@pytest.mark.parametrize(
    ("plan", "out_channels", "sides"),
    [
        (SEGRESNET, 3, (32, 32, 32)),
        (SEGRESNET, 3, (48, 40, 8)),
        (SegResNetPlan(blocks_down=(1, 2, 1), blocks_up=(2, 1), norm_groups=16), 4, (16, 24, 20)),
        (UNet3dPlan(filters=(4, 8, 16)), 1, (32, 48, 3)),
        (DeepMedicPlan(), 1, (105, 105, 105)),
        (DeepMedicPlan(dropout=(0.1, 0.0, 0.0)), 1, (105, 120, 105)),
    ],
)
def test_it_computes_what_the_module_computes(plan, out_channels, sides):
    network = seeded_network(plan, 2, out_channels)
    window = torch.rand(1, 2, *sides)
    with torch.inference_mode():
        expected = network(window)
    torch.testing.assert_close(run_graph(plan, network, window), expected, rtol=1e-4, atol=2e-5)


def test_a_brain_in_much_background_is_normalised_exactly():
    """A group's sums run over a million voxels, most of them equal: added up in a row they lose three digits."""
    network = seeded_network(SEGRESNET, 2, 3)
    window = torch.zeros(1, 2, 96, 96, 96)
    window[:, :, 30:44, 20:50, 10:30] = torch.rand(1, 2, 14, 30, 20)
    with torch.inference_mode():
        expected = network.double()(window.double()).float()
    torch.testing.assert_close(run_graph(SEGRESNET, network.float(), window), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_bits_do_not_depend_on_the_threads(precision):
    network, window = seeded_network(SEGRESNET, 2, 3), torch.rand(1, 2, 64, 56, 40)
    one, *others = (run_graph(SEGRESNET, network, window, precision=precision, threads=count) for count in (1, 2, 5))
    assert all(torch.equal(one, other) for other in others)


def test_half_precision_rounds_and_no_more():
    network, window = seeded_network(SEGRESNET, 2, 3), torch.rand(1, 2, 48, 48, 48)
    with torch.inference_mode():
        expected = network(window)
    difference = (run_graph(SEGRESNET, network, window, precision="bf16") - expected).abs()
    assert difference.max() < 0.03 * expected.abs().max()
    assert difference.mean() < 0.005 * expected.abs().max()
