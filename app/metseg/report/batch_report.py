"""The report of a running batch.

Each case is measured and drawn in a thread of its own while the network works on the next. Nothing that goes wrong here
can stop the batch or change its exit code.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from metseg.errors import MetsegError
from metseg.files.case import CaseFiles
from metseg.files.read import read_label_map
from metseg.files.write import write_volume
from metseg.findings import edge_notes, warning
from metseg.plan.plan import Plan
from metseg.report.canvas import load_matplotlib
from metseg.report.case_from_files import CasePaths, find_label_map, hash_inputs, report_from_files
from metseg.report.case_report import CaseReport
from metseg.report.case_store import (
    StoredCase,
    hash_if_readable,
    locate_case,
    make_folder,
    read_case_report,
    write_case_report,
)
from metseg.report.case_volumes import CaseVolumes
from metseg.report.describe import describe_and_draw, describe_case, describe_unmeasured
from metseg.report.from_segmentation import (
    collect_volumes,
    collect_votes,
    compute_agreement,
    restore_probabilities,
)
from metseg.report.peak_memory import measure_gpu_peak_memory_mib, measure_peak_memory_mib
from metseg.report.report_files import RUN_FILE, write_report
from metseg.report.run_json import RunFacts
from metseg.run.pipeline import Segmented
from metseg.run.record import CaseRecord
from metseg.space.grid import FloatVolume
from metseg.systems import System

logger = logging.getLogger(__name__)

HALF_PRECISION: Final = "float16"
"""Saved volumes are rounded to it, which lets gzip halve them; NIfTI itself has no such type, so they are stored as
float32."""


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """What a batch's report needs to know of the batch.

    Attributes:
        report_dir: the report's folder.
        output_path: the folder of the label maps.
        cases: all cases of the input, those of other shards included.
        plan: the plan that the batch runs by.
        run: what `run.json` says of the run itself.
        save: which volumes are saved beside the report: `probabilities`, `agreement`, both or none.
        shard: which part of the cases this process has, and of how many; (0, 1) for all.
    """

    report_dir: Path
    output_path: Path
    cases: tuple[CaseFiles, ...]
    plan: Plan
    run: RunFacts
    save: frozenset[str] = frozenset()
    shard: tuple[int, int] = (0, 1)


class BatchReport:
    """Collects a report while a batch runs. Use it as a context; `add` is the batch's listener.

    One case waits and one is in work at most, so memory does not grow with the batch.
    """

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._files = {files.case_id: files for files in settings.cases}
        self._reports: dict[str, CaseReport] = {}  # by the folder's name, which a report holds as printable text
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._behind: tuple[str, Future[CaseReport]] | None = None
        self._broken = False

    def __enter__(self) -> Self:
        try:
            make_folder(self._settings.report_dir)
            load_matplotlib(self._settings.report_dir)
        except (MetsegError, OSError) as error:
            self._broken = True
            logger.warning("no report: %s; the label maps are written all the same", error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def add(self, record: CaseRecord, segmented: Segmented | None) -> None:
        """Takes a case over once its file is in place; returns as soon as the case before it is done."""
        if self._broken:
            return
        self._collect()
        self._behind = record.case_id, self._executor.submit(self._report, record, segmented)

    def finish(self, records: Sequence[CaseRecord], exit_code: int | None) -> None:
        """Writes the report's files; a failure is a warning."""
        if self._broken:
            return
        try:
            self._collect()
            own = [self._get_case(record) for record in records]
            run = self._settings.run.model_copy(update={"exit_code": exit_code})
            index, count = self._settings.shard
            name = RUN_FILE if count == 1 else f"run-{index}-of-{count}.json"
            cases = [*own, *self._list_others({record.case_id for record in records})]
            write_report(self._settings.report_dir, cases, run, run_file=name, own=len(own))
        except Exception as error:  # the label maps are there: a report is not worth the batch
            logger.warning("no report: %s", error, exc_info=not isinstance(error, MetsegError))
        else:
            logger.info("report in %s", self._settings.report_dir)

    @property
    def records(self) -> tuple[CaseRecord, ...]:
        """The records of the cases added so far, in their order: for the report of a batch that was stopped."""
        self._collect()
        added = ((case_id, self._reports[case_id]) for case_id in self._files if case_id in self._reports)
        return tuple(replace(report.record, case_id=case_id) for case_id, report in added)

    def _collect(self) -> None:
        if self._behind is not None:
            (case_id, report), self._behind = self._behind, None
            self._reports[case_id] = report.result()

    def _report(self, record: CaseRecord, segmented: Segmented | None) -> CaseReport:
        try:
            report = self._describe(record, segmented)
        except Exception as error:  # see the module's docstring
            logger.warning(
                "case %s: not in the report: %s", record.case_id, error, exc_info=not isinstance(error, MetsegError)
            )
            known = replace(record, findings=(*record.findings, warning("not-shown", f"not measured: {error}")))
            report = describe_unmeasured(known, self._settings.plan.system)
        return report

    def _describe(self, record: CaseRecord, segmented: Segmented | None) -> CaseReport:
        settings, files = self._settings, self._files[record.case_id]
        saved: tuple[str, ...] = ()
        pictures: Mapping[str, bytes] = {}
        if segmented is None:
            report = _describe_failed(
                record, find_label_map(settings.output_path, record.case_id), settings.plan.system
            )
        else:
            report, pictures = describe_and_draw(record, collect_volumes(segmented, settings.plan))
            saved = self._save(segmented)
        label_map = find_label_map(settings.output_path, record.case_id)
        report = replace(
            report,
            saved=saved,
            input_sha256=hash_inputs(files),
            label_map_sha256=hash_if_readable(label_map) if label_map else "",
            peak_memory_mib=measure_peak_memory_mib(),
            gpu_peak_memory_mib=measure_gpu_peak_memory_mib(),
        )
        write_case_report(settings.report_dir, files.case_id, report, pictures)
        at_edge = sum(bool(lesion.at_brain_edge) for lesion in report.lesions)
        for flag in edge_notes(at_edge, len(report.lesions)):
            logger.info("case %s: %s", report.case_id, flag.sentence)
        return report

    def _save(self, segmented: Segmented) -> tuple[str, ...]:
        settings = self._settings
        if not settings.save:
            return ()
        folder = locate_case(settings.report_dir, segmented.case.case_id)
        make_folder(folder)
        volumes: dict[str, FloatVolume] = {}
        if "probabilities" in settings.save:
            found = restore_probabilities(segmented, settings.plan)
            volumes |= {f"probability-{region.lower()}.nii.gz": volume for region, volume in found.items()}
        if "agreement" in settings.save:
            volumes[f"agreement-{settings.plan.regions.whole.name.lower()}.nii.gz"] = compute_agreement(
                collect_votes(segmented, settings.plan), settings.plan.regions
            )
        for name, volume in volumes.items():
            rounded = volume.astype(HALF_PRECISION).astype("float32")
            write_volume(folder / name, rounded, segmented.case.source_header)
        return tuple(volumes)

    def _get_case(self, record: CaseRecord) -> StoredCase:
        files = self._files[record.case_id]
        report = self._reports.get(record.case_id)
        if report is None:
            report = self._describe_present(files, record)
        return StoredCase(files.case_id, report)

    def _describe_present(self, files: CaseFiles, record: CaseRecord) -> CaseReport:
        """A case whose label map was there already: what an earlier run said, if it spoke of the same file."""
        earlier = self._read_earlier(files)
        if earlier is not None:
            return replace(earlier, record=replace(earlier.record, outcome=record.outcome))
        paths = CasePaths(files, find_label_map(self._settings.output_path, files.case_id))
        plan = self._settings.plan
        return report_from_files(paths, self._settings.report_dir, plan.system, record, plan=plan)

    def _list_others(self, own: set[str]) -> list[StoredCase]:
        """The cases that other shards have finished."""
        found = ((files, self._read_earlier(files)) for files in self._settings.cases if files.case_id not in own)
        return [StoredCase(files.case_id, earlier) for files, earlier in found if earlier is not None]

    def _read_earlier(self, files: CaseFiles) -> CaseReport | None:
        earlier = read_case_report(self._settings.report_dir, files.case_id)
        label_map = find_label_map(self._settings.output_path, files.case_id)
        same = earlier is not None and label_map is not None and hash_if_readable(label_map) == earlier.label_map_sha256
        return earlier if same else None


def _describe_failed(record: CaseRecord, label_map: Path | None, system: System) -> CaseReport:
    """Describes a case that failed, with the grid of its blank map where there is one."""
    if record.outcome != "blank" or label_map is None:
        return describe_unmeasured(record, system)
    image = read_label_map(label_map)
    return describe_case(record, CaseVolumes(image.grid, image.labels, system))
