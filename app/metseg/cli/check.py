"""`metseg check`: everything that is wrong with a folder of cases, or with finished label maps, in one table."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from metseg.cli.choices import parse_labels
from metseg.cli.infer import CONTAINER_INPUT
from metseg.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from metseg.labels import LabelConvention

logger = logging.getLogger(__name__)


def check(
    data_path: Annotated[Path, typer.Option("--data-path", "--data_path", help="Folder of cases.")] = Path(
        CONTAINER_INPUT
    ),
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="The bundle that will run: decides which images must be there."),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option("--plan", help="The plan that will run, by name or as a YAML file. \\[default: its own]"),
    ] = None,
    prediction_path: Annotated[
        Path | None,
        typer.Option("--prediction-path", "--prediction_path", help="Finished label maps, to check as a submission."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            parser=parse_labels,
            metavar="[brats2021|brats2025]",
            help="Labels that finished maps may hold: 0, 1, 2, 4; or 0 to 4. \\[default: those of the plan]",
        ),
    ] = None,
) -> int:
    """Lists every problem of every case; exits with 3 when one of them prevents segmentation."""
    if labels is not None and prediction_path is None:
        raise UsageError("--labels needs finished label maps", hint="Name their folder with --prediction-path.")
    # Before anything is imported or read: with three hundred cases the table takes minutes.
    logger.info("checking %s", data_path if prediction_path is None else f"{prediction_path} against {data_path}")
    from rich.console import Console  # noqa: PLC0415 - heavy

    from metseg.cli.findings_table import tabulate_findings  # noqa: PLC0415
    from metseg.files.rules import check_cases  # noqa: PLC0415
    from metseg.files.submission import check_submission  # noqa: PLC0415
    from metseg.plan.bundle import bundle_folder, open_bundle  # noqa: PLC0415
    from metseg.predict.memory import find_memory_shortage  # noqa: PLC0415

    if prediction_path is not None:
        allowed = _choose_labels(weights, plan, cast("LabelConvention | None", labels))
        findings = check_submission(data_path, prediction_path, labels=allowed)
        subject = f"label maps in {prediction_path}"
    else:
        chosen = open_bundle(bundle_folder(weights), plan).plan
        findings = check_cases(
            data_path,
            required=sorted(chosen.required_modalities),
            optional=sorted(chosen.modalities - chosen.required_modalities),
            is_stripped=chosen.system.is_stripped,
            brain_share=chosen.expected_brain_share,
        )
        findings += find_memory_shortage(data_path, chosen)
        subject = f"cases in {data_path}"
    errors = sum(finding.severity == "error" for finding in findings)
    if findings:
        console = Console() if sys.stdout.isatty() else Console(width=200)
        console.print(tabulate_findings(findings))
    logger.info("%s: %d errors, %d warnings", subject, errors, len(findings) - errors)
    return int(ExitCode.INPUT if errors else ExitCode.DONE)


def _choose_labels(weights: Path | None, plan: str | None, convention: "LabelConvention | None") -> tuple[int, ...]:
    """What finished label maps may hold beside 0: what the user says, else what the plan predicts.

    Raises:
        WeightsError, UsageError: the bundle or the plan that the user names can't be read.
    """
    from metseg.labels import BRATS_REGIONS, LABELS_OF_CONVENTION  # noqa: PLC0415 - heavy
    from metseg.plan.bundle import PLAN_FILE, bundle_folder, open_bundle  # noqa: PLC0415

    if convention is not None:
        return LABELS_OF_CONVENTION[convention]
    folder = bundle_folder(weights)
    if weights is None and plan is None and not (folder / PLAN_FILE).is_file():
        return BRATS_REGIONS.labels  # an installation without weights checks label maps all the same
    return open_bundle(folder, plan).plan.regions.labels
