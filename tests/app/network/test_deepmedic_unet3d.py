"""Facts of the 3D U-Net and of DeepMedic: parameters, what a voxel sees, how the pathways lie."""

import math

import pytest
import torch
from pydantic import ValidationError

from metseg.network import build_network
from metseg.network.deepmedic import MARGIN, PADDED_RIM, PHASE, DeepMedic, pathway_inputs
from metseg.plan.networks import DeepMedicPlan, UNet3dPlan
from metseg.plan.plan import MemberPlan

SLIM = DeepMedicPlan(pathway_features=(2, 2, 2, 2, 2, 2, 3, 3), joint_features=(9, 9))


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def always_open(network):
    """Weights that let every input through, so that a gradient shows all that is seen."""
    for name, parameter in network.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 0.05)
    if isinstance(network, DeepMedic):  # equal classes would have odds of nothing
        network.classifier[-1].weight.data[0] = 0
    return network.eval()


def seen_by(network, shape, voxel):
    """First and last input voxel, along each axis, on which one output voxel depends."""
    batch = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    network(batch)[0, 0][voxel].backward()
    places = torch.nonzero(batch.grad[0, 0])
    return list(zip(places.amin(0).tolist(), places.amax(0).tolist(), strict=True))


def test_parameters_of_the_papers_size():
    unet = build_network(UNet3dPlan(), in_channels=2, out_channels=1)
    assert count(unet) == 21_882_817
    deepmedic = build_network(DeepMedicPlan(), in_channels=2, out_channels=1)
    assert count(deepmedic) == 2_008_142


def test_a_member_need_not_name_the_first_architecture_and_may_name_the_others():
    entry = {"name": "a", "weights": "a.safetensors", "sha256": "0" * 64, "regions": ["metastasis"]}
    brats = entry | {"regions": ["WT", "TC", "ET"]}
    assert MemberPlan.model_validate(brats | {"network": {"init_filters": 8}}).network.architecture == "segresnet"
    unet = MemberPlan.model_validate(entry | {"network": {"architecture": "unet3d", "filters": [8, 16]}})
    assert unet.network.model_dump(mode="json") == {"architecture": "unet3d", "filters": [8, 16]}
    for broken in ({"architecture": "vit"}, {"architecture": "unet3d", "init_filters": 8}):
        with pytest.raises(ValidationError, match=r"network"):
            MemberPlan.model_validate(entry | {"network": broken})


def test_unet_sees_a_square_in_plane_and_37_slices():
    """Two convolutions at five levels down and four up: 2 x 9 slices each way; in plane each level counts double."""
    plan = UNet3dPlan(filters=(1, 1, 1, 1, 1))
    assert plan.side_multiples == (16, 16, 1)
    network = always_open(build_network(plan, in_channels=1, out_channels=1)).double()
    shape = (240, 16, 48)
    (first, last), _, slices = seen_by(network, shape, (120, 8, 24))
    assert slices == (24 - 18, 24 + 18)
    # From the outside in: 2 cells each way at every level, down to the coarsest and up again, whose cells are 16 wide.
    assert (first, last) == (18, 221)
    assert network(torch.zeros(1, 1, 32, 16, 8).double()).shape == (1, 1, 32, 16, 8)


def test_deepmedics_pathways_read_the_published_sizes():
    full, thirds, fifths = pathway_inputs(torch.zeros(1, 1, *[21 + 2 * MARGIN] * 3))
    assert [part.shape[-1] for part in (full, thirds, fifths)] == [37, 23, 21]
    for wrong in (20, 22, 30):
        with pytest.raises(ValueError, match="21 voxels"):
            pathway_inputs(torch.zeros(1, 1, *[wrong + 2 * MARGIN] * 3))


def test_deepmedics_coarse_voxels_are_centred_on_what_they_describe():
    """On a ramp every coarse voxel's mean is the position of its cube's middle, and the answer's middle is one."""
    side = 21 + 2 * MARGIN
    ramp = (torch.arange(side).float() - MARGIN).reshape(1, 1, -1, 1, 1).expand(1, 1, side, side, side)
    for part, factor in zip(pathway_inputs(ramp), (1, 3, 5), strict=True):
        middles = part[0, 0, :, 0, 0]
        torch.testing.assert_close(middles.diff(), torch.full((len(middles) - 1,), float(factor)))
        assert 10.0 in middles.tolist()
        assert middles[len(middles) // 2] == 10.0  # symmetric about the answer's middle voxel


def test_deepmedic_sees_85_voxels_symmetrically():
    network = always_open(DeepMedic(SLIM, in_channels=1)).double()
    side = 21 + 2 * MARGIN
    middle = MARGIN + 10
    assert seen_by(network, (side,) * 3, (10, 10, 10)) == [(middle - 42, middle + 42)] * 3


def test_what_each_pathway_alone_sees():
    """17, 51 and 85 voxels, and one more voxel or cube where the joint 3x3x3 layer reaches over a cube's border."""
    side, middle = 21 + 2 * MARGIN, MARGIN + 10
    for number, reach in enumerate((8 + 1, 25, 42)):
        network = always_open(DeepMedic(SLIM, in_channels=1)).double()
        for other, pathway in enumerate(network.pathways):
            if other != number:
                torch.nn.init.zeros_(pathway.layers[0].weight)
        assert seen_by(network, (side,) * 3, (10, 10, 10))[0] == (middle - reach, middle + reach)


def test_two_blocks_a_phase_apart_agree_where_neither_was_padded():
    torch.manual_seed(0)
    network = DeepMedic(SLIM, in_channels=1).eval()
    volume = torch.randn(1, 1, 36 + 2 * MARGIN, 21 + 2 * MARGIN, 21 + 2 * MARGIN)
    with torch.inference_mode():
        whole = network(volume)[0, 0]
        first = network(volume[:, :, : 21 + 2 * MARGIN])[0, 0]
        second = network(volume[:, :, PHASE:])[0, 0]
    rim = PADDED_RIM
    torch.testing.assert_close(whole[: 21 - rim], first[: 21 - rim], rtol=0, atol=1e-5)
    torch.testing.assert_close(whole[PHASE + rim :], second[rim:], rtol=0, atol=1e-5)
    assert not torch.allclose(whole[20], first[20], atol=1e-5)  # what padding has touched differs


def test_deepmedics_one_output_is_its_two_classes():
    """Sigmoid of the output is the softmax, binary cross-entropy the cross-entropy."""
    torch.manual_seed(1)
    network = DeepMedic(SLIM, in_channels=1).eval()
    block = torch.randn(1, 1, *[21 + 2 * MARGIN] * 3)
    caught = []
    network.classifier.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    with torch.inference_mode():
        odds = network(block)
    two = caught[0]
    assert two.shape[1] == 2
    torch.testing.assert_close(odds.sigmoid()[:, 0], two.softmax(1)[:, 1])
    target = torch.ones_like(odds)
    binary = torch.nn.functional.binary_cross_entropy_with_logits(odds, target)
    torch.testing.assert_close(binary, torch.nn.functional.cross_entropy(two, target[:, 0].long()))
    assert math.isfinite(float(binary))


@pytest.mark.parametrize(
    "broken",
    [{"pathway_features": (30,) * 7}, {"pathway_features": (40, 30, *(40,) * 6)}, {"dropout": (0, 0.5, 1)}],
)
def test_impossible_deepmedics_are_refused(broken):
    with pytest.raises(ValidationError):
        DeepMedicPlan(**broken)
