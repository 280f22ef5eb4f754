"""A folder of cases through the pipeline, and what becomes of a case that fails.

While the networks work on a case, the next one is read and prepared, and the last one is written, in two threads of
this process. With networks on a GPU, the last one is fused and cleaned there too.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from metseg.choices import LabelGrid, OnError
from metseg.errors import ExitCode, InputError, MetsegError, OutputError
from metseg.files.blank import blank_label_map
from metseg.files.case import Case, CaseFiles
from metseg.files.nifti import read_label_map, remove_partials, write_label_map
from metseg.findings import Finding, agreement_notes, blank_note, count_notes, resampling_notes, warning
from metseg.labels import LabelMap
from metseg.plan.plan import Plan
from metseg.predict.device import give_back_memory
from metseg.predict.ensemble import (
    Ensemble,
    MemberPrediction,
)
from metseg.predict.fallback import as_memory_error
from metseg.run.pipeline import REFERENCE, Loaded, Segmentation, conclude, load_case, predict
from metseg.run.record import CaseRecord, Stopwatch
from metseg.space.rigid import metastases_outside, metastases_to

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What to run over which cases; nothing in it changes a voxel of a segmentation.

    Attributes:
        cases: what to segment, as `discovery` found it.
        output_path: folder of label maps; created when missing.
        on_error: what happens when a case fails: `stop` the batch, `skip` the case, or write a `blank` map.
        resume: leave cases alone whose label map exists, unless it is empty: that may be a failure's blank map.
        grid: of the label maps; `ct` needs a plan that registers one.
    """

    cases: tuple[CaseFiles, ...]
    output_path: Path
    on_error: OnError = "stop"
    resume: bool = False
    grid: LabelGrid = "t1c"


Listener = Callable[[CaseRecord, Segmentation | None, Case | None], None]
"""Told about the cases that `resume` leaves alone, then about each other one once its file is in place, in order; what
it keeps costs memory."""


def run_batch(job: Job, ensemble: Ensemble, listener: Listener | None = None) -> tuple[CaseRecord, ...]:
    """Segments every case of a job.

    Returns:
        One record a case, in order.

    Raises:
        InputError: under `stop`, a case can't be segmented.
        OutputError: a label map can't be written; what was finished stays.
    """
    cases = job.cases
    prepare_output(job.output_path)
    done = [files.case_id for files in cases if job.resume and _is_done(label_map_path(job, files))]
    records = {case_id: CaseRecord(case_id, "present") for case_id in done}
    for record in records.values():
        if listener is not None:
            listener(record, None, None)
    todo = [files for files in cases if files.case_id not in records]
    if records:
        logger.info("resume: %d of %d label maps with a label are there already", len(records), len(cases))
    for record, segmentation, case in _run_cases(job, ensemble, todo):
        records[record.case_id] = record
        if listener is not None:
            listener(record, segmentation, case)
    return tuple(records[files.case_id] for files in cases)


def _is_done(path: Path) -> bool:
    """Whether a label map is there and not empty; one that can't be read is somebody's work and stays.

    A failure's blank map looks like that of a case without lesions: both are made again, the latter to the same bytes.
    """
    if not path.exists():
        return False
    try:
        labels, _ = read_label_map(path)
    except InputError:
        return True
    return bool(labels.any())


def label_map_path(job: Job, files: CaseFiles) -> Path:
    """Where a case's label map goes."""
    return job.output_path / f"{files.case_id}.nii.gz"


def prepare_output(output_path: Path) -> None:
    """Makes the output folder, removes what a killed run left half written, and proves that it can be written to.

    Raises:
        OutputError: it can't be made or written to.
    """
    try:
        output_path.mkdir(parents=True, exist_ok=True)
        remove_partials(output_path)
    except OSError as error:
        raise OutputError(
            f"output {output_path}: can't be made: {error.strerror}", hint="Name a folder that this user may write to."
        ) from error
    if not os.access(output_path, os.W_OK | os.X_OK):
        raise OutputError(
            f"output {output_path}: user {os.getuid()} may not write there",
            hint="Change the folder's owner or mode, or run as its owner (docker run --user).",
        )


