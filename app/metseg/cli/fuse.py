"""`metseg fuse`: fuses label maps that exist already, made by any program."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class FusionOption(StrEnum):
    """Fusions of label maps; `mean` needs probabilities, which label maps don't have."""

    SIMPLE = "simple"
    SIMPLE_LANGERAK = "simple_langerak"
    MAJORITY = "majority"
    MAXIMUM = "maximum"


def fuse(
    inputs: Annotated[list[Path], typer.Argument(help="Two or more label maps, or folders of <ID>.nii.gz.")],
    output: Annotated[Path, typer.Option("--output", "--output_path", help="The fused label map, or the folder.")],
    method: Annotated[FusionOption, typer.Option("--method", help="How the votes are counted.")] = FusionOption.SIMPLE,
) -> int:
    """Fuses label maps of the same case, one label against the rest."""
    from metseg.decide.fuse_files import fuse_files  # noqa: PLC0415 - heavy
    from metseg.plan.plan import FusionPlan  # noqa: PLC0415

    fuse_files(inputs, output, FusionPlan(method=method.value, maximum_of="masks"))
    return 0
