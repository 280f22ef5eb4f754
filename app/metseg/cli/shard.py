"""Which part of a folder's cases this process does, and who said so."""

import os
from dataclasses import dataclass

from metseg.errors import UsageError

OPTION = "--shard"
ENVIRONMENT = "RANK and WORLD_SIZE in the environment"


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `count`-th case, from number `index` on.

    Attributes:
        index: from 0.
        count: how many processes share the cases; 1 where this one does all.
        source: who said so: OPTION or ENVIRONMENT; empty where nobody did.
    """

    index: int = 0
    count: int = 1
    source: str = ""

    @property
    def words(self) -> str:
        """For the log: `shard 1/3 (from --shard)`; empty where all cases are done."""
        return f"shard {self.index}/{self.count} (from {self.source})" if self.count > 1 else ""


WHOLE = Shard()
"""All cases."""


def parse_shard(text: str | None) -> Shard:
    """Reads `I/N`; without it the rank that torchrun gave this process, else everything.

    Raises:
        UsageError: not of that form, or I is not below N.
    """
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    source = OPTION if text is not None else ENVIRONMENT
    if text is None:
        if not (rank and world):
            return WHOLE
        text = f"{rank}/{world}"
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(
            f"{OPTION if source == OPTION else 'environment RANK/WORLD_SIZE'} {text}: expected I/N with 0 <= I < N",
            hint="The first of two shards is 0/2."
            if source == OPTION
            else "Unset both, or start metseg with torchrun.",
        )
    return Shard(int(index), int(count), source)
