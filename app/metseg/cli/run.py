"""What `metseg infer` does once its settings are known."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from metseg.choices import LabelGrid
from metseg.cli.progress import BatchProgress
from metseg.cli.settings import Settings
from metseg.errors import DeviceError, MetsegError, UsageError
from metseg.files.case import Case, CaseFiles
from metseg.files.discovery import discover_cases
from metseg.predict.device import Device, choose_device, first_line
from metseg.predict.ensemble import Ensemble, load_ensemble
from metseg.run.batch import Job, exit_code_of, prepare_output, run_batch
from metseg.run.pipeline import Segmentation
from metseg.run.record import CaseRecord
from metseg.systems import modalities_to_find

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
    shard: tuple[int, int],
    grid: LabelGrid = "t1c",
) -> int:
    """Runs a batch and returns its exit code.

    What can be refused is refused before the models are loaded.
    """
    plan = settings.bundle.plan
    if grid == "ct" and plan.registration is None:
        raise UsageError(f"--grid ct: plan {plan.name} reads no CT", hint="Leave --grid out.")
    every_case = discover_cases(data_path, modalities=modalities_to_find(plan.modalities))
    cases = every_case[shard[0] :: shard[1]]
    check_report_dir(report_dir, output_path, save)
    prepare_output(output_path)
    device = choose_device(settings.device)
    logger.info(
        "%d cases; plan %s (%s) of %s; %s, networks in %s",
        len(cases),
        plan.name,
        plan.sha256[:12],
        settings.bundle.folder,
        device.description,
        device.precision,
    )
    ensemble = _load(settings, device)
    job = Job(cases, output_path, on_error=settings.on_error, resume=resume, grid=grid)
    with (
        BatchProgress(len(cases)) as progress,
        _open_report(
            report_dir,
            settings,
            ensemble.device,
            job,
            every_case=every_case,
            data_path=data_path,
            save=save,
            shard=shard,
        ) as report,
    ):

        def listen(record: CaseRecord, segmentation: Segmentation | None, case: Case | None) -> None:
            if record.outcome == "present":
                progress.case_present()
                return
            progress.case_done(record)
            if report is not None:
                report.add(record, segmentation, case)

        try:
            records = run_batch(job, ensemble, listen)
        except MetsegError as error:
            if report is not None:
                report.finish(report.records, int(error.exit_code))
            raise
        code = int(exit_code_of(records, settings.on_error))
        if report is not None:
            report.finish(records, code)
    progress.summarise(records, output_path)
    return code


def _load(settings: Settings, device: Device) -> Ensemble:
    """The networks on their device; under `auto` a GPU that can't take them, or that fails later, gives way to the CPU.

    Who insists on the GPU gets an error rather than a slow night.

    Raises:
        DeviceError: the GPU can't hold the networks, and no other device may be used.
    """
    try:
        ensemble = load_ensemble(settings.bundle, device)
    except RuntimeError as error:  # whatever torch raises; what is wrong with weights is a MetsegError
        if not device.is_cuda:
            raise
        problem = f"device {device.description}: the networks can't be put there: {first_line(error)}"
        if settings.device != "auto":
            raise DeviceError(problem, hint="Free the GPU, or run with --device cpu.") from error
        logger.warning("%s; running on the CPU", problem)
        return load_ensemble(settings.bundle, choose_device("cpu"))
    if device.is_cuda and settings.device == "auto":
        return replace(ensemble, fallback=cache(lambda: load_ensemble(settings.bundle, choose_device("cpu"))))
    return ensemble


def _open_report(
    report_dir: Path | None,
    settings: Settings,
    device: Device,
    job: Job,
    *,
    every_case: tuple[CaseFiles, ...],
    data_path: Path,
    save: frozenset[str],
    shard: tuple[int, int],
) -> AbstractContextManager["BatchReport | None"]:
    """The report as a context; one that gives None where none is wanted."""
    if report_dir is None:
        return nullcontext()
    from metseg.report.batch_report import BatchReport, BatchSettings  # noqa: PLC0415 - only where it is wanted
    from metseg.report.run_json import describe_run  # noqa: PLC0415

    options = {
        "data_path": str(data_path.resolve()),
        "prediction_path": str(job.output_path.resolve()),
        "on_error": job.on_error,
        "resume": str(job.resume).lower(),
        "grid": job.grid,
        "shard": f"{shard[0]}/{shard[1]}",
        "save": ",".join(sorted(save)),
    }
    run = describe_run("infer", options, bundle=settings.bundle, device=device)
    return BatchReport(
        BatchSettings(report_dir, job.output_path, every_case, settings.bundle.plan, run, save=save, shard=shard)
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
