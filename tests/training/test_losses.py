"""Each loss against a plain loop written from its formula: values and gradients."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from metseg.labels import BRATS_REGIONS
from training.losses import BlobLoss, DiceCELoss, Objective, Outputs, VaeLoss, count_terms
from training.network import TrainingNetwork
from training.recipe_sections import LossRecipe
from training_support import small_recipe

E = 1e-5
SHAPE = (24, 24, 12)


def plain_blob_loss(logits, components):
    """Kofler et al., arXiv 2205.08209: a mask a blob, after the sigmoid; means over blobs, samples, channels."""
    channels = []
    for channel in range(logits.shape[1]):
        samples = []
        for sample in range(logits.shape[0]):
            numbers = components[sample, channel]
            probability = torch.sigmoid(logits[sample, channel])
            blobs = []
            for number in numbers.unique().tolist():
                if number == 0:
                    continue
                others = (numbers != 0) & (numbers != number)
                masked = probability * ~others
                target = (numbers == number).to(logits.dtype)
                dice = (2 * (masked * target).sum() + E) / (masked.sum() + target.sum() + E)
                blobs.append(1 - dice)
            if blobs:
                samples.append(torch.stack(blobs).mean())
        channels.append(torch.stack(samples).mean() if samples else logits.sum() * 0)
    return torch.stack(channels).mean()


def lattice_of_blobs(count, seed):
    """So many separate blobs of 1 to 4 voxels, numbered with gaps."""
    rng = np.random.default_rng(seed)
    places = [(x, y, z) for x in range(1, 23, 3) for y in range(1, 23, 3) for z in range(1, 11, 3)]
    volume = np.zeros(SHAPE, dtype=np.int32)
    for number, index in enumerate(rng.permutation(len(places))[:count]):
        x, y, z = places[index]
        size = rng.integers(0, 2, 2)
        volume[x : x + 1 + size[0], y : y + 1 + size[1], z] = 2 * number + 3
    return volume


def components_of(counts, seed=0):
    """Shape (samples, channels, ...): a number of blobs for each."""
    return torch.from_numpy(
        np.stack(
            [
                np.stack(
                    [lattice_of_blobs(count, seed + 10 * row + column) for column, count in enumerate(counts_of_row)]
                )
                for row, counts_of_row in enumerate(counts)
            ]
        )
    )


def random_logits(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def assert_same(one, other, logits):
    """Values to 1e-5, gradients to 1e-5 of the largest."""
    (one_gradient,) = torch.autograd.grad(one, logits)
    (other_gradient,) = torch.autograd.grad(other, logits)
    assert one.item() == pytest.approx(other.item(), abs=1e-5)
    assert (one_gradient - other_gradient).abs().max() <= 1e-5 * max(other_gradient.abs().max().item(), 1e-3)


@pytest.mark.parametrize(
    "counts",
    [
        [[1, 1, 1]],
        [[200, 10, 1], [3, 50, 0]],
        [[0, 2, 5], [0, 0, 200]],
        [[0, 0, 1], [0, 0, 0], [0, 4, 0]],
    ],
)
def test_blob_loss_equals_a_loop_over_blobs(counts):
    components = components_of(counts)
    logits = random_logits(components.shape)
    assert_same(BlobLoss()(logits, components), plain_blob_loss(logits, components), logits)


def test_without_any_blob_the_loss_is_0_and_has_a_graph():
    logits = random_logits((2, 3, *SHAPE))
    loss = BlobLoss()(logits, torch.zeros(logits.shape, dtype=torch.int32))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert gradient.abs().max() == 0


def test_a_blob_that_the_crop_cuts_counts_with_what_is_inside():
    ball = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0) < 8
    whole, _ = ndimage.label(ball)
    crop = torch.from_numpy(whole[:12, :, :].astype(np.int32))[None, None]
    logits = random_logits(crop.shape)
    assert_same(BlobLoss()(logits, crop), plain_blob_loss(logits, crop), logits)


def test_blob_loss_in_closed_form():
    components = torch.zeros((1, 1, 8, 8, 8), dtype=torch.int32)
    components[0, 0, 0, 0, :2] = 1
    components[0, 0, 7, 7, :6] = 2
    # p = 1/2 everywhere: S0 = 504 / 2; blob 1: 1 - 2 * 1 / (252 + 1 + 2); blob 2: 1 - 2 * 3 / (252 + 3 + 6).
    expected = 1 - (2 / 255 + 6 / 261) / 2
    assert BlobLoss()(torch.zeros(components.shape), components).item() == pytest.approx(expected, abs=1e-6)


@given(st.permutations(list(range(1, 7))), st.integers(0, 3))
def test_what_the_blobs_are_called_does_not_matter(names, seed):
    components = components_of([[6, 3, 0]], seed=seed)
    logits = random_logits(components.shape, seed).detach()
    renamed = torch.zeros_like(components)
    for number, name in zip(components.unique().tolist()[1:], names, strict=False):
        renamed[components == number] = name
    assert BlobLoss()(logits, renamed).item() == pytest.approx(BlobLoss()(logits, components).item(), abs=1e-6)


def test_dice_ce_equals_the_formula_channel_by_channel():
    logits = random_logits((2, 3, 6, 5, 4)).double().detach().requires_grad_()
    target = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(1)).double()
    target[0, 2] = 0
    expected = []
    for sample in range(2):
        for channel in range(3):
            p, g = torch.sigmoid(logits[sample, channel]), target[sample, channel]
            dice = (2 * (p * g).sum() + E) / (p.sum() + g.sum() + E)
            entropy = -(g * p.log() + (1 - g) * (1 - p).log()).mean()
            expected.append(1 - dice + entropy)
    assert_same(DiceCELoss()(logits, target), torch.stack(expected).mean(), logits)


def test_dice_of_a_rare_region_counts_where_it_is_present_alone():
    logits = random_logits((2, 3, 6, 5, 4))
    target = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(1))
    target[0, 2] = 0
    loss, plain = DiceCELoss(where_present=[2]), DiceCELoss()
    with_it, without = (one.per_sample(logits, target) for one in (loss, plain))
    assert with_it[1] == without[1]
    # Dice of the empty channel is 0, but for its smoothing, and its loss 1 of three channels'.
    assert (without[0] - with_it[0]).item() == pytest.approx(1 / 3, abs=1e-4)
    (gradient,) = torch.autograd.grad(with_it[0], logits)
    voxels = logits[0, 2].numel()
    torch.testing.assert_close(gradient[0, 2], torch.sigmoid(logits[0, 2]) / (3 * voxels))  # cross-entropy's alone


def test_nested_regions_are_no_softmax():
    """On an ET voxel all three regions are 1; a cross-entropy over channels would not move, this one does."""
    logits = torch.zeros((1, 3, 2, 2, 2), requires_grad=True)
    (gradient,) = torch.autograd.grad(DiceCELoss()(logits, torch.ones_like(logits)), logits)
    assert (gradient < 0).all()


def test_the_vae_branch_is_monais(monkeypatch):
    recipe = small_recipe(loss={"vae_weight": 0.1})
    torch.manual_seed(0)
    network = TrainingNetwork(recipe)
    images = torch.rand((1, 4, 16, 16, 16))
    noise = torch.randn((1, 256))
    monkeypatch.setattr(torch, "randn_like", lambda _: noise.clone())
    logits, expected = network.net(images)
    outputs = network(images, noise)
    assert torch.equal(outputs.logits, logits)
    assert VaeLoss()(images, outputs.reconstruction, outputs.latent).item() == pytest.approx(expected.item(), rel=1e-6)


def parts_of(outputs, images, components, weights, *, slices, objective):
    """Gradient of the logits when the batch goes through in these parts."""
    counts = count_terms(components, weights)
    total = sum(
        objective(
            Outputs(*(tensor[part] for tensor in outputs)), images[part], components[part], weights[part], counts
        ).total
        for part in slices
    )
    return total.item(), torch.autograd.grad(total, outputs[0])[0]


@pytest.mark.parametrize("cuts", [[1, 2, 3], [2], [3]])
def test_any_division_of_a_batch_gives_the_same_loss_and_gradient(cuts):
    components = components_of([[3, 0, 1], [0, 0, 2], [5, 1, 0], [0, 0, 0]])
    outputs = (random_logits(components.shape), torch.rand((4, 2, *SHAPE)), torch.rand((4, 16)))
    images, weights = torch.rand((4, 2, *SHAPE)), torch.ones(4)
    objective = Objective(LossRecipe(dice_ce_weight=2, blob_weight=1, vae_weight=0.1), BRATS_REGIONS.names)
    whole, whole_gradient = parts_of(outputs, images, components, weights, slices=[slice(None)], objective=objective)
    slices = [slice(first, end) for first, end in pairwise([0, *cuts, 4])]
    divided, divided_gradient = parts_of(outputs, images, components, weights, slices=slices, objective=objective)
    assert divided == pytest.approx(whole, abs=1e-6)
    assert torch.allclose(divided_gradient, whole_gradient, atol=1e-8)
    plain = 2 * DiceCELoss()(outputs[0], components > 0) + plain_blob_loss(outputs[0], components)
    plain = plain + 0.1 * VaeLoss()(images, outputs[1], outputs[2])
    assert whole == pytest.approx(plain.item(), abs=1e-5)


def test_a_duplicate_of_weight_0_changes_nothing():
    components = components_of([[3, 0, 1], [2, 1, 2]])
    outputs = (random_logits(components.shape), torch.rand((2, 2, *SHAPE)), torch.rand((2, 16)))
    images = torch.rand((2, 2, *SHAPE))
    objective = Objective(LossRecipe(dice_ce_weight=2, blob_weight=1, vae_weight=0.1), BRATS_REGIONS.names)
    one, two = torch.tensor([1.0]), torch.tensor([1.0, 0.0])
    first, both = [slice(0, 1)], [slice(None)]
    expected, gradient = parts_of(outputs, images, components[:1], one, slices=first, objective=objective)
    padded, padded_gradient = parts_of(outputs, images, components, two, slices=both, objective=objective)
    assert padded == pytest.approx(expected, abs=1e-6)
    assert torch.allclose(padded_gradient, gradient, atol=1e-8)


@pytest.mark.parametrize("weights", [{"dice_ce_weight": 1}, {"dice_ce_weight": 2, "blob_weight": 1}])
def test_a_region_without_voxels_costs_what_is_invented_there_and_no_more(weights):
    """RC is in few cases: without any, the step has a finite loss, which falls with what is predicted there."""
    components = torch.zeros(2, 4, *SHAPE, dtype=torch.int32)
    components[:, :3, 4:8, 4:8, 4:8] = 1
    objective = Objective(LossRecipe(vae_weight=0, dice_smoothing=1, **weights), BRATS_REGIONS.names)
    counts = count_terms(components, torch.ones(2))
    assert counts.with_blob.tolist() == [2, 2, 2, 0]
    found = torch.where(components > 0, 14.0, -14.0)
    losses = []
    for invented in (-14.0, -2.0, 2.0):
        logits = found.clone()
        logits[:, 3, 10, 10, 6] = invented
        logits.requires_grad_()
        terms = objective(Outputs(logits), logits.detach(), components, torch.ones(2), counts)
        terms.total.backward()
        assert logits.grad.isfinite().all()
        assert (logits.grad[:, 3] >= 0).all(), "everything in an empty region is pushed down"
        losses.append(float(terms.total.detach()))
    assert losses == sorted(losses)
    assert losses[0] < 0.01
    assert losses[2] > 0.1
