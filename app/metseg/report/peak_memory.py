"""The largest memory that a run has taken so far. torch is asked only where it is loaded already."""

import resource
import sys
from typing import Final

KIB_PER_MIB: Final = 1024
BYTES_PER_MIB: Final = 2**20


def measure_peak_memory_mib() -> float:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (BYTES_PER_MIB if sys.platform == "darwin" else KIB_PER_MIB), 1)


def measure_gpu_peak_memory_mib() -> float | None:
    """The most GPU memory that torch has allocated so far; None where no GPU is in use."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return round(float(torch.cuda.max_memory_allocated()) / BYTES_PER_MIB, 1)
