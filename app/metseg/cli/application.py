"""The typer application: which commands there are and what holds for all of them."""

from pathlib import Path

import typer

from metseg.cli.check import check
from metseg.cli.export_dicom import export_dicom
from metseg.cli.fuse import fuse
from metseg.cli.general_options import (
    LogFormatOption,
    QuietOption,
    VerboseOption,
    VersionOption,
    with_general_options,
)
from metseg.cli.import_dicom import import_dicom
from metseg.cli.infer import CONTAINER_INPUT, infer
from metseg.cli.info import info
from metseg.cli.logs import LogFormat, configure_logging
from metseg.cli.report import report
from metseg.cli.self_test import self_test
from metseg.cli.study import study
from metseg.cli.view import view

app = typer.Typer(
    name="metseg",
    no_args_is_help=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 usage, 3 input, 4 weights, 5 device, 6 output, 10 some cases failed, 70 a bug.",
)

PREPARE = "From the scanner"
SEGMENT = "Segment"
LOOK = "Look before and after"
HAND_ON = "Pass results on"
INSTALLATION = "Does this installation work?"
TOLERANT = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Callers pass options that later versions of their interface have; `infer` warns of them and goes on."""

app.command(rich_help_panel=PREPARE)(with_general_options(study))
app.command(rich_help_panel=PREPARE)(with_general_options(import_dicom))
app.command(rich_help_panel=SEGMENT, context_settings=TOLERANT)(with_general_options(infer))
app.command(rich_help_panel=SEGMENT)(with_general_options(fuse))
app.command(rich_help_panel=LOOK)(with_general_options(check))
app.command(rich_help_panel=LOOK)(with_general_options(report))
app.command(rich_help_panel=LOOK)(with_general_options(view))
app.command(rich_help_panel=HAND_ON)(with_general_options(export_dicom))
app.command("self-test", rich_help_panel=INSTALLATION)(with_general_options(self_test))
app.command(rich_help_panel=INSTALLATION)(with_general_options(info))


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    *,
    _version: VersionOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
    log_format: LogFormatOption = None,
) -> int | None:
    """Finds and segments brain metastases on MRI: a folder of cases in, a folder of label maps out.

    Research software for the BraTS challenge; not a medical device.

    First: metseg check --data-path CASES

    Then: metseg infer --data-path CASES --output-path LABELS --report-dir REPORT

    Without a command: infer from /input to /output, where there is an /input (challenge platforms).
    """
    configure_logging(verbose=verbose, quiet=quiet, log_format=log_format or LogFormat.TEXT)
    if context.invoked_subcommand is not None:
        return None
    if Path(CONTAINER_INPUT).is_dir():
        code: int = context.invoke(infer, context=context)
        return code
    typer.echo(context.get_help())
    return None
