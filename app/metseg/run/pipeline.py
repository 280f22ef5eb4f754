"""The way of a case, from its files to its label map.

`metseg infer`, the self-test and the tests execute `segment`; the papers' tables and the tuning call single stages.

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
from metseg.files.discovery import images_beside
from metseg.files.read import read_case, refuse_unusable
from metseg.findings import (
    Finding,
    agreement_notes,
    count_notes,
    missing_note,
    printable,
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
from metseg.space.components import find_components
from metseg.space.grid import Grid
from metseg.space.resampling import Resampling, labels_to_source
from metseg.space.rigid import lesions_outside, move_labels
from metseg.systems import SOURCE_MODALITY, Modality

Stage = Literal["read", "prepare", "predict", "decide", "restore"]
STAGES: Final[tuple[Stage, ...]] = ("read", "prepare", "predict", "decide", "restore")
"""In the order of the way, which a lane relies on; `lay_inputs` counts as preparing."""

SHOWS_OEDEMA: Final[frozenset[Modality]] = frozenset({"t2w", "t2f"})
"""Without one of these, a whole tumour ends where t1c and t1n show its end."""

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
        """Calls the step, in some thread, and returns what it returns.

        Raises:
            CancelledError: the batch has ended without this case.
        """


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
        run: executes and times each stage, in the thread that it belongs to (`metseg.run.lane.Lane.run` in a batch).

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
    refuse_unusable(files)
    name = printable(files.case_id)
    present = {*files.images, *files.rivals}  # of two rival files `read_case` says what is wrong
    if SOURCE_MODALITY not in present or not any(member.required_modalities <= present for member in plan.members):
        missing = sorted((plan.required_modalities | {SOURCE_MODALITY}) - present) or sorted(plan.modalities - present)
        raise InputError(
            f"case {name}: {', '.join(missing)} missing in {printable(str(files.folder))}; "
            f"found {', '.join(sorted(present)) or 'no other'}{images_beside(files)}",
            hint=f"Add {name}-{missing[0]}.nii.gz: no member of {plan.name} works without it.",
        )
    wanted = [image for image in (*files.images, *files.rivals) if image in plan.modalities | {SOURCE_MODALITY}]
    case = read_case(
        files, modalities=wanted, is_stripped=plan.system.is_stripped, brain_share=plan.expected_brain_share
    )
    if grid != SOURCE_MODALITY and grid not in case.scans:
        raise InputError(
            f"case {name}: has no {grid} whose grid its label map could take",
            hint=f"Add {name}-{grid}.nii.gz, or leave --grid out.",
        )
    return case


def restore(decision: Decision, prepared: PreparedCase, plan: Plan, grid: Modality = SOURCE_MODALITY) -> Segmented:
    """Brings the label map to the grid where it is wanted, and says what a reader should know of the case."""
    case, resampling = prepared.case, prepared.resampling
    network_labels = decision.predictions.layout.paste(decision.labels, resampling.network.shape)
    on_scan = grid != SOURCE_MODALITY
    placed = (
        place_on_scan(network_labels, prepared, plan, grid)
        if on_scan
        else place_on_source(network_labels, prepared, plan)
    )
    findings = (
        *case.warnings,
        *placed.lost,
        *absence_notes(decision, prepared, plan),
        *resampling_notes(placed.grid.spacing_mm, plan.sides_mm, resampled=on_scan or not resampling.only_turns),
        *count_notes(len(decision.agreement)),
        *agreement_notes(decision.agreement),
    )
    return Segmented(
        labels=placed.labels,
        grid=placed.grid,
        header=placed.header,
        network_labels=network_labels,
        decision=decision,
        case=case,
        resampling=resampling,
        registration=prepared.registration,
        findings=findings,
    )


@dataclass(frozen=True, slots=True)
class Placed:
    """A label map on the grid where it is wanted.

    Attributes:
        labels: shape `grid.shape`.
        grid: of an image of the case.
        header: that image's.
        lost: what the grid can't hold.
    """

    labels: LabelMap
    grid: Grid
    header: bytes
    lost: tuple[Finding, ...] = ()


def place_on_source(network_labels: LabelMap, prepared: PreparedCase, plan: Plan) -> Placed:
    """Brings a label map from the network's grid to the source image's."""
    labels = labels_to_source(network_labels, prepared.resampling, plan.regions)
    return Placed(labels, prepared.case.grid, prepared.case.source_header)


def place_on_scan(network_labels: LabelMap, prepared: PreparedCase, plan: Plan, modality: Modality) -> Placed:
    """Brings a label map from the network's grid to that of a scan, which `read` and `prepare` have made sure of."""
    scan, registration = prepared.case.scans[modality], prepared.registration
    assert registration is not None  # noqa: S101 - for the type checker
    way = (network_labels, prepared.resampling.network, scan.grid, registration.mr_to_ct, plan.regions)
    outside, lesions = lesions_outside(*way), find_components(plan.regions.whole_mask(network_labels)).count
    what = f"{outside} of {lesions} {plan.system.whole} lie outside the {plan.system.scan}, not in its label map"
    lost = (warning("outside-grid", what),) if outside else ()
    return Placed(move_labels(*way), scan.grid, scan.header, lost)


def absence_notes(decision: Decision, prepared: PreparedCase, plan: Plan) -> tuple[Finding, ...]:
    """Which images are missing, and which members could do without them."""
    missing = sorted(plan.modalities - set(prepared.channels))
    if not missing:
        return ()
    ran = decision.members
    if len(ran) < len(plan.members):
        what = f"segmented by {', '.join(ran)} alone ({len(ran)} of {len(plan.members)} members)"
    else:
        seen = sorted(plan.modalities - set(missing))
        what = f"segmented from {', '.join(seen)} alone"
        if plan.system.has_parts and not SHOWS_OEDEMA & set(seen):
            what += f": the {plan.system.whole} is what shows there"
    return (missing_note(missing, what),)
