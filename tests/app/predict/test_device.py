import logging
import os
import subprocess
import sys
import warnings
from contextlib import nullcontext

import pytest
import torch

from metseg.errors import DeviceError, ExitCode, UsageError
from metseg.predict import control_groups, cpu, device
from metseg.predict.cpu import granted_cpus, usable_cpus
from metseg.predict.device import choose_device
from metseg.predict.gpu import beside_computing


def test_cuda_without_a_gpu_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device cuda") as error:
        choose_device("cuda")
    assert error.value.exit_code == ExitCode.DEVICE


def fake_gpu(monkeypatch, capability, architectures):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _index: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "Fake")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: architectures)


def test_a_supported_gpu_is_taken(monkeypatch):
    fake_gpu(monkeypatch, (8, 6), ["sm_80", "sm_90"])
    assert choose_device("auto").name == "cuda:0"
    assert choose_device("cuda").precision == "float16"


def test_an_unsupported_gpu_falls_back_with_a_warning_only_under_auto(monkeypatch, caplog):
    fake_gpu(monkeypatch, (6, 1), ["sm_80", "sm_90"])
    with caplog.at_level(logging.WARNING):
        assert choose_device("auto").name == "cpu"
    assert "compute capability 6.1" in caplog.text
    with pytest.raises(DeviceError, match=r"6\.1"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("flags", "precision"),
    [({"avx2"}, "float32"), ({"avx512f", "avx512_bf16"}, "bfloat16"), ({"amx_bf16"}, "bfloat16")],
)
def test_the_cpus_precision_follows_its_flags(monkeypatch, flags, precision):
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset(flags))
    assert choose_device("cpu").precision == precision


def test_threads_keep_to_the_containers_quota(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path)
    for quota, cpus in (("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8)):
        (tmp_path / "cpu.max").write_text(quota)
        assert usable_cpus() == cpus
    (tmp_path / "cpu.max").unlink()
    assert usable_cpus() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert usable_cpus() == 3


@pytest.mark.parametrize(
    ("slurm", "openmp", "cpus"),
    [("3", None, 3), ("1", "4", 1), ("5", "2", 2), ("abc", None, 8), ("0", None, 8), ("", None, 8), ("16", None, 8)],
)
def test_threads_keep_to_slurms_share(monkeypatch, tmp_path, slurm, openmp, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    if openmp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", openmp)
    assert usable_cpus() == cpus


def test_a_quota_of_a_group_around_the_process_holds(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path)
    monkeypatch.setattr(control_groups, "OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text("4:cpu,cpuacct:/job/step\n")
    (tmp_path / "cpu/job/step").mkdir(parents=True)
    for name, value in (("cpu.cfs_quota_us", "300000"), ("cpu.cfs_period_us", "100000")):
        (tmp_path / "cpu/job" / name).write_text(value)
    assert granted_cpus() == 3


@pytest.mark.parametrize(("rank", "gpu"), [("1", "cuda:0"), ("99", "cuda:0"), ("", "cuda:0"), ("0", "cuda:0")])
def test_ranks_share_the_gpus(monkeypatch, rank, gpu):
    fake_gpu(monkeypatch, (8, 6), ["sm_80", "sm_90"])
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device("auto").name == gpu


@pytest.mark.parametrize("rank", ["abc", "-1", "1.5", " "])
def test_a_rank_that_is_no_number_is_a_usage_error(monkeypatch, rank):
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(UsageError, match="LOCAL_RANK"):
        choose_device("cpu")


def test_on_a_cpu_torch_leaves_the_threads_to_the_networks(monkeypatch):
    monkeypatch.setattr(device, "usable_cpus", lambda: 5)
    before = torch.get_num_threads()
    try:
        assert choose_device("cpu").threads == 5
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def page_faults_layer_by_layer(**environment):
    """Page faults of a fresh process that goes through a hundred layers of 16 MiB, the last one freed for the next."""
    code = """
import resource, metseg.predict.device
metseg.predict.device.choose_device("cpu")
import torch
layer = torch.rand(1 << 22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    layer = torch.relu(layer)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    mine = {name: text for name, text in os.environ.items() if name not in cpu.MEMORY_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=mine | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(cpu.ctypes.CDLL(None), "mallopt"), reason="glibc alone hands memory back so soon")
def test_freed_memory_serves_the_next_layer_unless_somebody_has_chosen():
    assert page_faults_layer_by_layer() < page_faults_layer_by_layer(MALLOC_MMAP_THRESHOLD_="1000000") / 5


@pytest.mark.parametrize("part", ["get_device_capability", "set_device"])
def test_a_gpu_that_others_hold_is_passed_over_under_auto_and_an_error_under_cuda(monkeypatch, caplog, part):
    def busy(_index):
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nadvice")

    fake_gpu(monkeypatch, (9, 0), ["sm_90"])
    monkeypatch.setattr(torch.cuda, part, busy)
    assert choose_device("auto").name == "cpu"
    assert caplog.messages[-1] == (
        "no GPU used: CUDA error: all CUDA-capable devices are busy or unavailable; running on the CPU"
    )
    with pytest.raises(DeviceError, match="device cuda: CUDA error: all CUDA-capable"):
        choose_device("cuda")


def test_a_driver_that_is_too_old_is_named(monkeypatch, caplog):
    def is_available():
        warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found version 12080). Please update",
            stacklevel=2,
        )
        return False

    fake_gpu(monkeypatch, (9, 0), ["sm_90"])
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(device, "nvidia_is_promised", lambda: True)
    assert choose_device("auto").name == "cpu"
    assert caplog.messages[-1] == (
        "no GPU used: torch finds no usable GPU; CUDA initialization: The NVIDIA driver on your system is too old "
        "(found version 12080); running on the CPU"
    )


def test_copies_beside_computing_share_one_stream_and_have_arrived_at_the_end(monkeypatch):
    seen = []

    class Stream:
        def __init__(self, device):
            seen.append(f"made on {device}")

        def synchronize(self):
            seen.append("arrived")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(seen.append(f"on {device}")))
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext(seen.append("entered")))
    for _ in range(2):
        with beside_computing(torch.device("cuda:7")):
            seen.append("sent")
    each = ["on cuda:7", "entered", "sent", "arrived"]
    assert seen == ["made on cuda:7", *each, *each]
