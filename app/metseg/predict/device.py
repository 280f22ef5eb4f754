"""The device and the arithmetic that a run uses: chosen once at the start, from facts, never by timing."""

import logging
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from metseg.errors import DeviceError, UsageError
from metseg.predict.cpu import reuse_memory, usable_cpus, usual_precision
from metseg.predict.gpu import cuda_problem, nvidia_is_promised

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

DeviceChoice = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16", "float16"]

DRIVER_FILE: Final = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Device:
    """Where the networks run and in which arithmetic.

    Attributes:
        name: torch's name, `cpu` or `cuda:0`.
        precision: of the networks; everything around them is float32.
        description: for the log and the report.
        threads: of the networks on a CPU, of torch beside a GPU.
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
    def input_dtype(self) -> "torch.dtype":
        """Of the windows that a network is given: on a CPU it rounds them to its precision itself."""
        import torch  # noqa: PLC0415 - heavy

        return self.dtype if self.is_cuda else torch.float32

    @property
    def driver(self) -> str | None:
        """Version of the NVIDIA driver, such as 580.65.06; None on a CPU and where the kernel doesn't say."""
        try:
            text = DRIVER_FILE.read_text(encoding="ascii", errors="replace") if self.is_cuda else ""
        except OSError:
            return None
        found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", text)
        return found.group() if found else None

    @property
    def cuda(self) -> str | None:
        """The CUDA version that torch was built for; None on a CPU."""
        torch = sys.modules.get("torch")
        return str(torch.version.cuda) if self.is_cuda and torch is not None else None

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
        UsageError: LOCAL_RANK is no number.
    """
    rank = local_rank()
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
            index = rank % max(1, torch.cuda.device_count())
            problem = cuda_problem(index)
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
        if nvidia_is_promised() or torch.cuda.is_available():
            logger.warning("no GPU used: %s; running on the CPU", problem)
    torch.set_num_threads(1)  # OpenVINO has threads of its own; torch's wait by keeping a core from them
    usual = usual_precision()
    description = f"CPU, {threads} threads" + (", native bfloat16" if usual == "bfloat16" else "")
    return Device("cpu", precision or usual, description, threads)


def local_rank() -> int:
    """This process's number among those on the machine, as torchrun counts them: it chooses the GPU; 0 when alone.

    Raises:
        UsageError: LOCAL_RANK is no whole number from 0 on.
    """
    text = os.environ.get("LOCAL_RANK") or "0"
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(
            f"environment LOCAL_RANK {text}: expected a whole number from 0 on",
            hint="Unset it, or start metseg with torchrun.",
        )
    return int(text)


def first_line(error: BaseException) -> str:
    """What an error says, without the advice and the stack that torch's libraries append."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
