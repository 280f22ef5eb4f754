"""`metseg fuse`: fuses label maps that exist already, made by any program."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from metseg.cli.choices import LabelsOption

if TYPE_CHECKING:
    from metseg.labels import LabelConvention

LabelMapFusion = Literal["simple", "simple_langerak", "majority", "maximum"]
"""Fusions of label maps: those of a plan but `mean`, which needs probabilities."""


def fuse(
    inputs: Annotated[list[Path], typer.Argument(help="Two or more label maps, or folders of <ID>.nii.gz.")],
    output: Annotated[Path, typer.Option("--output", "--output_path", help="The fused label map, or the folder.")],
    method: Annotated[LabelMapFusion, typer.Option("--method", help="How the votes are counted.")] = "simple",
    labels: LabelsOption = None,
) -> int:
    """Fuses label maps of the same case, one label against the rest."""
    from metseg.plan.plan import FusionPlan  # noqa: PLC0415
    from metseg.run.fuse_files import fuse_files  # noqa: PLC0415 - heavy

    plan = FusionPlan(method=method, maximum_of="masks")
    fuse_files(inputs, output, plan, convention=cast("LabelConvention | None", labels))
    return 0
