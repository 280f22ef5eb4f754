"""Facts about the machine that a run reports: memory and GPU driver. torch is asked only where it is loaded already."""

import re
import resource
import sys
from pathlib import Path
from typing import Final

KIB_PER_MIB: Final = 1024
BYTES_PER_MIB: Final = 2**20
DRIVER_FILE: Final = Path("/proc/driver/nvidia/version")


def peak_memory_mib() -> float:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (BYTES_PER_MIB if sys.platform == "darwin" else KIB_PER_MIB), 1)


def gpu_peak_memory_mib() -> float | None:
    """The most GPU memory that torch has allocated so far; None where no GPU is in use."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(float(torch.cuda.max_memory_allocated()) / BYTES_PER_MIB, 1)


def gpu_driver() -> str | None:
    """Version of the NVIDIA driver, such as 580.65.06; None where the kernel doesn't say."""
    try:
        found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", DRIVER_FILE.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return None
    return found.group() if found else None


def cuda_version() -> str | None:
    """The CUDA version that torch was built for; None without torch or CUDA."""
    torch = sys.modules.get("torch")
    return None if torch is None else str(torch.version.cuda)