_Finished = tuple[CaseRecord, Segmentation | None, Case | None]
_Step = TypeVar("_Step")


@dataclass(frozen=True, slots=True)
class _Predicted:
    """A case that waits to be fused and written."""

    loaded: Loaded
    predictions: tuple[MemberPrediction, ...]


@dataclass(frozen=True, slots=True)
class _Result:
    """A case that waits for its file to be written; `labels` is None when nothing is to be."""

    record: CaseRecord
    watch: Stopwatch
    labels: LabelMap | None
    header: bytes
    segmentation: Segmentation | None = None
    case: Case | None = None


def _run_cases(job: Job, ensemble: Ensemble, todo: Sequence[CaseFiles]) -> Iterator[_Finished]:
    with _worker("read") as reader, _worker("write") as writer:
        behind: Future[_Finished] | None = None
        for files, loading in _read_ahead(reader, todo, ensemble):
            try:
                outcome = _attempt(files, job, partial(_predict_loaded, loading, ensemble, job.grid))
                give_back_memory()
                if not concludes_beside(ensemble):
                    outcome = _concluded(files, job, outcome, ensemble.plan)
            except MetsegError:
                if behind is not None:
                    yield behind.result()
                raise
            if behind is not None:
                yield behind.result()
            behind = writer.submit(_finish, files, job, outcome, ensemble.plan)
        if behind is not None:
            yield behind.result()


def concludes_beside(ensemble: Ensemble) -> bool:
    """Whether a case is fused and cleaned beside the next one's networks.

    On a CPU, where they share the cores, that is no faster and takes a tenth more memory (docs/performance.md).
    """
    return ensemble.device.is_cuda


@contextmanager
def _worker(name: str) -> Iterator[ThreadPoolExecutor]:
    """One thread; on the way out what it has begun is finished and what it has not is dropped."""
    executor = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _read_ahead(
    reader: ThreadPoolExecutor, todo: Sequence[CaseFiles], ensemble: Ensemble
) -> Iterator[tuple[CaseFiles, "Future[Loaded]"]]:
    ahead = reader.submit(load_case, todo[0], ensemble) if todo else None
    for number, files in enumerate(todo):
        current = ahead
        ahead = reader.submit(load_case, todo[number + 1], ensemble) if number + 1 < len(todo) else None
        assert current is not None  # noqa: S101 - for the type checker: one was submitted for each case
        yield files, current


def _attempt(files: CaseFiles, job: Job, step: Callable[[], _Step]) -> _Step | _Result:
    """A step of a case, or what is written where it fails; under `stop` the error goes on."""
    try:
        return step()
    except Exception as error:
        # A bug or an exhausted memory in one case must not cost the others theirs; `stop` shows a bug as it is.
        failure = as_memory_error(files.case_id, error)
        if job.on_error == "stop":
            if failure is error:
                raise
            raise failure from error
        if not isinstance(failure, MetsegError):
            logger.exception("case %s: unexpected %s", files.case_id, type(failure).__name__)
        given_up = _give_up(files, failure, job)
        del failure  # it holds this frame, and through its own frames the case's tensors
        return given_up


def _predict_loaded(loading: "Future[Loaded]", ensemble: Ensemble, grid: LabelGrid) -> _Predicted:
    loaded = loading.result()
    _require_scan(grid, loaded)
    try:
        predictions = predict(loaded.prepared, loaded.layout, loaded.prefetch, ensemble, loaded.watch)
    finally:
        loaded.prefetch.forget()
    return _Predicted(loaded, predictions)


def _concluded(files: CaseFiles, job: Job, outcome: _Predicted | _Result, plan: Plan) -> _Result:
    if isinstance(outcome, _Result):
        return outcome
    return _attempt(files, job, partial(_segmented, outcome, job.grid, plan))


