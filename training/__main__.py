"""Build-time commands: `python -m training COMMAND`. Each command's module is imported when it runs."""

import importlib
import sys
from typing import Final

import typer

from metseg.errors import MetsegError
from metseg.findings import printable

# Command -> "module:function"; a module is imported only when its command is named (or for --help).
COMMANDS: Final[dict[str, str]] = {
    "cohort": "training.cohort.command:cohort",
    "implant": "training.cohort.command:implant",
    "measure": "training.cohort.command:measure",
    "train": "training.train.command:train",
    "freeze": "training.freeze.command:freeze",
    "average": "training.average.command:average",
    "tune": "training.tune.command:tune",
    "tables": "training.tables.command:tables",
}


def build_app(wanted: str | None = None) -> typer.Typer:
    """The program with the wanted command, or with all of them."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, help="Training and synthetic data of metseg.")
    app.callback()(lambda: None)
    for name, target in COMMANDS.items():
        if wanted in COMMANDS and name != wanted:
            continue
        module, function = target.split(":")
        app.command(name)(getattr(importlib.import_module(module), function))
    return app


def main() -> None:
    """Entry point: a MetsegError becomes its message, its hint and its exit code."""
    try:
        build_app(sys.argv[1] if len(sys.argv) > 1 else None)()
    except MetsegError as error:
        typer.echo(f"error: {printable(str(error))}" + (f"\n  hint: {error.hint}" if error.hint else ""), err=True)
        raise SystemExit(int(error.exit_code)) from error


if __name__ == "__main__":
    main()
