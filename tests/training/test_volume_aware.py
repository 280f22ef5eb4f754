"""Volume-aware Dice against the paper's worked example, its formula written as a loop, and what follows from it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.losses import SquaredDiceLoss, VolumeAwareDiceLoss, largest_tumour

E = 1e-5
CERTAIN = 60.0
"""A logit whose sigmoid is 1 to float64's last digit but a few."""


def tumours(*sizes, room=500):
    """Volume map of one sample, flat: tumours of these sizes, then background."""
    parts = [torch.full((size,), size) for size in sizes]
    return torch.cat([*parts, torch.zeros(room, dtype=torch.long)]).reshape(1, 1, -1, 1, 1)


def logits_of(probability):
    return torch.logit(torch.as_tensor(probability, dtype=torch.float64))


def written_formula(probability, volumes, scale, smoothing=E):
    """The paper's formula with plain vectors; one sample."""
    p, v = probability.reshape(-1), volumes.reshape(-1).double()
    g = (v > 0).double()
    w = torch.tensor([math.sqrt(scale / x) if x else 0.0 for x in v.tolist()], dtype=torch.float64)
    gwg = g @ (w * g)
    c = 1 + (g @ g) / gwg if gwg else 2.0
    return -(c * (g @ (w * p)) + smoothing) / (p @ p + gwg + smoothing)


def test_the_papers_worked_example():
    """Tumours of 1800, 450 and 200 voxels, the smallest missed: weights 1, 2, 3."""
    volumes = tumours(1800, 450, 200)
    logits = torch.where(volumes > 200, CERTAIN, -CERTAIN).double()
    assert float(SquaredDiceLoss()(logits, volumes)) == pytest.approx(-0.957, abs=5e-4)
    assert float(VolumeAwareDiceLoss()(logits, volumes)) == pytest.approx(-0.8477, abs=5e-5)
    assert float(VolumeAwareDiceLoss(1800)(logits, volumes)) == pytest.approx(-0.8477, abs=5e-5)


@given(
    st.lists(st.integers(1, 40), max_size=4),
    st.one_of(st.none(), st.floats(0.5, 5000)),
    st.integers(0, 2**31 - 1),
)
def test_value_and_gradient_are_those_of_the_written_formula(sizes, constant, seed):
    volumes = tumours(*sizes, room=20)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(volumes.shape, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = VolumeAwareDiceLoss(constant)(logits, volumes)
    expected = written_formula(torch.sigmoid(logits), volumes, constant or max(sizes, default=1))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    ours = torch.autograd.grad(loss, logits)[0]
    theirs = torch.autograd.grad(expected, logits)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


@given(st.integers(1, 60), st.integers(0, 2**31 - 1))
def test_one_tumour_in_a_batch_of_one_is_dice(size, seed):
    volumes = tumours(size, room=30)
    logits = torch.randn(volumes.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(VolumeAwareDiceLoss()(logits, volumes), SquaredDiceLoss()(logits, volumes))


@pytest.mark.parametrize(("scale", "size"), [(500, 8000), (500, 20000), (100, 1600), (5000, 400)])
def test_the_best_constant_prediction(scale, size):
    """p* = min(1, (lambda / V) ** 1/4): under a half where a tumour is larger than 16 lambda."""
    grid = torch.linspace(0.001, 0.9999, 4000, dtype=torch.float64)
    weight = math.sqrt(scale / size)
    volumes = torch.full((1, 1, size, 1, 1), size)
    loss = VolumeAwareDiceLoss(scale)
    values = torch.stack([loss(torch.full(volumes.shape, float(logits_of(p))), volumes) for p in grid[::40]])
    found = float(grid[::40][values.argmin()])
    assert found == pytest.approx(min(1.0, weight**0.5), abs=0.012)
    assert (found < 0.5) == (size > 16 * scale)


def test_soft_predictions_may_fall_under_minus_one():
    volumes = torch.full((1, 1, 8000, 1, 1), 8000)
    best = (500 / 8000) ** 0.25
    assert float(VolumeAwareDiceLoss(500)(torch.full(volumes.shape, float(logits_of(best))), volumes)) < -1.1
    perfect = torch.full(volumes.shape, CERTAIN, dtype=torch.float64)
    assert float(VolumeAwareDiceLoss(500)(perfect, volumes)) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("loss", [SquaredDiceLoss(), VolumeAwareDiceLoss(), VolumeAwareDiceLoss(500)])
def test_no_tumour_rewards_an_empty_prediction(loss):
    volumes = tumours(room=50)
    logits = torch.full(volumes.shape, -4.0, dtype=torch.float64, requires_grad=True)
    value = loss(logits, volumes)
    value.backward()
    assert torch.isfinite(logits.grad).all()
    assert -1 < float(value.detach()) < 0
    assert (logits.grad > 0).all()  # less prediction, less loss
    empty = torch.full(volumes.shape, -CERTAIN, dtype=torch.float64)
    assert float(loss(empty, volumes)) == pytest.approx(-1, abs=1e-6)


def test_a_cut_tumour_keeps_the_weight_of_the_whole():
    """100 voxels of a tumour of 400 weigh as a tumour of 400 does."""
    cut = torch.cat([torch.full((100,), 400), torch.zeros(50, dtype=torch.long)]).reshape(1, 1, -1, 1, 1)
    logits = torch.randn(cut.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = written_formula(torch.sigmoid(logits), cut, 1600)
    assert float(VolumeAwareDiceLoss(1600)(logits, cut)) == pytest.approx(float(expected), rel=1e-12)


def test_samples_are_weighted_by_the_batchs_largest_tumour_wherever_it_lies():
    """Two ranks that are told the largest tumour give what one rank with both samples gives."""
    volumes = torch.cat([tumours(90, 10, room=100), tumours(200, room=0)])
    logits = torch.randn(volumes.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    loss = VolumeAwareDiceLoss()
    together = loss.per_sample(logits, volumes)
    apart = [loss.per_sample(logits[[i]], volumes[[i]], largest_tumour(volumes)) for i in range(2)]
    torch.testing.assert_close(torch.cat(apart), together)
    assert not torch.isclose(loss.per_sample(logits[[0]], volumes[[0]])[0], together[0])


def test_small_tumours_pull_harder_than_under_dice():
    """At an even prediction, a voxel of the small tumour has the larger share of the gradient."""
    volumes = tumours(400, 25, room=100)
    shares = []
    for loss in (SquaredDiceLoss(), VolumeAwareDiceLoss()):
        logits = torch.zeros(volumes.shape, dtype=torch.float64, requires_grad=True)
        loss(logits, volumes).backward()
        gradient = logits.grad.reshape(-1)
        shares.append(float(gradient[410] / gradient[10]))
    assert shares[0] == pytest.approx(1)
    assert shares[1] > 3.5
