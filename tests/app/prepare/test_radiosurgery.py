"""What the radiosurgery system adds to preparation, plans and inference."""

import numpy as np
import pytest
import torch
import yaml

from metseg.decide.fusion import fuse_probabilities
from metseg.decide.size_rules import apply_size_rules
from metseg.decide.threshold import member_labels
from metseg.errors import InputError, UsageError
from metseg.files.case import Case
from metseg.labels import METASTASIS_REGIONS
from metseg.network.deepmedic import DeepMedic
from metseg.plan.networks import DeepMedicPlan
from metseg.plan.plan import FusionPlan, PostprocessPlan, load_plan
from metseg.plan.radiosurgery import RadiosurgeryIntensityPlan
from metseg.predict.device import Device
from metseg.predict.tiles import lay_tiles, tiled_logits
from metseg.predict.windows import Layout
from metseg.prepare.prepare import prepare_case
from metseg.prepare.radiosurgery import equalise, standardise, window_hounsfield
from metseg.space.grid import Grid
from metseg.space.resampling import find_resampling, labels_to_network, labels_to_source, to_network
from radiosurgery_support import scan_of, tiny_case, tiny_registration

INTENSITY = RadiosurgeryIntensityPlan(kind="radiosurgery")
CPU = Device("cpu", "float32", "CPU, one thread", 1)
SLIM = DeepMedicPlan(pathway_features=(2, 2, 2, 2, 2, 2, 3, 3), joint_features=(9, 9))
MEMBER = {
    "name": "a",
    "weights": "a.safetensors",
    "sha256": "0" * 64,
    "channels": ["ct", "t1c"],
    "regions": ["metastasis"],
    "network": {"architecture": "unet3d"},
}
PLAN = {
    "name": "p",
    "spacing_mm": [0.6, 0.6, 2.0],
    "frame": [512, 512],
    "intensity": {"kind": "radiosurgery"},
    "registration": {},
    "window": {"size": [512, 512, 8], "overlap": 0.5, "extent": "trimmed"},
    "tta": {"variant": "none"},
    "fusion": {"method": "mean"},
    "postprocess": {"min_wt_mm3": 3, "min_netc_mm3": 0, "min_snfh_mm3": 0, "min_et_mm3": 0},
    "members": [MEMBER],
}


def write(tmp_path, **changes):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({**PLAN, **changes}))
    return path


