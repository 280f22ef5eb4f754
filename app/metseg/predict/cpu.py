"""The processor: what it is granted, what it can do, and how memory is kept for it."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from metseg.predict.control_groups import control_groups

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's names of its settings (malloc.h): how much freed memory it keeps, how many blocks come from the kernel."""

MEMORY_VARIABLES = frozenset({"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"})
"""By which somebody chooses how glibc keeps memory."""

BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Processor flags under which oneDNN multiplies bfloat16 natively."""

CPU_QUOTA_1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
"""Where version 1 of control groups has the limit and its unit."""


def reuse_memory() -> None:
    """Lets freed memory serve the next tensor instead of going back to the kernel.

    glibc returns every large block at once, and the kernel clears each page of the next one: layer by layer, that takes
    nearly as long as the network itself (docs/performance.md). Nothing happens where somebody has chosen, or without
    glibc.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None and not MEMORY_VARIABLES & os.environ.keys():
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def give_back_memory() -> None:
    """Returns freed memory to the kernel, between cases: over many of them kept blocks leave ever larger gaps."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """One of glibc's own functions; other libraries of C have none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


def cpu_flags() -> frozenset[str]:
    """The processor's flags as Linux lists them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def usable_cpus() -> int:
    """CPUs that this process's threads may use: those granted to it, cut to OMP_NUM_THREADS."""
    return min((granted_cpus(), *_stated_cpus("OMP_NUM_THREADS")))


def granted_cpus() -> int:
    """CPUs that the system grants this process: its affinity, cut to Slurm's share and the containers' quotas."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (max(1, int(quota)) for folder in control_groups("cpu") if (quota := _cpu_quota(folder)) is not None)
    return min((affinity, *quotas, *_stated_cpus("SLURM_CPUS_PER_TASK")))


def usual_precision() -> Literal["float32", "bfloat16"]:
    """The arithmetic of networks on this processor: bfloat16 where its flags promise that it is quick."""
    return "bfloat16" if cpu_flags() & BF16_CPU_FLAGS else "float32"


def _stated_cpus(variable: str) -> tuple[int, ...]:
    """What a variable of the environment says, if it says a number of CPUs."""
    text = os.environ.get(variable, "")
    return (int(text),) if text.isdecimal() and int(text) else ()


def _cpu_quota(folder: Path) -> float | None:
    """CPUs that a control group may use; None where it sets no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((folder / name).read_text(encoding="ascii") for name in CPU_QUOTA_1)
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None
