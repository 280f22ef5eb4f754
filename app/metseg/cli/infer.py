"""`metseg infer`: the main job."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from metseg.cli.choices import parse_grid
from metseg.cli.shard import ENVIRONMENT, Shard, parse_shard
from metseg.errors import OnError, UsageError
from metseg.predict.device import DeviceChoice

if TYPE_CHECKING:
    from metseg.systems import LabelGrid

logger = logging.getLogger(__name__)

CONTAINER_INPUT = "/input"
CONTAINER_OUTPUT = "/output"


WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="A bundle's folder or name. \\[default: METSEG_WEIGHTS, or mets]")
]

PlanOption = Annotated[
    str | None, typer.Option("--plan", help="A plan of the bundle by name, or a YAML file. \\[default: its own]")
]


def infer(  # noqa: PLR0917 - typer passes options by name
    context: typer.Context,
    data_path: Annotated[
        Path,
        typer.Option(
            "--data-path",
            "--data_path",
            help="Folder of cases, <ID>/<ID>-{t1n,t1c,t2w,t2f}.nii.gz; for a radiosurgery bundle -{ct,t1c}.",
        ),
    ] = Path(CONTAINER_INPUT),
    output_path: Annotated[
        Path, typer.Option("--output-path", "--output_path", help="Folder for the label maps, <ID>.nii.gz.")
    ] = Path(CONTAINER_OUTPUT),
    weights: WeightsOption = None,
    plan: PlanOption = None,
    parameters_file: Annotated[
        Path | None,
        typer.Option("--parameters-file", "--parameters_file", help="YAML: weights, plan, device, on_error."),
    ] = None,
    additional_files: Annotated[
        Path | None,
        typer.Option("--additional-files", "--additional_files", help="A folder that holds a bundle to use."),
    ] = None,
    report_dir: Annotated[
        Path | None,
        typer.Option("--report-dir", "--report_dir", help="Folder for the report; never inside the output folder."),
    ] = None,
    save: Annotated[
        str, typer.Option("--save", help="Also save to the report folder: probabilities, agreement, or both, by comma.")
    ] = "",
    device: Annotated[
        DeviceChoice | None, typer.Option("--device", help="Where the networks run. \\[default: auto]")
    ] = None,
    on_error: Annotated[
        OnError | None,
        typer.Option(
            "--on-error",
            "--on_error",
            help="When a case fails: stop, skip it, or write a blank map. \\[default: stop, or METSEG_ON_ERROR]",
        ),
    ] = None,
    *,
    grid: Annotated[
        str,
        typer.Option(
            "--grid", parser=parse_grid, metavar="[t1c|ct]", help="Whose grid label maps take; ct: the planning CT's."
        ),
    ] = "t1c",
    resume: Annotated[
        bool, typer.Option("--resume", help="Do only what is missing, empty or damaged in the output.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option("--shard", help="I/N with I from 0: every N-th case, from the I-th on.")
    ] = None,
) -> int:
    """Segments every case of a folder.

    One label map per case, on the grid and with the header of its t1c; nothing else is written to the output folder.
    """
    from metseg.cli.settings import resolve_settings  # noqa: PLC0415 - heavy

    part = parse_shard(shard)
    _say_shard(part)
    _warn_of_unknown(context.args)
    settings = resolve_settings(
        weights=weights,
        plan=plan,
        device=device,
        on_error=on_error,
        parameters_file=parameters_file,
        additional_files=additional_files,
    )
    from metseg.cli.run import run_inference  # noqa: PLC0415 - heavy

    return run_inference(
        settings,
        data_path=data_path,
        output_path=output_path,
        report_dir=report_dir,
        save=frozenset(part for part in save.split(",") if part),
        resume=resume,
        shard=part,
        grid=cast("LabelGrid", grid),
    )


def _say_shard(shard: Shard) -> None:
    """Says at once that not every case will be done; a warning where nobody asked for it by an option."""
    if shard.count > 1:
        level = logging.WARNING if shard.source == ENVIRONMENT else logging.INFO
        logger.log(level, "%s: 1 case of %d is done here; --shard 0/1 does all", shard.words, shard.count)


def _warn_of_unknown(arguments: list[str]) -> None:
    for argument in arguments:
        if not (argument.startswith("--") and "=" in argument):
            raise UsageError(f"unexpected argument {argument!r}", hint="metseg infer --help lists the options.")
        logger.warning("option %s is unknown and ignored", argument)
