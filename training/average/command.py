"""`python -m training average`: between a member and what it was trained on from."""

from pathlib import Path
from typing import Annotated

import typer

from training.average.average import average_members


def average(
    later: Annotated[Path, typer.Argument(help="Weights file of a bundle.")],
    earlier: Annotated[Path, typer.Argument(help="Weights file of the run that it began with (train --init).")],
    *,
    output: Annotated[Path, typer.Option(help="Weights file to write, which `freeze` takes as a member.")],
    share: Annotated[float, typer.Option(help="Of the later one's weights in the mean, from 0 to 1.")] = 0.5,
) -> None:
    """Mean of two members' weights, a narrower one widened first."""
    typer.echo(f"{output} sha256 {average_members(later, earlier, share, output)}")
