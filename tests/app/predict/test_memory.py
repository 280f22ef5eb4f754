"""How much memory a case takes, and the warning where there is less."""

import resource
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from metseg.files.case import CaseFiles
from metseg.plan.bundle import open_bundle
from metseg.plan.plan import WindowPlan
from metseg.predict import control_groups, memory
from metseg.predict.memory import Memory, MemoryNeed, available_memory, estimate_need, find_memory_shortage, weigh_cases
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
    assert small.waiting < challenge.waiting < large.waiting
    assert small.working < challenge.working
    assert challenge.working == large.working, "no brain is larger than a brain"
    fixed = whole.model_copy(
        update={"window": whole.window.model_copy(update={"extent": "fixed", "size": (64, 64, 32)})}
    )
    assert estimate_need(grid((240, 240, 155)), fixed).working < challenge.working / 2


def test_a_member_on_a_coarser_grid_counts_with_that(tmp_path):
    plan = plan_of(tmp_path, window={"extent": "whole"})
    coarse = [member.model_copy(update={"spacing_mm": 2.0}) for member in plan.members]
    head = grid((240, 240, 155))
    fine, both = (estimate_need(head, plan.model_copy(update={"members": tuple(of)})) for of in (plan.members, coarse))
    assert both.working < fine.working / 2
    assert both.waiting > fine.waiting, "channels on two grids"


def test_a_member_with_a_window_of_its_own_counts_with_it(tmp_path):
    plan = plan_of(tmp_path, window={"extent": "whole"})
    small = WindowPlan(size=(48, 48, 48))
    members = [member.model_copy(update={"window": small}) for member in plan.members]
    head = grid((240, 240, 155))
    of_none, of_one, of_all = (
        estimate_need(head, plan.model_copy(update={"members": (*plan.members[:kept], *members[kept:])}))
        for kept in (2, 1, 0)
    )
    assert of_none.working > of_one.working > 1.5 * of_all.working
    assert of_one.waiting == of_none.waiting


def test_fine_voxels_count_where_they_are(tmp_path):
    plan = plan_of(tmp_path)
    coarse, fine = estimate_need(grid((128, 128, 64), (2, 2, 2)), plan), estimate_need(grid((128, 128, 64)), plan)
    assert coarse.waiting > fine.waiting, "the network's grid is 1 mm"


def test_the_planning_ct_counts_with_its_own_grid(tmp_path):
    plan = plan_of(tmp_path)
    head = grid((128, 128, 64))
    small, large = (estimate_need(head, plan, [grid(shape)]) for shape in ((64, 64, 64), (512, 512, 200)))
    assert large.waiting - small.waiting == 4 * (512 * 512 * 200 - 64**3), "float32"


def test_check_reads_the_planning_cts_own_grid(tmp_path):
    plan = open_bundle(write_untrained_bundle(tmp_path / "b", {"unet3d": ("ct", "t1c")})).plan
    (tmp_path / "data/c0").mkdir(parents=True)
    for modality, shape in (("t1c", (32, 32, 32)), ("ct", (300, 300, 100))):
        image = nib.Nifti1Image(np.ones(shape, dtype=np.int16), np.eye(4))
        nib.save(image, tmp_path / f"data/c0/c0-{modality}.nii.gz")
    head, scan = grid((32, 32, 32)), grid((300, 300, 100))
    between = (estimate_need(head, plan).total + estimate_need(head, plan, [scan]).total) // 2
    (problem,) = find_memory_shortage(tmp_path / "data", plan, available=between)
    assert problem.case_id == "c0"


def test_noise_is_kept_for_all_members(tmp_path):
    quiet = plan_of(tmp_path, tta={"variant": "none"})
    noisy = quiet.model_copy(update={"tta": quiet.tta.model_copy(update={"variant": "aurora"})})
    assert estimate_need(grid((96, 96, 96)), noisy).working > estimate_need(grid((96, 96, 96)), quiet).working


def test_check_warns_of_cases_that_will_not_fit(tmp_path):
    plan = plan_of(tmp_path)
    write_case(tmp_path / "data", "c0")
    assert find_memory_shortage(tmp_path / "data", plan, available=10**12) == ()
    (problem,) = find_memory_shortage(tmp_path / "data", plan, available=10**8)
    assert (problem.case_id, problem.severity, problem.code) == ("c0", "warning", "memory")
    assert "0.1 GB are free" in problem.what
    (tmp_path / "data/c0/c0-t1c.nii.gz").write_bytes(b"x")
    assert find_memory_shortage(tmp_path / "data", plan, available=1) == (), "what is broken is said elsewhere"
    assert find_memory_shortage(tmp_path / "nowhere", plan, available=1) == ()


MEASURED = [
    # plan, grid, voxel sides, precision, resident memory of a case alone at its peak in GB (benchmarks.memory)
    (None, (96, 96, 96), (1, 1, 1), "bfloat16", 0.56),
    (None, (240, 240, 155), (1, 1, 1), "bfloat16", 1.03),
    (None, (240, 240, 155), (1, 1, 1), "float32", 1.09),
    (None, (512, 512, 176), (0.5, 0.5, 1), "bfloat16", 1.51),
    ("fast", (240, 240, 155), (1, 1, 1), "bfloat16", 0.99),
    ("fine", (240, 240, 155), (1, 1, 1), "bfloat16", 1.71),
]


