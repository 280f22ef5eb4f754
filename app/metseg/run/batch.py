"""A folder of cases along the way of a case (`metseg.run.pipeline`), and what becomes of a case that fails.

While the networks work on a case, the next one is read and prepared, and the last one is written, each in a thread of
its own. The networks run in the batch's thread, which an interrupt reaches at once; on a CPU, where nothing is gained
by deciding beside them and a tenth more memory taken (docs/performance.md), the stages behind them do too.

Cases overlap only as far as the memory suffices. One that does not fit by itself is tried last and alone.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import Final

from metseg.errors import ExitCode, MetsegError, OnError
from metseg.files.blank import blank_label_map
from metseg.files.case import CaseFiles
from metseg.files.write import write_label_map
from metseg.findings import SHOWN_NAMES, blank_note, printable
from metseg.labels import LabelMap
from metseg.predict.cpu import give_back_memory
from metseg.predict.engine import Engine
from metseg.predict.fallback import as_memory_error
from metseg.predict.memory import UNLIMITED, Memory, weigh_cases
from metseg.run.lane import Lane
from metseg.run.output_folder import prepare_output
from metseg.run.pipeline import STAGES, Segmented, Stage, segment
from metseg.run.record import CaseRecord, record_segmented
from metseg.run.resume import is_done
from metseg.systems import SOURCE_MODALITY, Modality

logger = logging.getLogger(__name__)

CASES_AT_ONCE: Final = 3
"""One is read ahead, one is at work, one is written."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run over which cases; nothing in it changes a voxel of a segmentation.

    Attributes:
        cases: what to segment, as `discovery` found it.
        output_path: folder of label maps; created when missing.
        on_error: what happens when a case fails: `stop` the batch, `skip` the case, or write a `blank` map.
        resume: leave cases alone whose label map is finished work (`metseg.run.resume`).
        grid: of the label maps: the source image's, or that of a scan that the plan registers.
    """

    cases: tuple[CaseFiles, ...]
    output_path: Path
    on_error: OnError = "stop"
    resume: bool = False
    grid: Modality = SOURCE_MODALITY


Listener = Callable[[CaseRecord, Segmented | None], None]
"""Told about the cases that `resume` leaves alone, then about each other one once its file is in place; what it keeps
costs memory."""


def run_batch(job: Job, engine: Engine, listener: Listener | None = None) -> tuple[CaseRecord, ...]:
    """Segments every case of a job.

    Returns:
        One record per case, in order.

    Raises:
        InputError: under `stop`, a case can't be segmented.
        OutputError: a label map can't be written; what was finished stays.
    """
    prepare_output(job.output_path, (label_map_path(job, files) for files in job.cases))
    present = [files for files in job.cases if job.resume and _is_present(files, job, engine)]
    records = {files.case_id: CaseRecord(files.case_id, "present") for files in present}
    for record in records.values():
        if listener is not None:
            listener(record, None)
    todo = [files for files in job.cases if files.case_id not in records]
    if records:
        logger.info("resume: %d of %d label maps with a label are there already", len(records), len(job.cases))
    memory = UNLIMITED if engine.device.is_cuda else weigh_cases(todo, engine.plan)
    _warn_of_shortage(memory, todo)
    for record, segmented in _run_cases(job, engine, memory.in_order(todo), memory):
        records[record.case_id] = record
        if listener is not None:
            listener(record, segmented)
        del segmented  # the next case may need its memory
    return tuple(records[files.case_id] for files in job.cases)


def _is_present(files: CaseFiles, job: Job, engine: Engine) -> bool:
    return is_done(files.case_id, label_map_path(job, files), files.images.get(job.grid), engine.plan.regions)


def _warn_of_shortage(memory: Memory, todo: Sequence[CaseFiles]) -> None:
    shortages = memory.shortages(todo)
    for finding in shortages[:SHOWN_NAMES]:
        logger.warning("case %s: %s  -> %s", printable(finding.case_id), finding.what, finding.hint)
    if len(shortages) > SHOWN_NAMES:
        logger.warning("%d cases need more memory than is free; metseg check lists them", len(shortages))


def label_map_path(job: Job, files: CaseFiles) -> Path:
    """Where a case's label map goes."""
    return job.output_path / f"{files.case_id}.nii.gz"


_Finished = tuple[CaseRecord, Segmented | None]


