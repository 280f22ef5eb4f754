import subprocess
import sys

import pytest
import torch
from torch import nn

from metseg.network import build_network, parameter_shapes
from metseg.network.segresnet import VAE_PREFIX, build_segresnet_vae
from metseg.plan.networks import DeepMedicPlan, SegResNetPlan, UNet3dPlan

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


@pytest.mark.parametrize(
    ("plan", "out_channels"),
    [
        (PLAN, 3),
        (SegResNetPlan(blocks_down=(1, 2, 1), blocks_up=(2, 1), norm_groups=16), 4),
        (UNet3dPlan(filters=(4, 8)), 1),
        (DeepMedicPlan(), 1),
    ],
)
def test_the_shapes_that_weights_are_compared_with_are_the_modules_own(plan, out_channels):
    network = build_network(plan, in_channels=2, out_channels=out_channels)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert dict(parameter_shapes(plan, in_channels=2, out_channels=out_channels)) == shapes


def test_monai_is_not_loaded_to_compare_shapes():
    program = (
        "import sys; from metseg.network import parameter_shapes; from metseg.plan.plan import SegResNetPlan; "
        "parameter_shapes(SegResNetPlan(), in_channels=4, out_channels=3); assert 'monai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
