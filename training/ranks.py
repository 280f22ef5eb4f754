"""One process or many: what torchrun's environment says, and the few messages that ranks exchange."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from metseg.predict.cpu import granted_cpus

TIMEOUT = timedelta(minutes=30)
"""How long ranks wait for each other in a step or a validation, of which each has the same share."""

PREPARATION_TIMEOUT = timedelta(days=1)
"""How long they wait where the first rank prepares every case of the run and the others look through what it made."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all of the run.

    Attributes:
        rank: its number.
        world: how many they are.
        local_world: how many of them are on this machine.
        preparation: the same ranks, waiting up to PREPARATION_TIMEOUT; None where it is alone.
    """

    rank: int = 0
    world: int = 1
    local_world: int = 1
    preparation: "dist.ProcessGroup | None" = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks; the same on each."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """Largest over the ranks, element by element; the same on each."""
        if self.world > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def mean(self, number: float, device: torch.device) -> float:
        """Mean over the ranks; the same on each."""
        if self.world == 1:
            return number
        return float(self.sum(torch.tensor([number], device=device, dtype=torch.float64)).item()) / self.world

    def any(self, flag: bool, device: torch.device) -> bool:  # noqa: FBT001 - the value itself
        """Whether it is so on some rank; the same answer on each."""
        return bool(self.sum(torch.tensor([float(flag)], device=device)).item() > 0) if self.world > 1 else flag

    def barrier(self) -> None:
        """Waits for the others."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """What is done inside, the first rank does alone, then all the others do it; all leave together."""
        if self.world == 1:
            yield
            return
        if not self.is_first:
            dist.barrier(self.preparation)
        yield
        if self.is_first:
            dist.barrier(self.preparation)
        dist.barrier(self.preparation)

    @property
    def free_cpus(self) -> int:
        """CPUs for this rank's processes inside of `first_before_others`.

        All for the first rank, which has the machine for itself; then the others share theirs. Unlike a rank's threads
        they don't follow OMP_NUM_THREADS, which torchrun sets to 1.
        """
        return granted_cpus() if self.is_first else max(1, granted_cpus() // self.local_world)


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Joins the processes that torchrun started: over nccl on GPUs, over gloo on CPUs; alone without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    if device.startswith("cuda"):
        dist.init_process_group("nccl", timeout=TIMEOUT, device_id=torch.device(device))
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    try:
        # gloo also beside nccl, which would keep the GPUs busy with waiting.
        preparation = dist.new_group(backend="gloo", timeout=PREPARATION_TIMEOUT)
        yield Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")), preparation)
    finally:
        dist.destroy_process_group()