def _run_cases(job: Job, engine: Engine, todo: Sequence[CaseFiles], memory: Memory) -> Iterator[_Finished]:
    with _started(job, engine) as start:
        ahead: _Begun | None = None
        behind: _Begun | None = None
        for files, following in zip_longest(todo, todo[1:]):
            if behind is not None and not memory.suffices(files, behind.files):
                yield behind.finished.result()
                behind = None
                give_back_memory()
            current = ahead or start(files)
            written = (behind.files,) if behind is not None else ()
            ahead = None
            if following is not None and memory.suffices(files, following, *written):
                ahead = start(following)
            current.lane.serve()
            give_back_memory()
            if behind is not None:
                yield behind.finished.result()
            behind = current
            del current  # it holds what it made
            if behind.lane.failed:
                break
        if behind is not None:
            yield behind.finished.result()


@dataclass(frozen=True, slots=True)
class _Begun:
    """A case that is on its way in a thread of its own."""

    files: CaseFiles
    lane: Lane
    finished: Future[_Finished]


@contextmanager
def _started(job: Job, engine: Engine) -> Iterator[Callable[[CaseFiles], _Begun]]:
    """Gives what starts a case; on the way out what has begun is finished or given up."""
    lanes: list[Lane] = []
    executor = ThreadPoolExecutor(CASES_AT_ONCE, thread_name_prefix="case")

    def start(files: CaseFiles) -> _Begun:
        lane = Lane(stages_here(engine), ahead=lanes[-1] if lanes else None)
        lanes[:] = [*lanes[1 - CASES_AT_ONCE :], lane]
        finished = executor.submit(_process, files, job, engine, lane)
        finished.add_done_callback(lambda _finished: lane.leave(failed=lane.failed))  # however it ends, nobody waits
        return _Begun(files, lane, finished)

    try:
        yield start
    finally:
        for lane in lanes:
            lane.close()
        executor.shutdown(wait=True, cancel_futures=True)


def stages_here(engine: Engine) -> tuple[Stage, ...]:
    """The stages that run in the batch's thread: the device's; on a CPU, which they share, the ones behind too."""
    first = STAGES.index("predict")
    return STAGES[first : first + 1] if engine.device.is_cuda else STAGES[first:]


def _process(files: CaseFiles, job: Job, engine: Engine, lane: Lane) -> _Finished:
    """A case's own thread: the way of the case, what becomes of a failure, and the file."""
    failed: CaseRecord | None = None
    try:
        segmented = segment(files, engine, job.grid, lane.run)
    except CancelledError:
        raise
    except Exception as error:
        # A bug or an exhausted memory in one case must not cost the others theirs; `stop` shows a bug as it is.
        failure = as_memory_error(files.case_id, error)
        if job.on_error == "stop":
            lane.leave(failed=True)
            if failure is error:
                raise
            raise failure from error
        if not isinstance(failure, MetsegError):
            logger.exception("case %s: unexpected %s", printable(files.case_id), type(failure).__name__)
        failed = _record_failure(files, failure, job)
        del failure  # it holds this frame, and through its own frames the case's tensors
    lane.leave()  # not in the handler: until that is left, the error holds the case's tensors
    if failed is not None:
        return _write_blank(files, job, failed, lane)
    _write(lane, label_map_path(job, files), segmented.labels, segmented.header)
    return _timed(record_segmented(segmented), lane), segmented


def _write(lane: Lane, path: Path, labels: LabelMap, header: bytes) -> None:
    began = perf_counter()
    write_label_map(path, labels, header)
    lane.seconds["write"] = perf_counter() - began


def _timed(record: CaseRecord, lane: Lane) -> CaseRecord:
    return replace(record, stage_s=dict(lane.seconds), elapsed_s=sum(lane.seconds.values()))


def _record_failure(files: CaseFiles, error: Exception, job: Job) -> CaseRecord:
    hint = getattr(error, "hint", "")
    message = f"{error} {hint}".strip() or type(error).__name__
    if job.on_error == "skip":
        return CaseRecord(files.case_id, "failed", error=message)
    return CaseRecord(files.case_id, "blank", error=message, findings=(blank_note(),))


def _write_blank(files: CaseFiles, job: Job, record: CaseRecord, lane: Lane) -> _Finished:
    lane.seconds.clear()
    if record.outcome == "blank":
        _write(lane, label_map_path(job, files), *blank_label_map(files, first=job.grid))
    return _timed(record, lane), None


def choose_exit_code(records: Sequence[CaseRecord], on_error: OnError) -> ExitCode:
    """The exit code of a batch that ran to its end (docs/exit-codes.md).

    Under `blank` it is 0 while at least one case succeeded: callers delete everything on a non-zero code.
    """
    succeeded = sum(record.succeeded for record in records)
    if succeeded == len(records) or (on_error == "blank" and succeeded):
        return ExitCode.DONE
    return ExitCode.SOME_FAILED
