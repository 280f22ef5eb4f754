"""One process or many: what torchrun's environment says, and the few messages that ranks exchange."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

TIMEOUT = timedelta(minutes=30)
"""Rank 0 validates while the others wait."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all of the run."""

    rank: int = 0
    world: int = 1

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
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Joins the processes that torchrun started: over nccl on GPUs, over gloo on CPUs; alone without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