def _finish(files: CaseFiles, job: Job, outcome: _Predicted | _Result, plan: Plan) -> _Finished:
    return _write(files, job, _concluded(files, job, outcome, plan))


def _segmented(predicted: _Predicted, grid: LabelGrid, plan: Plan) -> _Result:
    loaded = predicted.loaded
    concluded = conclude(loaded.prepared, loaded.layout, predicted.predictions, plan, loaded.watch)
    segmentation, header, warnings = _on_grid(grid, loaded, concluded)
    record = CaseRecord(
        case_id=loaded.case.case_id,
        outcome="segmented",
        lesions=segmentation.lesions,
        members=segmentation.members,
        agreement=segmentation.agreement,
        findings=(
            *loaded.case.warnings,
            *warnings,
            *loaded.flags,
            *_resampling(loaded, segmentation, plan),
            *count_notes(segmentation.lesions),
            *agreement_notes(segmentation.agreement),
        ),
        registration=loaded.prepared.registration,
    )
    return _Result(record, loaded.watch, segmentation.labels, header, segmentation, loaded.case)


def _require_scan(grid: LabelGrid, loaded: Loaded) -> None:
    if grid != REFERENCE and loaded.prepared.registration is None:
        raise InputError(
            f"case {loaded.case.case_id}: has no {grid} whose grid its label map could take",
            hint=f"Add {loaded.case.case_id}-{grid}.nii.gz, or leave --grid out.",
        )


def _resampling(loaded: Loaded, segmentation: Segmentation, plan: Plan) -> tuple[Finding, ...]:
    trip = loaded.prepared.trip
    resampled = not trip.only_turns or segmentation.grid is not trip.source
    return resampling_notes(segmentation.grid.spacing_mm, plan.sides_mm, resampled=resampled)


def _on_grid(
    grid: LabelGrid, loaded: Loaded, segmentation: Segmentation
) -> tuple[Segmentation, bytes, tuple[Finding, ...]]:
    """The segmentation with the label map that is written, the header it takes, and what it can't hold."""
    registration = loaded.prepared.registration
    if grid == REFERENCE or registration is None:
        return segmentation, loaded.case.reference_header, ()
    scan = loaded.case.scans["ct"]
    with loaded.watch.stage("restore"):
        place = (segmentation.network_labels, loaded.prepared.trip.network, scan.grid, registration.mr_to_ct)
        labels = metastases_to(*place)
        outside = metastases_outside(*place)
    left_out = f"{outside} of {segmentation.lesions} metastases lie outside the planning CT, not in its label map"
    return (
        replace(segmentation, labels=labels, grid=scan.grid),
        scan.header,
        (warning("outside-grid", left_out),) if outside else (),
    )


def _give_up(files: CaseFiles, error: Exception, job: Job) -> _Result:
    hint = getattr(error, "hint", "")
    message = f"{error} {hint}".strip() or type(error).__name__
    if job.on_error == "skip":
        return _Result(CaseRecord(files.case_id, "failed", error=message), Stopwatch(), None, b"")
    labels, header = blank_label_map(files, first=job.grid)
    record = CaseRecord(files.case_id, "blank", error=message, findings=(blank_note(),))
    return _Result(record, Stopwatch(), labels, header)


def _write(files: CaseFiles, job: Job, result: _Result) -> _Finished:
    with result.watch.stage("write"):
        if result.labels is not None:
            write_label_map(label_map_path(job, files), result.labels, result.header)
    seconds = result.watch.seconds
    record = replace(result.record, stage_s=seconds, elapsed_s=sum(seconds.values()))
    return record, result.segmentation, result.case


def exit_code_of(records: Sequence[CaseRecord], on_error: OnError) -> ExitCode:
    """The exit code of a batch that ran to its end (docs/exit-codes.md).

    Under `blank` it is 0 while at least one case succeeded: callers delete everything on a non-zero code.
    """
    succeeded = sum(record.succeeded for record in records)
    if succeeded == len(records) or (on_error == "blank" and succeeded):
        return ExitCode.DONE
    return ExitCode.SOME_FAILED
