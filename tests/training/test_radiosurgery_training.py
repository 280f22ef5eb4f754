"""Sampling, optimiser, objective and cohort of the radiosurgery system."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from metseg.labels import METASTASIS_REGIONS
from metseg.space.blocks import cut_repeated
from radiosurgery_support import tiny_case, tiny_recipe, tiny_settings
from training.cohort.ct_settings import CtSettings
from training.cohort.lesions import draw_diameters
from training.cohort.planning_ct import draw_motion
from training.cohort.settings import load_settings
from training.data.batches import CropDataset, Slot
from training.data.cache import keep_entry, open_entry
from training.data.prepared import build_training_case
from training.losses import Outputs, SingleTermObjective, count_terms
from training.losses.objective import Counts
from training.network import TrainingNetwork
from training.ranks import Ranks
from training.recipe import Recipe, load_recipe
from training.recipe_sections import RmsPropRecipe, SingleLossRecipe
from training.systems import RADIOSURGERY_TRAINING
from training.train.optimizers import learning_rate
from training.train.rmsprop import build_rmsprop

SHAPE = (60, 56, 40)


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """A prepared head of noise with two tumours, of 27 and 343 voxels."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[30:33, 30:33, 8:11] = 1
    labels[20:27, 20:27, 25:32] = 1
    rng = np.random.default_rng(0)
    images = {name: rng.standard_normal(SHAPE).astype(np.float32) for name in ("ct", "t1c")}
    box = tuple((0, side) for side in SHAPE)
    case = build_training_case("head", images, labels, box, regions=METASTASIS_REGIONS)
    case = replace(case, brain=((8, 52), (8, 48), (4, 36)))
    return keep_entry("head", "key", tmp_path_factory.mktemp("cache"), lambda: case)


def samples(entry, recipe, count):
    dataset = CropDataset({"head": entry}, recipe)
    return [dataset[Slot(0, place, "head", 1.0, place)] for place in range(count)]


def test_an_entry_keeps_volumes_and_the_brains_box(entry):
    case = open_entry(entry)
    assert sorted(case.volumes.tolist()) == [0, 27, 343]
    assert case.brain == ((8, 52), (8, 48), (4, 36))
    assert case.components.shape == (1, *SHAPE)


def test_slabs_hold_tumour_in_at_least_seven_of_ten(entry):
    batches = samples(entry, tiny_recipe("unet3d"), 120)
    assert all(batch.images.shape == (1, 2, 48, 48, 8) for batch in batches)
    assert all(batch.components.shape == (1, 1, 48, 48, 8) for batch in batches)
    assert np.mean([bool(batch.components.any()) for batch in batches]) >= 0.7
    assert {value for batch in batches for value in batch.components.unique().tolist()} == {0, 27, 343}


def test_segments_answer_for_tumour_every_second_time_and_bring_their_context(entry):
    recipe = tiny_recipe("deepmedic")
    batches = samples(entry, recipe, 100)
    assert all(batch.images.shape == (1, 2, 105, 105, 105) for batch in batches[:2])
    assert all(batch.components.shape == (1, 1, 21, 21, 21) for batch in batches)
    assert 0.5 <= np.mean([bool(batch.components.any()) for batch in batches]) <= 0.95


def test_context_is_the_image_around_the_answer_and_repeats_beyond_it():
    volume = np.arange(4 * 5 * 6, dtype=np.float32).reshape(1, 4, 5, 6)
    block = cut_repeated(volume, (-2, 1, 3), (4, 2, 5))
    np.testing.assert_array_equal(block[0, 2:], volume[0, 0:2, 1:3][:, :, [3, 4, 5, 5, 5]])
    np.testing.assert_array_equal(block[0, 0], block[0, 2])


def test_rmsprop_is_the_written_formula():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2)).double()
    recipe = RmsPropRecipe(kind="rmsprop", learning_rate=0.01, nesterov=0.6, l1=1e-3, l2=1e-2)
    optimizer = build_rmsprop(network, recipe)
    kernel, slope = network[0].weight, network[1].weight
    states = {id(p): [p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)] for p in (kernel, slope)}
    for _ in range(3):
        optimizer.zero_grad()
        (network(torch.randn(2, 1, 5, 5, 5, dtype=torch.float64)) ** 2).sum().backward()
        gradients = {id(p): p.grad.clone() for p in (kernel, slope)}
        optimizer.step()
        for parameter, penalised in ((kernel, True), (slope, False)):
            w, v, m = states[id(parameter)]
            g = gradients[id(parameter)] + (1e-3 * w.sign() + 2 * 1e-2 * w if penalised else 0)
            v = 0.9 * v + 0.1 * g**2
            move = -0.01 * g / (v.sqrt() + 1e-4)
            m = 0.6 * m + move
            w = w + 0.6 * m + move
            states[id(parameter)] = [w, v, m]
            torch.testing.assert_close(parameter.detach(), w)


