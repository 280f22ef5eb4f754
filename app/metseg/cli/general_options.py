"""The options that hold for every command: given before its name or behind it."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Final

import typer

import metseg
from metseg.cli.logs import LogFormat, configure_logging

PANEL: Final = "General"


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer's callback interface
    if value:
        typer.echo(f"metseg {metseg.__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Show the version and exit.", rich_help_panel=PANEL
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more, with times and modules.", rich_help_panel=PANEL)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.", rich_help_panel=PANEL)]
LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format", "--log_format", help="Log lines as text or JSON. \\[default: text]", rich_help_panel=PANEL
    ),
]


def with_general_options(command: Callable[..., int]) -> Callable[..., int]:
    """A command that takes the general options too; what stands before its name holds where it says nothing itself.

    Args:
        command: as typer takes it; one that wants the context calls it `context`.
    """
    signature = inspect.signature(command)

    @wraps(command)
    def run(context: typer.Context, **given: Any) -> int:
        before = context.parent.params if context.parent is not None else {}
        _version, verbose, quiet, log_format = (given.pop(name) for name in _GENERAL)
        configure_logging(
            verbose=verbose or before.get("verbose", False),
            quiet=quiet or before.get("quiet", False),
            log_format=log_format or before.get("log_format") or LogFormat.TEXT,
        )
        return command(**given, **({"context": context} if "context" in signature.parameters else {}))

    own = [parameter for name, parameter in signature.parameters.items() if name != "context"]
    run.__signature__ = signature.replace(parameters=[_CONTEXT, *own, *_GENERAL.values()])  # type: ignore[attr-defined]
    return run


_CONTEXT: Final = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)

_GENERAL: Final = {
    name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    for name, default, annotation in (
        ("_version", False, VersionOption),
        ("verbose", False, VerboseOption),
        ("quiet", False, QuietOption),
        ("log_format", None, LogFormatOption),
    )
}
