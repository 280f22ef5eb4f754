"""`metseg view`: the report with its interactive viewer, served to this machine's browser."""

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from metseg.cli.choices import LabelsOption

if TYPE_CHECKING:
    from metseg.labels import LabelConvention

logger = logging.getLogger(__name__)


def view(
    report_dir: Annotated[Path, typer.Option("--report-dir", "--report_dir", help="Folder of a report.")],
    data_path: Annotated[
        Path | None,
        typer.Option("--data-path", "--data_path", help="Folder of cases. \\[default: where the report found them]"),
    ] = None,
    prediction_path: Annotated[
        Path | None,
        typer.Option("--prediction-path", "--prediction_path", help="Folder of label maps. \\[default: likewise]"),
    ] = None,
    reference_path: Annotated[
        Path | None,
        typer.Option("--reference-path", "--reference_path", help="Folder of references. \\[default: likewise]"),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    *,
    labels: LabelsOption = None,
    browser: Annotated[bool, typer.Option(help="Open the browser.")] = True,
) -> int:
    """Opens a report with an interactive viewer for each case; nothing leaves this machine. Ctrl-C ends it."""
    from metseg.report.server import Site, ViewerServer  # noqa: PLC0415 - heavy
    from metseg.report.viewer import collect_cases, find_paths  # noqa: PLC0415

    said = cast("LabelConvention | None", labels)
    paths = find_paths(report_dir, data_path, prediction_path, reference_path, convention=said)
    with ViewerServer(Site(report_dir, collect_cases(report_dir, paths)), port) as server:
        typer.echo(server.url)
        logger.info("the report with its viewer is at this address until Ctrl-C")
        if browser:
            import webbrowser  # noqa: PLC0415

            webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0
