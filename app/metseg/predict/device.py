"""The device and the arithmetic that a run uses: chosen once at the start, from facts, never by timing."""

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from metseg.errors import DeviceError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

DeviceChoice = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16", "float16"]

SPINS_BEFORE_SLEEP = 1000
"""How long a thread without work looks for some before it sleeps, in turns of libgomp's waiting loop: some hundredths
of a millisecond, longer than the gap between two operations. libgomp's own 300,000 are milliseconds, in which a run
beside this one can't use the core: side by side, each waits for threads that the other keeps from running
(docs/performance.md).
"""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's names of its settings (malloc.h): how much freed memory it keeps, how many blocks come from the kernel."""

MEMORY_VARIABLES = frozenset({"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"})
"""By which somebody chooses how glibc keeps memory."""

BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Processor flags under which oneDNN multiplies bfloat16 natively."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where the networks run and in which arithmetic.

    Attributes:
        name: torch's name, `cpu` or `cuda:0`.
        precision: of the networks; everything around them is float32.
        description: for the log and the report.
        threads: CPU threads of torch.
    """

    name: str
    precision: Precision
    description: str
    threads: int

    @property
    def is_cuda(self) -> bool:
        """Whether the networks run on a GPU."""
        return self.name.startswith("cuda")

    @property
    def dtype(self) -> "torch.dtype":
        """The precision as torch names it."""
        import torch  # noqa: PLC0415 - heavy

        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]


def choose_device(choice: DeviceChoice = "auto", *, precision: Precision | None = None) -> Device:
    """Chooses the device and sets torch's threads and determinism.

    Args:
        choice: `auto` takes a GPU that the installed torch supports, else the CPU, and warns when a GPU is passed over.
        precision: None for the device's usual one: float16 on a GPU, bfloat16 on a CPU whose flags promise it, else
            float32. Anything else is for measurements.

    Raises:
        DeviceError: `cuda` was asked for and can't be used.
    """
    shorten_waiting()
    reuse_memory()
    import torch  # noqa: PLC0415 - heavy

    threads = usable_cpus()
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if choice != "cpu":
        try:
            index = int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count())
            problem = _cuda_problem(index)
            if problem is None:
                torch.cuda.set_device(index)
                return Device(f"cuda:{index}", precision or "float16", torch.cuda.get_device_name(index), threads)
        except (RuntimeError, AssertionError) as error:  # a GPU is there, but a driver's fault or others keep it
            problem = first_line(error)
        if choice == "cuda":
            raise DeviceError(
                f"device cuda: {problem}",
                hint="Run with --device cpu, or give the container a GPU (docker run --gpus all).",
            )
        if _nvidia_is_promised() or torch.cuda.is_available():
            logger.warning("no GPU used: %s; running on the CPU", problem)
    flags = cpu_flags()
    usual: Precision = "bfloat16" if flags & BF16_CPU_FLAGS else "float32"
    description = f"CPU, {threads} threads" + (", native bfloat16" if usual == "bfloat16" else "")
    return Device("cpu", precision or usual, description, threads)


def send(array: "NDArray[np.float32]", device: "torch.device") -> "torch.Tensor":
    """Gives an array to a device: a CPU shares it, a GPU fetches it from pinned memory while the program goes on."""
    import torch  # noqa: PLC0415 - heavy

    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@contextmanager
def beside_computing(device: "torch.device") -> Iterator[None]:
    """What this thread sends inside travels while the GPU computes, and has arrived at the end.

    One stream for all such copies: freed memory serves that stream alone, so a new one each time would leave more and
    more behind.
    """
    import torch  # noqa: PLC0415 - heavy

    stream = _copying_stream(device)
    # A thread begins on the first GPU, whichever one the others were told to use.
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield
    stream.synchronize()


@cache
def _copying_stream(device: "torch.device") -> "torch.cuda.Stream":
    import torch  # noqa: PLC0415 - heavy

    return torch.cuda.Stream(device)


def free_bytes(device: "torch.device") -> int:
    """Memory of a GPU that nobody holds, with what torch keeps there for its next tensors."""
    import torch  # noqa: PLC0415 - heavy

    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _cuda_problem(index: int) -> str | None:
    import torch  # noqa: PLC0415 - heavy

    if torch.version.cuda is None:
        return "the installed torch is a CPU build"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        # A driver that is older than torch's CUDA, above all, is told by a warning alone.
        return "; ".join(["torch finds no usable GPU", *(str(item.message).split(". ")[0] for item in said[:1])])
    capability = torch.cuda.get_device_capability(index)
    supported = [_capability(arch) for arch in torch.cuda.get_arch_list()]
    same_major = [minor for major, minor in supported if major == capability[0]]
    if not any(minor <= capability[1] for minor in same_major):
        architecture = f"{capability[0]}.{capability[1]}"
        return f"the GPU's compute capability {architecture} is not among those that the installed torch supports"
    return None


def first_line(error: BaseException) -> str:
    """What an error says, without the advice and the stack that torch's libraries append."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _capability(architecture: str) -> tuple[int, int]:
    digits = "".join(character for character in architecture.rsplit("_", maxsplit=1)[-1] if character.isdigit())
    return int(digits[:-1]), int(digits[-1])


def _nvidia_is_promised() -> bool:
    """Whether a GPU is on this machine as far as its device files tell."""
    return Path("/dev/nvidiactl").exists()


def shorten_waiting() -> None:
    """Lets the threads of libgomp, which torch's Linux wheels bring along, sleep soon when they have nothing to do.

    libgomp reads the environment when torch is imported: afterwards this does nothing, nor where somebody has chosen.
    """
    if "torch" not in sys.modules and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS_BEFORE_SLEEP)


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
    granted, asked = granted_cpus(), os.environ.get("OMP_NUM_THREADS", "")
    return min(granted, int(asked)) if asked.isdecimal() and int(asked) else granted


def granted_cpus() -> int:
    """CPUs that the system grants this process: its affinity, cut to the container's quota (cgroup 1, 2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(count, int(quota))) if quota else count


def _cgroup_quota() -> float | None:
    """CPUs that the container's limit grants; None without one."""
    root = Path("/sys/fs/cgroup")
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
            return None if quota == "max" else float(quota) / float(period)
        quota_us = float((root / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = float((root / "cpu/cpu.cfs_period_us").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return quota_us / period_us if quota_us > 0 else None
