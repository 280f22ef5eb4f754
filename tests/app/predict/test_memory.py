"""How much memory a case takes, and the warning where there is less."""

import nibabel as nib
import numpy as np
import pytest

import metseg.predict.memory
from metseg.plan.bundle import open_bundle
from metseg.plan.plan import WindowPlan
from metseg.predict.memory import estimate_need, find_memory_shortage, free_memory
from metseg.space.grid import Grid
from radiosurgery_support import write_untrained_bundle
from support import ALL, SUB, write_bundle, write_case


def plan_of(tmp_path, **sections):
    return open_bundle(write_bundle(tmp_path / "b", channels=(ALL, SUB), **sections)).plan


def grid(shape, spacing=(1.0, 1.0, 1.0)):
    return Grid(shape, np.diag([*spacing, 1.0]))


def test_larger_grids_and_windows_need_more(tmp_path):
    whole = plan_of(tmp_path, window={"extent": "whole"})
    small, challenge, large = (
        estimate_need(grid(shape), whole) for shape in ((96, 96, 96), (240, 240, 155), (512, 512, 176))
    )
    assert small.held < challenge.held < large.held
    assert small.window < challenge.window
    assert challenge.window == large.window, "no brain is larger than a brain"
    fixed = whole.model_copy(
        update={"window": whole.window.model_copy(update={"extent": "fixed", "size": (64, 64, 32)})}
    )
    assert estimate_need(grid((240, 240, 155)), fixed).window < challenge.window / 10


def test_a_member_on_a_coarser_grid_counts_with_that(tmp_path):
    plan = plan_of(tmp_path, window={"extent": "whole"})
    coarse = [member.model_copy(update={"spacing_mm": 2.0}) for member in plan.members]
    head = grid((240, 240, 155))
    fine, both = (estimate_need(head, plan.model_copy(update={"members": tuple(of)})) for of in (plan.members, coarse))
    assert both.window < fine.window / 7
    assert both.held < fine.held


def test_a_member_with_a_window_of_its_own_counts_with_it(tmp_path):
    plan = plan_of(tmp_path, window={"extent": "whole"})
    small = WindowPlan(size=(48, 48, 48))
    members = [member.model_copy(update={"window": small}) for member in plan.members]
    head = grid((240, 240, 155))
    of_none, of_one, of_all = (
        estimate_need(head, plan.model_copy(update={"members": (*plan.members[:kept], *members[kept:])}))
        for kept in (2, 1, 0)
    )
    assert of_one.window == of_none.window > 20 * of_all.window
    assert of_one.held > of_none.held, "two regions at once"


def test_fine_voxels_count_where_they_are(tmp_path):
    plan = plan_of(tmp_path)
    coarse, fine = estimate_need(grid((128, 128, 64), (2, 2, 2)), plan), estimate_need(grid((128, 128, 64)), plan)
    assert coarse.held > fine.held, "the network's grid is 1 mm"


def test_the_planning_ct_counts_with_its_own_grid(tmp_path):
    plan = plan_of(tmp_path)
    head = grid((128, 128, 64))
    small, large = (estimate_need(head, plan, [grid(shape)]) for shape in ((64, 64, 64), (512, 512, 200)))
    assert large.held - small.held == 4 * 2 * (512 * 512 * 200 - 64**3), "float32, two cases at once"


def test_check_reads_the_planning_cts_own_grid(tmp_path):
    plan = open_bundle(write_untrained_bundle(tmp_path / "b", {"unet3d": ("ct", "t1c")})).plan
    (tmp_path / "data/c0").mkdir(parents=True)
    for modality, shape in (("t1c", (32, 32, 32)), ("ct", (300, 300, 100))):
        image = nib.Nifti1Image(np.ones(shape, dtype=np.int16), np.eye(4))
        nib.save(image, tmp_path / f"data/c0/c0-{modality}.nii.gz")
    head, scan = grid((32, 32, 32)), grid((300, 300, 100))
    between = (estimate_need(head, plan).total + estimate_need(head, plan, [scan]).total) // 2
    (problem,) = find_memory_shortage(tmp_path / "data", plan, free_bytes=between)
    assert problem.case_id == "c0"


def test_noise_is_kept_for_all_members(tmp_path):
    quiet = plan_of(tmp_path, tta={"variant": "none"})
    noisy = quiet.model_copy(update={"tta": quiet.tta.model_copy(update={"variant": "aurora"})})
    assert estimate_need(grid((96, 96, 96)), noisy).held > estimate_need(grid((96, 96, 96)), quiet).held


def test_check_warns_of_cases_that_will_not_fit(tmp_path):
    plan = plan_of(tmp_path)
    write_case(tmp_path / "data", "c0")
    assert find_memory_shortage(tmp_path / "data", plan, free_bytes=10**12) == ()
    (problem,) = find_memory_shortage(tmp_path / "data", plan, free_bytes=10**8)
    assert (problem.case_id, problem.severity, problem.code) == ("c0", "warning", "memory")
    assert "0.1 GB are free" in problem.what
    (tmp_path / "data/c0/c0-t1c.nii.gz").write_bytes(b"x")
    assert find_memory_shortage(tmp_path / "data", plan, free_bytes=1) == (), "what is broken is said elsewhere"
    assert find_memory_shortage(tmp_path / "nowhere", plan, free_bytes=1) == ()


def test_what_is_free_is_the_least_that_machine_and_container_say(tmp_path, monkeypatch):
    assert free_memory() is None or free_memory() > 0
    monkeypatch.setattr(metseg.predict.memory, "_free_on_machine", lambda: 10_000)
    monkeypatch.setattr(metseg.predict.memory, "_free_in_cgroup", lambda: (7_000,))
    assert free_memory() == 7_000
    monkeypatch.setattr(metseg.predict.memory, "_free_in_cgroup", lambda: ())
    assert free_memory() == 10_000
    monkeypatch.setattr(metseg.predict.memory, "_free_on_machine", lambda: None)
    assert free_memory() is None
    assert find_memory_shortage(tmp_path, plan_of(tmp_path)) == ()


@pytest.mark.parametrize("version", [1, 2])
def test_the_containers_limit_without_its_file_cache(tmp_path, version):
    names = {
        1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }
    limit, used, cached = names[version]
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text("1000\n")
    (tmp_path / used).write_text("900\n")
    (tmp_path / limit).with_name("memory.stat").write_text(f"anon 5\n{cached} 300\n")
    assert list(metseg.predict.memory._free_in_cgroup(tmp_path)) == [400]
    (tmp_path / limit).write_text("max\n")
    assert list(metseg.predict.memory._free_in_cgroup(tmp_path)) == []
