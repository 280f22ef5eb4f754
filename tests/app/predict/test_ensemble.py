"""The windowed, flipped, averaged prediction against a plain one over the whole volume."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn
from typing_extensions import override

from metseg.files.case import Case
from metseg.plan.bundle import open_bundle
from metseg.plan.plan import IntensityPlan, TtaPlan, WindowPlan
from metseg.predict.between_grids import logits_between_grids
from metseg.predict.device import Device, choose_device
from metseg.predict.engine import Engine, load_engine
from metseg.predict.inputs import make_inputs
from metseg.predict.members import predict_members
from metseg.predict.passes import CaseNoise, augmented_images, flip
from metseg.predict.windows import lay_windows
from metseg.prepare.prepare import prepare, prepare_case, voxel_seed
from metseg.space.blocks import paste
from metseg.space.grid import Grid
from metseg.space.resampling import find_resampling, to_network, volume_to_source
from phantoms import phantom
from support import write_bundle

SHAPE = (24, 32, 20)
WHOLE = WindowPlan(extent="whole")
FP32 = Device("cpu", "float32", "test", 1)


def prepared_phantom(seed=0):
    grid = Grid(SHAPE, np.eye(4))
    return prepare_case(Case("c", grid, phantom(SHAPE, seed), b""), IntensityPlan())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("weights") / "b")


def predicted(prepared, engine):
    return predict_members(make_inputs(prepared, engine.plan), engine).members


def with_plan(engine, **sections):
    return Engine(engine.plan.model_copy(update=sections), engine.members, engine.device)


def naive_probabilities(network, image, plan, seed):
    """MONAI over the whole volume, one pass after the other; flips mirror the whole volume."""
    passes = []
    for copy, flips in augmented_images(torch.from_numpy(image), CaseNoise(plan.tta, seed)):
        for axes in flips:
            batch = flip(copy[None], axes)
            logits = sliding_window_inference(
                batch,
                plan.window.size,
                1,
                network,
                overlap=plan.window.overlap,
                mode="gaussian",
                padding_mode="replicate",
            )
            passes.append(flip(logits, axes)[0])
    return torch.stack(passes).mean(0).sigmoid().numpy()


@pytest.mark.parametrize("variant", ["none", "flips", "aurora"])
def test_over_a_brain_that_fills_the_volume_it_is_monai(folder, variant):
    case = prepared_phantom()
    whole = tuple(slice(0, side) for side in SHAPE)
    case = type(case)(case.case, case.resampling, case.channels, whole)
    plan = {"tta": TtaPlan(variant=variant), "window": WindowPlan(size=(24, 32, 8), overlap=0.5)}
    engine = with_plan(load_engine(open_bundle(folder), FP32), **plan)
    layout = make_inputs(case, engine.plan).layout
    predictions = predicted(case, engine)
    assert layout.shape == SHAPE
    for member, prediction in zip(engine.members, predictions, strict=True):
        image = np.stack([case.channels[name] for name in member.plan.channels])
        with torch.inference_mode():
            expected = naive_probabilities(member.network, image, engine.plan, voxel_seed(case.channels, case.brain))
        np.testing.assert_allclose(prediction.probabilities, expected, atol=2e-5)
        assert expected.std() > 0.01, "the comparison must have something to compare"


class Pointwise(nn.Module):
    """Commutes with flips and reads no neighbour, so windows and passes must not change its output."""

    @override
    def forward(self, batch):
        return torch.cat([batch[:, :1] * 4 - 1, batch[:, 1:2] * 3 - 2, batch[:, 2:3] - 0.5], dim=1)


@pytest.mark.parametrize("extent", ["fixed", "volume", "trimmed", "whole"])
def test_a_flip_equivariant_network_gives_the_same_map_with_and_without_flips(folder, extent):
    case = prepared_phantom()
    loaded = load_engine(open_bundle(folder), FP32)
    member = replace(loaded.members[0], network=Pointwise())
    results = []
    for variant in ("none", "flips"):
        window = WindowPlan(size=(16, 16, 8), overlap=0.5, extent=extent)
        plan = loaded.plan.model_copy(update={"tta": TtaPlan(variant=variant), "window": window})
        engine = Engine(plan, (member,), FP32)
        layout = make_inputs(case, plan).layout
        results.append(predicted(case, engine)[0].probabilities)
    image = torch.from_numpy(np.stack([layout.cut(case.channels[name]) for name in member.plan.channels]))
    expected = Pointwise()(image[None])[0].sigmoid().numpy()
    np.testing.assert_allclose(results[0], expected, atol=1e-6)
    np.testing.assert_allclose(results[1], expected, atol=1e-6)


@pytest.mark.parametrize("variant", ["none", "aurora"])
@pytest.mark.parametrize("extent", ["whole", "fixed"])
def test_a_member_with_a_window_of_its_own_works_in_it_beside_the_others(folder, variant, extent):
    """Its probabilities are those of a plan that has its window for all, on the region of the plan that it is in."""
    case = prepared_phantom()
    loaded = load_engine(open_bundle(folder), FP32)
    small = WindowPlan(size=(8, 16, 8), overlap=0.25)
    tta = TtaPlan(variant=variant, noise_std_max=0.1)
    everybody = with_plan(loaded, window=small, tta=tta)
    alone = predicted(case, everybody)
    own = make_inputs(case, everybody.plan).layout

    first, last = loaded.members[0], loaded.members[-1]
    members = (first, replace(last, plan=last.plan.model_copy(update={"window": small})))
    window = WindowPlan(size=(24, 32, 24), overlap=0.5, extent=extent)
    plan = loaded.plan.model_copy(update={"window": window, "tta": tta, "members": tuple(m.plan for m in members)})
    layout = make_inputs(case, plan).layout
    together = predicted(case, Engine(plan, members, FP32))
    others = predicted(case, with_plan(loaded, window=window, tta=tta))

    assert own.shape != layout.shape, "the regions differ, so something has to be brought from one to the other"
    assert np.array_equal(together[0].probabilities, others[0].probabilities)
    offset = np.subtract(own.start, layout.start)
    inside = tuple(slice(first, first + side) for first, side in zip(offset, own.shape, strict=True))
    found = together[-1].probabilities
    assert found.shape == (3, *layout.shape)
    assert np.array_equal(found[(slice(None), *inside)], alone[-1].probabilities)
    outside = np.ones(found.shape, dtype=bool)
    outside[(slice(None), *inside)] = False
    assert found[outside].max(initial=0) == 0
    assert not np.allclose(found, others[-1].probabilities, atol=1e-3), "group norm sees another window"


@pytest.mark.parametrize("shape", [(48, 64, 40), (47, 63, 39)])
@pytest.mark.parametrize("codes", ["RAS", "LPS"])
def test_a_member_on_a_grid_of_its_own_says_there_what_it_says_as_a_plan_of_its_own(folder, shape, codes):
    """And its logits come back to the shared grid as `volume_to_source` would bring them."""
    affine = np.diag([1.0 if codes == "RAS" else -1.0] * 2 + [1.0, 1.0])
    case = Case("c", Grid(shape, affine), phantom(shape, 0), b"")
    loaded = load_engine(open_bundle(folder), FP32)
    first, last = loaded.members[0], loaded.members[-1]
    coarse = last.plan.model_copy(update={"spacing_mm": 2.0})
    plan = loaded.plan.model_copy(update={"window": WHOLE, "members": (first.plan, coarse)})
    prepared_case = prepare(case, plan)
    layout = make_inputs(prepared_case, plan).layout
    engine = Engine(plan, (first, replace(last, plan=coarse)), FP32)
    fine, found = predicted(prepared_case, engine)

    alone = loaded.plan.model_copy(update={"window": WHOLE, "members": (last.plan,), "spacing_mm": 2.0})
    own_case = prepare(case, alone)
    own_layout = make_inputs(own_case, alone).layout
    (there,) = predicted(own_case, Engine(alone, (last,), FP32))
    logits = np.log(there.probabilities / (1 - there.probabilities)).astype(np.float32)
    raised = logits - logits.min() + 1  # zeros stay out of interpolation
    shift = logits.min() - 1
    back = [
        to_network(
            volume_to_source(paste(channel, own_layout.start, own_case.resampling.network.shape), own_case.resampling),
            prepared_case.resampling,
        )
        for channel in raised
    ]
    expected = 1 / (1 + np.exp(-(np.stack([layout.cut(channel) for channel in back]) + shift)))
    inside = (slice(None), *(slice(8, -8) for _ in range(3)))
    assert fine.probabilities.shape == found.probabilities.shape == (3, *layout.shape)
    np.testing.assert_allclose(found.probabilities[inside], expected[inside], atol=1e-4)
    assert found.probabilities[inside].std() > 0.01, "the comparison must have something to compare"


def test_logits_of_a_ramp_stay_a_ramp_on_the_other_grid():
    """Odd and even sides: both grids have one centre, so only that may decide what lies where."""
    source = Grid((21, 16, 13), np.eye(4))
    resampling, own_resampling = find_resampling(source), find_resampling(source, 2.0)
    own = lay_windows(
        own_resampling.network.shape, tuple(slice(0, side) for side in own_resampling.network.shape), WHOLE
    )
    layout = lay_windows(resampling.network.shape, tuple(slice(0, side) for side in source.shape), WHOLE)
    axes = [np.arange(side) + start for side, start in zip(own.shape, own.start, strict=True)]
    positions = np.stack(np.meshgrid(*axes, [1], indexing="ij")).reshape(4, -1)
    positions[3] = 1
    ramp = (own_resampling.network.affine @ positions)[:3].reshape(3, *own.shape)
    found = logits_between_grids(
        torch.from_numpy(ramp.astype(np.float32)), own, own_resampling, layout, resampling
    ).numpy()
    axes = [np.arange(side) + start for side, start in zip(layout.shape, layout.start, strict=True)]
    expected = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    between = (expected >= ramp.min(axis=(1, 2, 3), keepdims=True)) & (
        expected <= ramp.max(axis=(1, 2, 3), keepdims=True)
    )
    assert between.mean() > 0.8
    np.testing.assert_allclose(found[between], expected[between], atol=1e-4)


def test_a_member_without_its_channels_does_not_vote(folder):
    case = prepared_phantom()
    channels = {name: volume for name, volume in case.channels.items() if name != "t2w"}
    case = type(case)(case.case, case.resampling, channels, case.brain)
    engine = load_engine(open_bundle(folder), FP32)
    assert [p.name for p in predicted(case, engine)] == ["m2"]


def test_bfloat16_agrees_with_float32(folder):
    case = prepared_phantom()
    results = []
    for precision in ("float32", "bfloat16"):
        engine = load_engine(open_bundle(folder), choose_device("cpu", precision=precision))
        results.append(predicted(case, engine)[0].probabilities)
    assert np.abs(results[0] - results[1]).mean() < 0.01
