"""What `metseg infer` does once its settings are known."""

import logging
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from metseg.cli.progress import BatchProgress
from metseg.cli.settings import Settings
from metseg.cli.shard import WHOLE, Shard
from metseg.errors import MetsegError, UsageError
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.predict.device import Device, choose_device
from metseg.predict.engine import open_engine
from metseg.run.batch import Job, choose_exit_code, run_batch
from metseg.run.output_folder import prepare_output, warn_of_loss
from metseg.run.pipeline import Segmented
from metseg.run.record import CaseRecord
from metseg.systems import OWN_GRID, SOURCE_MODALITY, Modality, modalities_to_find

if TYPE_CHECKING:
    from metseg.report.batch_report import BatchReport

logger = logging.getLogger(__name__)

SAVED = frozenset({"probabilities", "agreement"})
"""What --save knows."""


def run_inference(
    settings: Settings,
    *,
    data_path: Path,
    output_path: Path,
    report_dir: Path | None,
    save: frozenset[str],
    resume: bool,
    shard: Shard,
    grid: Modality = SOURCE_MODALITY,
) -> int:
    """Runs a batch and returns its exit code; see `segment_cases`."""
    warn_of_loss(output_path)
    records = segment_cases(
        settings,
        data_path=data_path,
        output_path=output_path,
        report_dir=report_dir,
        save=save,
        resume=resume,
        shard=shard,
        grid=grid,
    )
    return int(choose_exit_code(records, settings.on_error))


def segment_cases(
    settings: Settings,
    *,
    data_path: Path,
    output_path: Path,
    report_dir: Path | None,
    save: frozenset[str] = frozenset(),
    resume: bool,
    shard: Shard = WHOLE,
    grid: Modality = SOURCE_MODALITY,
    only: Collection[str] | None = None,
) -> tuple[CaseRecord, ...]:
    """Segments the cases of a folder and reports on them.

    What can be refused is refused before the models are loaded.

    Args:
        settings: resolved.
        data_path: the folder of cases.
        output_path: the folder for label maps.
        report_dir: None for no report.
        save: volumes to save there.
        resume: leave finished label maps as they are.
        shard: the part of the cases to do.
        grid: of the label maps.
        only: IDs of the cases to do; None for all. The report shows the others too, as far as it knows them.

    Returns:
        One record per case that was to be done.

    Raises:
        MetsegError: the batch can't start, or ends before its last case.
    """
    plan = settings.bundle.plan
    if grid in OWN_GRID and plan.registration is None:
        raise UsageError(f"--grid {grid}: plan {plan.name} reads no {grid.upper()}", hint="Leave --grid out.")
    every_case = discover_cases(
        data_path,
        modalities=modalities_to_find(plan.modalities),
        apart_from=[path for path in (output_path, report_dir) if path is not None],
    )
    wanted = [files for files in every_case if only is None or files.case_id in only]
    cases = tuple(wanted[shard.index :: shard.count])
    check_report_dir(report_dir, output_path, save)
    prepare_output(output_path)
    device = choose_device(settings.device)
    logger.info(
        "%d%s cases; plan %s (%s) of %s; %s, networks in %s",
        len(cases),
        f" of {len(every_case)}" if len(cases) < len(every_case) else "",
        plan.name,
        plan.sha256[:12],
        settings.bundle.folder,
        device.description,
        device.precision,
    )
    helpful = sorted(plan.modalities - plan.required_modalities)
    if any(member.optional for member in plan.members):
        logger.info("needs %s; does better with %s", ", ".join(sorted(plan.required_modalities)), ", ".join(helpful))
    engine = open_engine(settings.bundle, device, settings.device)
    job = Job(cases, output_path, on_error=settings.on_error, resume=resume, grid=grid)
    with (
        BatchProgress(len(cases)) as progress,
        _open_report(
            report_dir,
            settings,
            engine.device,
            job,
            every_case=every_case,
            data_path=data_path,
            save=save,
            shard=shard,
        ) as report,
    ):

        def listen(record: CaseRecord, segmented: Segmented | None) -> None:
            if record.outcome == "present":
                progress.case_present()
                return
            progress.case_done(record)
            if report is not None:
                report.add(record, segmented)

        try:
            records = run_batch(job, engine, listen)
        except MetsegError as error:
            if report is not None:
                report.finish(report.records, int(error.exit_code))
            raise
        code = int(choose_exit_code(records, settings.on_error))
        if report is not None:
            report.finish(records, code)
    progress.summarise(records, output_path, shard.words)
    return records


def _open_report(
    report_dir: Path | None,
    settings: Settings,
    device: Device,
    job: Job,
    *,
    every_case: tuple[CaseFiles, ...],
    data_path: Path,
    save: frozenset[str],
    shard: Shard,
) -> AbstractContextManager["BatchReport | None"]:
    """The report as a context; one that gives None where none is wanted."""
    if report_dir is None:
        return nullcontext()
    from metseg.report.batch_report import BatchReport, BatchSettings  # noqa: PLC0415 - only where it is wanted
    from metseg.report.run_json import DeviceFacts, describe_run  # noqa: PLC0415

    options = {
        "data_path": str(data_path.resolve()),
        "prediction_path": str(job.output_path.resolve()),
        "on_error": job.on_error,
        "resume": str(job.resume).lower(),
        "grid": job.grid,
        "shard": f"{shard.index}/{shard.count}",
        "shard_from": shard.source,
        "save": ",".join(sorted(save)),
    }
    facts = DeviceFacts.model_validate(device, from_attributes=True)
    run = describe_run("infer", options, bundle=settings.bundle, device=facts)
    return BatchReport(
        BatchSettings(
            report_dir,
            job.output_path,
            every_case,
            settings.bundle.plan,
            run,
            save=save,
            shard=(shard.index, shard.count),
        )
    )


def check_report_dir(report_dir: Path | None, output_path: Path, save: frozenset[str]) -> None:
    """Refuses a report whose files would land in the output folder: callers open every entry of it as an image.

    Raises:
        UsageError: the report would land there, or something is to be saved and there is no report folder.
    """
    unknown = sorted(save - SAVED)
    if unknown:
        raise UsageError(f"--save {', '.join(unknown)}: expected {', '.join(sorted(SAVED))}, or both by comma")
    if report_dir is None:
        if save:
            raise UsageError("--save needs a place to save to", hint="Name a folder with --report-dir.")
        return
    from metseg.report.case_store import CASES_FOLDER  # noqa: PLC0415 - only where a report is wanted

    report, output = report_dir.resolve(), output_path.resolve()
    if report.is_relative_to(output) or output.is_relative_to(report / CASES_FOLDER):
        where = "inside" if report.is_relative_to(output) else "around"
        raise UsageError(
            f"report folder {report_dir} lies {where} the output folder {output_path}, which may hold label maps alone",
            hint="Name a folder elsewhere.",
        )
