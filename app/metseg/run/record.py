"""What a run tells about itself: one record per case, one for the batch. Plain data; reports are made from it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

from metseg.decide.agreement import LesionAgreement
from metseg.flags import Flag
from metseg.prepare.registration import Registration

Outcome = Literal["segmented", "blank", "failed", "present"]
"""segmented: a label map was computed; blank: it could not be, an empty one was written (--on-error blank); failed: it
could not be, nothing was written (--on-error skip); present: it was there already, with labels in it (--resume)."""


class Stopwatch:
    """Adds up seconds per named stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block under this name; a stage that occurs twice is added up."""
        start = perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + perf_counter() - start

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds of each stage so far, a copy."""
        return dict(self._seconds)


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """What became of one case.

    Attributes:
        case_id: see CaseFiles.
        outcome: see Outcome.
        lesions: 26-connected components of WT in the label map on the network's grid, after postprocessing.
        members: names of the models that ran.
        warnings: what a reader must know of the input or the way it was segmented; a sentence each.
        error: why there is no segmentation, with the hint; empty when there is one.
        elapsed_s: seconds of work, reading and writing included, though both overlap with other cases.
        stage_s: the same by stage: read, prepare, network, fuse, postprocess, restore, write.
        agreement: the members' agreement on each lesion; see `metseg.decide.agreement`.
        flags: what a reader should know before trusting the label map; see `metseg.flags`.
        registration: where the planning CT lies; None without one.
    """

    case_id: str
    outcome: Outcome
    lesions: int = 0
    members: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    elapsed_s: float = 0.0
    stage_s: Mapping[str, float] = field(default_factory=dict)
    agreement: tuple[LesionAgreement, ...] = ()
    flags: tuple[Flag, ...] = ()
    registration: Registration | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the case's file is a segmentation."""
        return self.outcome in {"segmented", "present"}