def test_the_rate_is_halved_at_epochs():
    recipe = load_recipe("deepmedic").optimizer
    rates = [learning_rate(recipe, 0, epoch / 35, epochs=35) for epoch in (0, 16, 17, 22, 30, 34)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 5e-4, 2.5e-4, 0.0625e-3, 0.03125e-3])


@pytest.mark.parametrize("kind", ["volume_aware", "dice", "cross_entropy"])
def test_any_division_of_a_batch_gives_the_same_loss_and_gradient(kind):
    """Also over two ranks, whose largest tumour is the largest of both."""
    volumes = torch.zeros(3, 1, 6, 6, 6, dtype=torch.int32)
    volumes[0, 0, :2], volumes[1, 0, :, :3], volumes[2, 0, 0, 0] = 72, 108, 500
    logits = torch.randn(3, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    objective = SingleTermObjective(SingleLossRecipe(kind=kind))
    weights = torch.ones(3)
    whole = objective(Outputs(logits), logits, volumes, weights, count_terms(volumes, weights)).total
    counted = [count_terms(volumes[part], weights[part]) for part in (slice(0, 2), slice(2, 3))]

    class Pair(Ranks):
        def sum(self, tensor):  # noqa: ARG002
            return counted[0].packed() + counted[1].packed()

        def max(self, tensor):  # noqa: ARG002
            return torch.maximum(counted[0].largest, counted[1].largest)

    both = counted[0].over(Pair())
    assert isinstance(both, Counts)
    assert float(both.largest) == 500
    parts = [
        objective(Outputs(logits[part]), logits[part], volumes[part], weights[part], both).total
        for part in (slice(0, 2), slice(2, 3))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)
    gradients = [torch.autograd.grad(total, logits, retain_graph=True)[0] for total in (whole, parts[0] + parts[1])]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_recipes_of_the_papers_size():
    unet, deepmedic = load_recipe("unet"), load_recipe("deepmedic")
    assert unet.crops.size == (512, 512, 8)
    assert unet.crops.lesion_probability == 0.7
    assert (unet.epochs, unet.batch_cases, unet.optimizer.learning_rate) == (300, 1, 1e-3)
    assert sum(p.numel() for p in TrainingNetwork(unet).parameters()) == 21_882_817
    assert deepmedic.batch_cases * deepmedic.crops.per_case == 10
    assert deepmedic.crops.read_size == (105, 105, 105)
    assert (deepmedic.optimizer.nesterov, deepmedic.optimizer.l1, deepmedic.optimizer.l2) == (0.6, 1e-6, 1e-4)
    assert deepmedic.regions.names == ("metastasis",)
    for name in ("unet_small", "deepmedic_small"):
        assert sum(p.numel() for p in TrainingNetwork(load_recipe(name)).parameters()) < 2_500_000


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"kind": "dice", "constant_voxels": 500}},
        {"network": {"architecture": "segresnet"}},
        {"crops": {"context": 42}},
        {"data": {"registration": None}},
        {"optimizer": {"kind": "adam"}},
    ],
)
def test_impossible_recipes_are_refused(changes):
    content = tiny_recipe("unet3d").model_dump()
    for key, value in changes.items():
        content[key] = value if key in {"loss", "network", "optimizer"} else {**content[key], **value}
    with pytest.raises(ValidationError):
        Recipe.model_validate(content)


def test_metastases_have_the_papers_sizes():
    """3 to 110,000 mm3 with a median of about 760 mm3, before irregularity."""
    settings = load_settings(defaults=RADIOSURGERY_TRAINING.cohort_defaults).lesions
    rng = np.random.default_rng(0)
    drawn = np.concatenate([draw_diameters(settings, 1.0, rng) for _ in range(3000)])
    volumes = np.pi / 6 * drawn**3
    assert 600 < np.median(volumes) < 950
    assert volumes.min() >= 3
    assert volumes.max() <= 110_000
    assert volumes.max() > 40_000


def test_the_drawn_motion_is_rigid_and_within_its_limits():
    centre = np.array([3.0, -5.0, 8.0])
    for seed in range(20):
        motion = draw_motion(centre, CtSettings(), np.random.default_rng(seed))
        np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.norm(motion[:3, :3] @ centre + motion[:3, 3] - centre) <= 10
        assert np.degrees(np.arccos((np.trace(motion[:3, :3]) - 1) / 2)) <= 10 + 1e-6


def test_a_head_is_the_same_every_time_and_looks_like_one():
    one, again = tiny_case(0), tiny_case(0)
    np.testing.assert_array_equal(one.ct.voxels, again.ct.voxels)
    np.testing.assert_array_equal(one.t1c, again.t1c)
    assert set(np.unique(one.labels)) == {0, 1}
    values = one.ct.voxels
    assert (values < -900).mean() > 0.2  # air
    assert (values > 500).mean() > 0.03  # bone
    assert ((values > 0) & (values < 80)).mean() > 0.1  # brain
    assert one.labels[~one.brain].sum() == 0
    assert tiny_settings().lesions.none_probability == 0
