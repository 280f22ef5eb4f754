"""What `metseg infer` does once its settings are known."""

import logging
from pathlib import Path

from metseg.cli.progress import BatchProgress
from metseg.cli.settings import Settings
from metseg.device import choose_device
from metseg.discovery import discover_cases
from metseg.ensemble import load_ensemble
from metseg.errors import UsageError
from metseg.pipeline import Job, exit_code_of, prepare_output, run_batch

logger = logging.getLogger(__name__)


def run_inference(
    settings: Settings,
    *,
    data_path: Path,
    output_path: Path,
    report_dir: Path | None,
    save: frozenset[str],
    resume: bool,
    shard: tuple[int, int],
) -> int:
    """Runs a batch and returns its exit code.

    What can be refused is refused before the models are loaded.
    """
    cases = discover_cases(data_path)[shard[0] :: shard[1]]
    check_report_dir(report_dir, output_path, save)
    prepare_output(output_path)
    plan, device = settings.bundle.plan, choose_device(settings.device)
    logger.info(
        "%d cases; plan %s (%s) of %s; %s, networks in %s",
        len(cases),
        plan.name,
        plan.sha256[:12],
        settings.bundle.folder,
        device.description,
        device.precision,
    )
    ensemble = load_ensemble(settings.bundle, device)
    job = Job(cases, output_path, on_error=settings.on_error, resume=resume)
    with BatchProgress(len(cases)) as progress:
        records = run_batch(job, ensemble, lambda record, _segmentation, _case: progress.case_done(record))
    progress.summarise(records, output_path)
    return int(exit_code_of(records, settings.on_error))


def check_report_dir(report_dir: Path | None, output_path: Path, save: frozenset[str]) -> None:
    """Refuses a report inside the output folder: callers open every entry of it as an image.

    Raises:
        UsageError: the report would land there, or something is to be saved and there is no report folder.
    """
    if report_dir is None:
        if save:
            raise UsageError("--save needs a place to save to", hint="Name a folder with --report-dir.")
        return
    if report_dir.resolve().is_relative_to(output_path.resolve()):
        raise UsageError(
            f"report folder {report_dir} lies inside the output folder {output_path}, which may hold label maps alone",
            hint="Name a folder elsewhere.",
        )