@pytest.mark.parametrize("measured", MEASURED)
def test_the_estimate_is_little_more_than_what_was_measured(measured, monkeypatch):
    plan, shape, sides, precision, peak_gb = measured
    monkeypatch.setattr(memory, "usual_precision", lambda: precision)
    monkeypatch.setattr(memory, "usable_cpus", lambda: 2)
    bundle = open_bundle(Path(__file__).parents[3] / "weights/mets", plan)
    assert 1 <= estimate_need(grid(shape, sides), bundle.plan).total / (peak_gb * 1e9) <= 1.2


def a_case(case_id):
    return CaseFiles(case_id, Path(case_id), {})


CASES = tuple(map(a_case, "abcd"))
GB = 10**9
NEEDS = {"a": MemoryNeed(GB, GB), "b": MemoryNeed(4 * GB, 9 * GB), "c": MemoryNeed(4 * GB, 4 * GB)}


def test_what_does_not_fit_comes_last_the_smallest_first():
    a, b, c, d = CASES
    assert Memory(NEEDS, 5 * GB).in_order(CASES) == (a, d, c, b), "nobody knows what d needs"
    assert Memory(NEEDS, 10 * GB).in_order(CASES) == (a, c, d, b)
    assert Memory({}, 1).in_order(CASES) == CASES
    assert Memory({}, 1).shortages(CASES) == ()
    assert Memory(NEEDS, 99 * GB).in_order(CASES) == Memory(NEEDS, None).in_order(CASES) == CASES


def test_cases_are_beside_each_other_only_where_the_memory_suffices():
    a, b, c, d = CASES
    ample, tight = Memory(NEEDS, 10 * GB), Memory(NEEDS, 8 * GB)
    assert ample.suffices(c, a)
    assert ample.suffices(a, c, d)
    assert not tight.suffices(c, a)
    assert not ample.suffices(a, b), "b never fits: it would cost a its map"
    assert not ample.suffices(d, b)
    assert Memory(NEEDS, None).suffices(b, b, b)


def test_what_is_available_is_the_least_that_machine_and_container_say(tmp_path, monkeypatch):
    assert available_memory() is None or available_memory() > 0
    meminfo, status = tmp_path / "meminfo", tmp_path / "status"
    meminfo.write_text("MemFree: 1 kB\nMemAvailable: 10 kB\n")
    status.write_text("VmSize: 99 kB\nRssAnon: 1 kB\nRssFile: 7 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "STATUS", status)
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path)
    assert available_memory() == 11 * 1024, "with what the process has already"
    limit_group(tmp_path, 2, limit=8000, used=1000)
    assert available_memory() == 7000 + 1024
    limit_group(tmp_path, 2, limit=8000, used=9000)
    assert available_memory() == 1024
    limit_group(tmp_path, 2, limit="max", used=9000)
    assert available_memory() == 11 * 1024
    meminfo.unlink()
    assert available_memory() is None
    assert weigh_cases(CASES, plan_of(tmp_path)).suffices(CASES[0])
    assert find_memory_shortage(tmp_path, plan_of(tmp_path / "2")) == ()


def limit_group(folder, version, *, limit, used, cached=0):
    """Writes the files of a control group."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        2: ("memory.max", "memory.current", ""),
    }
    limit_file, used_file, of_all = names[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / used_file).write_text(f"{used}\n")
    cache = f"{of_all}inactive_file {cached // 2}\n{of_all}active_file {cached - cached // 2}\n"
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file 1\n{cache}" if of_all else f"anon 5\n{cache}")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups alone limit the process, which has nothing yet."""
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "missing")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "missing")
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path / "mount")
    monkeypatch.setattr(control_groups, "OWN_GROUPS", tmp_path / "own")
    return tmp_path / "mount"


@pytest.mark.parametrize(("version", "root"), [(1, "memory"), (2, ""), (2, "unified")])
def test_the_containers_limit_without_its_file_cache(groups, version, root):
    limit_group(groups / root, version, limit=1000, used=900, cached=300)
    assert available_memory() == 400
    limit_group(groups / root, version, limit="max", used=900)
    assert available_memory() is None


@pytest.mark.parametrize(
    ("version", "root", "line"),
    [(1, "memory", "4:cpu,memory:/slurm/job 1/step:0"), (2, "", "0::/slurm/job 1/step:0")],
)
@pytest.mark.parametrize("limited", ["slurm", "slurm/job 1", "slurm/job 1/step:0"])
def test_a_limit_of_any_group_around_the_process_holds(groups, version, root, line, limited):
    control_groups.OWN_GROUPS.write_text(f"7:pids:/elsewhere\n{line}\n")
    limit_group(groups / root, version, limit=10**6, used=0)
    limit_group(groups / root / limited, version, limit=1000, used=900)
    limit_group(groups / root / "elsewhere", version, limit=1, used=0)
    assert available_memory() == 100


def test_ulimit_counts(tmp_path, groups, monkeypatch):
    status = tmp_path / "status"
    status.write_text("VmSize: 3 kB\nVmData: 1 kB\nRssAnon: 1 kB\n")
    monkeypatch.setattr(memory, "STATUS", status)
    limits = {resource.RLIMIT_AS: 10 * 1024, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], resource.RLIM_INFINITY))
    assert available_memory() == 8 * 1024
    assert not groups.exists()