def test_a_plan_of_the_system(tmp_path):
    plan = load_plan(write(tmp_path))
    assert plan.sides_mm == (0.6, 0.6, 2.0)
    assert plan.voxel_volume_mm3 == pytest.approx(0.72)
    assert plan.side_multiples == (16, 16, 1)
    assert (plan.intensity.ct_level_hu, plan.intensity.ct_width_hu) == (40, 80)
    assert plan.required_modalities == {"ct", "t1c"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"registration": None}, "registration section"),
        ({"postprocess": {}}, "metastases have no parts"),
        ({"intensity": {}}, "intensity.kind: radiosurgery"),
        ({"window": {"size": [504, 512, 8]}}, "divide by"),
        ({"members": [MEMBER | {"regions": ["WT", "TC", "ET"]}]}, "regions of member 'a'"),
        (
            {"tta": {"variant": "flips"}, "members": [MEMBER | {"network": {"architecture": "deepmedic"}}]},
            "without test-time augmentation",
        ),
    ],
)
def test_mixtures_of_the_two_systems_are_refused(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        load_plan(write(tmp_path, **changes))


def test_the_ct_window():
    hounsfield = np.array([-1000, 0, 20, 40, 80, 3000], dtype=np.float32)
    np.testing.assert_allclose(window_hounsfield(hounsfield, INTENSITY), [0, 0, 0.25, 0.5, 1, 1])


def test_equalisation_stretches_each_slice_for_itself_within_a_limit():
    rng = np.random.default_rng(0)
    volume = np.zeros((64, 64, 3), dtype=np.float32)
    volume[16:48, 16:48, 0] = 100 + rng.normal(0, 2, (32, 32))
    volume[16:48, 16:48, 1] = 50 + rng.normal(0, 1, (32, 32))
    found = equalise(volume, INTENSITY)
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert not found[:, :, 2].any()  # a slice without contrast
    assert found[20:44, 20:44, 1].mean() > 0.5  # half as bright, yet as bright after equalisation
    spread = []
    for clip in (0.001, 1):
        limited = equalise(volume, INTENSITY.model_copy(update={"equalisation_clip": clip}))
        spread.append(np.std(limited[20:44, 20:44, 0]))
    assert spread[0] < spread[1]


def test_every_volume_gets_zero_mean_and_unit_variance():
    volume = np.random.default_rng(1).normal(300, 70, (20, 20, 10)).astype(np.float32)
    found = standardise(volume)
    assert found.mean() == pytest.approx(0, abs=1e-4)
    assert found.std() == pytest.approx(1, abs=1e-4)
    with pytest.raises(InputError, match="no contrast"):
        standardise(np.ones((4, 4, 4), dtype=np.float32))


def test_a_frame_keeps_the_middle_and_labels_come_back():
    grid = Grid((40, 30, 10), np.diag([-1.0, -1.0, 2.0, 1.0]))
    resampling = find_resampling(grid, (0.5, 0.5, 2.0), (96, 96))
    assert resampling.network.shape == (96, 96, 10)
    assert resampling.network.spacing_mm == (0.5, 0.5, 2)
    middles = [
        one.affine @ np.array([*((side - 1) / 2 for side in one.shape), 1])
        for one in (resampling.source, resampling.network)
    ]
    np.testing.assert_allclose(middles[0], middles[1])
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[10:16, 8:14, 3:6] = 1
    labels[30, 20, 8] = 1
    moved = labels_to_network(labels, resampling, METASTASIS_REGIONS)
    np.testing.assert_array_equal(labels_to_source(moved, resampling, METASTASIS_REGIONS), labels)
    only_framed = find_resampling(grid, (1.0, 1.0, 2.0), (48, 48))
    assert not only_framed.only_turns
    assert to_network(np.ones(grid.shape, np.float32), only_framed).shape == (48, 48, 10)


def test_a_prepared_head():
    head = tiny_case(0)
    case = Case("c", head.grid, {"t1c": head.t1c.astype(np.float32)}, b"", scans={"ct": scan_of(head)})
    prepared = prepare_case(
        case, INTENSITY, spacing_mm=(1.2, 1.2, 2.0), frame=(96, 96), registration=tiny_registration()
    )
    assert set(prepared.channels) == {"ct", "t1c"}
    assert prepared.registration is not None
    for channel in prepared.channels.values():
        assert channel.shape == prepared.resampling.network.shape
        assert channel.std() == pytest.approx(1, abs=1e-3)
    brain = to_network(head.brain.astype(np.float32), prepared.resampling) > 0.5
    box = np.zeros_like(brain)
    box[prepared.brain] = True
    assert (brain & box).sum() / brain.sum() > 0.97
    assert box.mean() < 0.9
    # The CT lies where the MR lies: its bone surrounds the brain, which has none.
    assert prepared.channels["ct"][brain].mean() > prepared.channels["ct"][~box].mean()
    alone = prepare_case(case, INTENSITY, spacing_mm=(1.2, 1.2, 2.0), frame=(96, 96))
    assert set(alone.channels) == {"t1c"}


def test_tiles_cover_every_length_in_phase():
    for length in (1, 5, 19, 20, 33, 64, 65, 100, 200):
        for largest in (21, 36, 66):
            origins, kept = lay_tiles(length, largest)
            assert all(origin % 15 == 0 for origin in origins)
            assert (kept + 2 - 21) % 15 == 0
            assert kept + 2 <= largest
            covered = np.zeros(length + 200, dtype=bool)
            for origin in origins:
                covered[origin : origin + kept] = True
            assert covered[:length].all()


def test_two_tilings_and_two_phases_apart_by_15_agree():
    torch.manual_seed(0)
    network = DeepMedic(SLIM, in_channels=1).eval()
    volume = np.random.default_rng(0).standard_normal((60, 30, 24)).astype(np.float32)
    layout = Layout((5, 3, 2), (45, 20, 18), (8, 8, 8), ())
    first = tiled_logits(network, [volume], layout, CPU, largest_answer=36)[0]
    second = tiled_logits(network, [volume], layout, CPU, largest_answer=66)[0]
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)
    shifted = Layout((20, 3, 2), (30, 20, 18), (8, 8, 8), ())
    third = tiled_logits(network, [volume], shifted, CPU, largest_answer=21)[0]
    torch.testing.assert_close(third, first[15:], rtol=0, atol=1e-5)


def test_one_region_is_decoded_fused_and_cleaned_as_label_one():
    probabilities = [np.full((1, 6, 6, 6), value, dtype=np.float32) for value in (0.9, 0.3)]
    probabilities[1][0, 0] = 0.05
    assert set(np.unique(member_labels(probabilities[0], 0.5, METASTASIS_REGIONS))) == {1}
    fused = fuse_probabilities(probabilities, FusionPlan(method="mean"), 0.5, METASTASIS_REGIONS)
    assert fused[1:].all()
    assert not fused[0].any()
    labels = np.zeros((10, 10, 10), dtype=np.uint8)
    labels[1:3, 1, 1] = 1
    labels[5:8, 5:8, 5:8] = 1
    rules = PostprocessPlan(min_wt_mm3=3, min_netc_mm3=0, min_snfh_mm3=0, min_et_mm3=0)
    cleaned = apply_size_rules(labels, rules, METASTASIS_REGIONS, voxel_volume_mm3=0.72)
    assert cleaned.sum() == 27
    assert apply_size_rules(labels, rules, METASTASIS_REGIONS, voxel_volume_mm3=1.5).sum() == 29
