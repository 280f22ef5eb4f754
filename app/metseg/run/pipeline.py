"""The way of a case, from its files to its label map. `segment` is executed by every caller, `metseg infer` included.

    files -> Case -> PreparedCase -> Inputs -> Predictions -> Decision -> Segmented

`metseg.run.batch` hands in a `run` that executes some stages in the batch's thread and the others in the case's own,
so that the cases of a folder overlap; nothing else of the way depends on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, ParamSpec, Protocol, TypeVar

from metseg.decide.decision import Decision, decide
from metseg.errors import InputError
from metseg.files.case import Case, CaseFiles
from metseg.files.read import read_case
from metseg.findings import (
    Finding,
    agreement_notes,
    count_notes,
    missing_note,
    resampling_notes,
    warning,
)
from metseg.labels import LabelMap
from metseg.plan.plan import Plan
from metseg.predict.engine import Engine
from metseg.predict.fallback import predict
from metseg.predict.inputs import lay_inputs
from metseg.prepare.prepare import PreparedCase, prepare
from metseg.prepare.registration import Registration
from metseg.space.grid import Grid
from metseg.space.resampling import Resampling, labels_to_source
from metseg.space.rigid import lesions_outside, move_labels
from metseg.systems import SOURCE_MODALITY, Modality

Stage = Literal["read", "prepare", "predict", "decide", "restore"]
STAGES: Final[tuple[Stage, ...]] = ("read", "prepare", "predict", "decide", "restore")
"""In the order of the way; `lay_inputs` counts as preparing."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class RunStage(Protocol):
    """Executes one stage of the way."""

    def __call__(
        self,
        stage: Stage,
        step: Callable[_Arguments, _Result],
        /,
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Result:
        """Calls the step, somewhere, and returns what it returns."""


def run_here(
    _stage: Stage, step: Callable[_Arguments, _Result], /, *arguments: _Arguments.args, **options: _Arguments.kwargs
) -> _Result:
    """Executes a stage where it is called."""
    return step(*arguments, **options)


@dataclass(frozen=True, slots=True)
class Segmented:
    """The result of one case.

    Attributes:
        labels: the label map as written, on `grid`.
        grid: the source grid, or that of the scan where label maps are wanted there.
        header: the NIfTI header that the label map takes.
        network_labels: the label map on the network's grid.
        decision: how it came about.
        case: as read.
        resampling: the way between the source grid and the network's.
        registration: where the scan on a grid of its own lies; None without one.
        findings: what a reader should know of the case and its label map.
    """

    labels: LabelMap
    grid: Grid
    header: bytes
    network_labels: LabelMap
    decision: Decision
    case: Case
    resampling: Resampling
    registration: Registration | None
    findings: tuple[Finding, ...]

    @property
    def lesions(self) -> int:
        """26-connected components of the largest region of `network_labels`."""
        return len(self.decision.agreement)


def segment(files: CaseFiles, engine: Engine, grid: Modality = SOURCE_MODALITY, run: RunStage = run_here) -> Segmented:
    """Segments one case.

    Args:
        files: where its images lie.
        engine: the ensemble on its device.
        grid: whose grid the label map takes: the source image's, or that of a scan that is registered to it.
        run: executes the stages.

    Raises:
        InputError: an image is missing or can't be used.
        DeviceError: the case does not fit into memory, or its numbers are not finite.
    """
    plan = engine.plan
    case = run("read", read, files, plan, grid)
    prepared = run("prepare", prepare, case, plan)
    inputs = run("prepare", lay_inputs, prepared, engine)
    predictions = run("predict", predict, inputs, engine)
    decision = run("decide", decide, predictions, plan)
    return run("restore", restore, decision, prepared, plan, grid)


def read(files: CaseFiles, plan: Plan, grid: Modality = SOURCE_MODALITY) -> Case:
    """Reads the images that the plan's usable members need.

    Raises:
        InputError: no member can work on what is there, an image can't be used, or there is no scan for the grid.
    """
    present = {*files.images, *files.rivals}  # of two rival files `read_case` says what is wrong
    if SOURCE_MODALITY not in present or not any(member.modalities <= present for member in plan.members):
        missing = sorted((plan.required_modalities | {SOURCE_MODALITY}) - present) or sorted(plan.modalities - present)
        raise InputError(
            f"case {files.case_id}: {', '.join(missing)} missing in {files.folder}; found {', '.join(sorted(present))}",
            hint=f"Add {files.case_id}-{missing[0]}.nii.gz: no member of {plan.name} works without it.",
        )
    wanted = [name for name in (*files.images, *files.rivals) if name in plan.modalities | {SOURCE_MODALITY}]
    case = read_case(files, modalities=wanted)
    if grid != SOURCE_MODALITY and grid not in case.scans:
        raise InputError(
            f"case {case.case_id}: has no {grid} whose grid its label map could take",
            hint=f"Add {case.case_id}-{grid}.nii.gz, or leave --grid out.",
        )
    return case


def restore(decision: Decision, prepared: PreparedCase, plan: Plan, grid: Modality = SOURCE_MODALITY) -> Segmented:
    """Brings the label map to the grid where it is wanted, and says what a reader should know of the case."""
    case, resampling, registration = prepared.case, prepared.resampling, prepared.registration
    network_labels = decision.predictions.layout.paste(decision.labels, resampling.network.shape)
    resampled = not resampling.only_turns
    lost: tuple[Finding, ...] = ()
    if grid == SOURCE_MODALITY or registration is None:
        labels, there, header = (
            labels_to_source(network_labels, resampling, plan.regions),
            case.grid,
            case.source_header,
        )
    else:
        scan = case.scans[grid]
        there, header, resampled = scan.grid, scan.header, True
        place = (network_labels, resampling.network, scan.grid, registration.mr_to_ct, plan.regions)
        labels = move_labels(*place)
        outside = lesions_outside(*place)
        lesions = f"{outside} of {len(decision.agreement)} {plan.system.whole}"
        what = f"{lesions} lie outside the {plan.system.scan}, not in its label map"
        lost = (warning("outside-grid", what),) if outside else ()
    findings = (
        *case.warnings,
        *lost,
        *absence_notes(decision, prepared, plan),
        *resampling_notes(there.spacing_mm, plan.sides_mm, resampled=resampled),
        *count_notes(len(decision.agreement)),
        *agreement_notes(decision.agreement),
    )
    return Segmented(
        labels=labels,
        grid=there,
        header=header,
        network_labels=network_labels,
        decision=decision,
        case=case,
        resampling=resampling,
        registration=registration,
        findings=findings,
    )


def absence_notes(decision: Decision, prepared: PreparedCase, plan: Plan) -> tuple[Finding, ...]:
    """Which images are missing, and which members could do without them."""
    missing = sorted(plan.modalities - set(prepared.channels))
    if not missing:
        return ()
    ran = decision.members
    return (missing_note(missing, f"segmented by {', '.join(ran)} alone ({len(ran)} of {len(plan.members)} members)"),)
