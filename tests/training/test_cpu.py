"""Layers for training on a CPU: the same functions as torch's, and the same gradients."""

import copy

import pytest
import torch
from torch import nn

from training.network import TrainingNetwork
from training.train.cpu_layers import TrainingGroupNorm, TrainingMish, arrange_for_cpu
from training_support import small_recipe

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


def with_gradients(module, batch, gradient):
    """Result, and the gradients by the input and by each parameter."""
    batch = batch.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad()
    result = module(batch)
    result.backward(gradient)
    return [result.detach(), batch.grad, *(parameter.grad.clone() for parameter in module.parameters())]


def assert_alike(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.to(other.dtype), other, **tolerance)


def test_mish_and_its_gradient_are_torchs_in_the_tails_and_across_chunks():
    values = torch.cat([torch.linspace(-100, 100, 200_001), torch.tensor([-1e4, 1e4, 0.0])]).reshape(1, 1, -1, 1, 1)
    found, expected = (with_gradients(mish, values, torch.ones_like(values)) for mish in (TrainingMish(), nn.Mish()))
    assert_alike(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("samples", "groups", "channels"), [(1, 8, 8), (2, 8, 8), (1, 8, 16), (3, 4, 12), (1, 1, 5)])
def test_group_norm_and_its_gradients_are_torchs(layout, samples, groups, channels):
    torch.manual_seed(0)
    batch = (torch.randn(samples, channels, 9, 7, 5) * 3 + 2).contiguous(memory_format=layout)
    gradient = torch.randn(samples, channels, 9, 7, 5)
    norm = nn.GroupNorm(groups, channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    own = arrange_for_cpu(nn.Sequential(copy.deepcopy(norm)))
    assert isinstance(own[0], TrainingGroupNorm)
    exact = with_gradients(norm.double(), batch.double(), gradient.double())
    assert_alike(with_gradients(own, batch, gradient), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", [nn.Mish(), nn.GroupNorm(4, 8)])
def test_in_bfloat16_a_gradient_is_off_by_its_rounding_alone(module):
    torch.manual_seed(0)
    batch, gradient = ((torch.randn(1, 8, 20, 20, 20) * 2).bfloat16() for _ in range(2))
    own = arrange_for_cpu(nn.Sequential(copy.deepcopy(module)))
    found = with_gradients(own, batch, gradient)
    exact = with_gradients(copy.deepcopy(module).double(), batch.double(), gradient.double())
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    # Half a unit of eight bits for the result, and for the derivative that Mish keeps as many again.
    assert_alike(found[:2], exact[:2], rtol=2**-7, atol=1e-2)


def test_a_network_keeps_its_numbers_gradients_and_names():
    torch.manual_seed(0)
    network = TrainingNetwork(small_recipe(loss={"vae_weight": 0.1}))
    images, noise = torch.rand((2, 4, 16, 16, 16)), torch.randn((2, 256))
    arranged = arrange_for_cpu(copy.deepcopy(network))
    assert {"TrainingMish", "TrainingGroupNorm"} <= {type(module).__name__ for module in arranged.modules()}
    assert not any(type(module).__name__ in {"Mish", "GroupNorm"} for module in arranged.modules())
    gradients = []
    for one in (network, arranged):
        outputs = one(images, noise)
        (outputs.logits.square().mean() + outputs.reconstruction.square().mean()).backward()
        gradients.append({name: parameter.grad for name, parameter in one.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        if expected is None:
            assert gradients[1][name] is None
        else:
            torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-5)


def test_numbers_that_are_not_finite_stay_so():
    """A run that diverges is told by its loss."""
    batch = torch.full((1, 8, 4, 4, 4), float("nan"))
    assert TrainingMish()(batch).isnan().all()


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
