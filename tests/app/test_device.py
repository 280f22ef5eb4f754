import logging

import pytest
import torch

from metseg import device
from metseg.device import choose_device, usable_cpus
from metseg.errors import DeviceError, ExitCode


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
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    assert choose_device("cpu").precision == precision


def test_threads_keep_to_the_containers_quota(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(device, "_cgroup_quota", lambda: 2.5)
    assert usable_cpus() == 2
    monkeypatch.setattr(device, "_cgroup_quota", lambda: 0.5)
    assert usable_cpus() == 1
    monkeypatch.setattr(device, "_cgroup_quota", lambda: None)
    assert usable_cpus() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert usable_cpus() == 3
