"""What became of a case: plain data, from which reports are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from metseg.decide.agreement import LesionAgreement
from metseg.findings import Finding
from metseg.prepare.registration import Registration
from metseg.run.pipeline import Segmented
from metseg.systems import Modality

Outcome = Literal["segmented", "blank", "failed", "present"]
"""segmented: a label map was computed; blank: it could not be, an empty one was written (--on-error blank); failed: it
could not be, nothing was written (--on-error skip); present: it was there already, with labels in it (--resume)."""


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """What became of one case.

    Attributes:
        case_id: see CaseFiles.
        outcome: see Outcome.
        lesions: 26-connected components of WT in the label map on the network's grid, after postprocessing.
        members: names of the models that ran.
        error: why there is no segmentation, with the hint; empty when there is one.
        elapsed_s: seconds of work, reading and writing included, though both overlap with other cases.
        stage_s: the same by stage: read, prepare, predict, decide, restore, write.
        agreement: the members' agreement on each lesion; see `metseg.decide.agreement`.
        findings: what a reader must know of the input, the way it was segmented, and the label map.
        registration: where the planning CT lies; None without one.
        modalities: the images that were read.
    """

    case_id: str
    outcome: Outcome
    lesions: int = 0
    members: tuple[str, ...] = ()
    error: str = ""
    elapsed_s: float = 0.0
    stage_s: Mapping[str, float] = field(default_factory=dict)
    agreement: tuple[LesionAgreement, ...] = ()
    findings: tuple[Finding, ...] = ()
    registration: Registration | None = None
    modalities: tuple[Modality, ...] = ()

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings about the input and the way it was segmented."""
        return tuple(finding for finding in self.findings if finding.severity != "note")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """The findings about the label map: what tables show as flags."""
        return tuple(finding for finding in self.findings if finding.severity == "note")

    @property
    def succeeded(self) -> bool:
        """Whether the case's file is a segmentation."""
        return self.outcome in {"segmented", "present"}


def record_segmented(segmented: Segmented) -> CaseRecord:
    """The record of a case that was segmented, without its times."""
    return CaseRecord(
        case_id=segmented.case.case_id,
        outcome="segmented",
        lesions=segmented.lesions,
        members=segmented.decision.members,
        agreement=segmented.decision.agreement,
        findings=segmented.findings,
        registration=segmented.registration,
        modalities=tuple(sorted({*segmented.case.images, *segmented.case.scans})),
    )
