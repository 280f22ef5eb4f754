"""Choices of options whose lists stand in slow modules: read when an option is given, not for `--help`."""

from typing import Annotated, Any, get_args

import typer


def parse_grid(text: str) -> str:
    """One of `metseg.systems.LabelGrid`."""
    from metseg.systems import LabelGrid  # noqa: PLC0415 - imports numpy

    return _require_choice(text, LabelGrid)


def parse_system(text: str) -> str:
    """One of `metseg.systems.SystemName`."""
    from metseg.systems import SystemName  # noqa: PLC0415 - imports numpy

    return _require_choice(text, SystemName)


def parse_modality(text: str) -> str:
    """One of `metseg.systems.Modality`."""
    from metseg.systems import Modality  # noqa: PLC0415 - imports numpy

    return _require_choice(text, Modality)


def parse_labels(text: str) -> str:
    """One of `metseg.labels.LabelConvention`."""
    from metseg.labels import LabelConvention  # noqa: PLC0415 - imports numpy

    return _require_choice(text, LabelConvention)


LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        parser=parse_labels,
        metavar="[brats2021|brats2025]",
        help="What label 4 means in label maps without a 3: enhancing tumour, or a resection cavity.",
    ),
]
"""Of every command that reads label maps of any program."""


def _require_choice(text: str, choices: Any) -> str:
    known: tuple[str, ...] = get_args(choices)
    if text not in known:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, known))}.")
    return text
