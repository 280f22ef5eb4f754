"""The GPU: whether torch can use it, its free memory, and sending arrays to it while it computes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


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


def cuda_problem(index: int) -> str | None:
    """Why torch can't use the GPU of this index; None where it can."""
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


def _capability(architecture: str) -> tuple[int, int]:
    digits = "".join(character for character in architecture.rsplit("_", maxsplit=1)[-1] if character.isdigit())
    return int(digits[:-1]), int(digits[-1])


def nvidia_is_promised() -> bool:
    """Whether a GPU is on this machine as far as its device files tell."""
    return Path("/dev/nvidiactl").exists()
