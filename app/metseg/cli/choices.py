"""Choices of options whose lists stand in slow modules: read when an option is given, not for `--help`."""

from typing import Any, get_args

import typer


def parse_grid(text: str) -> str:
    """One of `metseg.systems.LabelGrid`."""
    from metseg.systems import LabelGrid  # noqa: PLC0415 - imports numpy

    return _require_choice(text, LabelGrid)


def parse_system(text: str) -> str:
    """One of `metseg.systems.SystemName`."""
    from metseg.systems import SystemName  # noqa: PLC0415 - imports numpy

    return _require_choice(text, SystemName)


def _require_choice(text: str, choices: Any) -> str:
    known: tuple[str, ...] = get_args(choices)
    if text not in known:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, known))}.")
    return text
