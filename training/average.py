"""The mean of several runs' weights as a run of its own, for `freeze`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from metseg.atomic import write_atomically
from metseg.errors import UsageError
from training.freeze import RECIPE_FILE, RUN_FILE, SPLIT_FILE, recipe_of

CHECKPOINT = "last.safetensors"


def average(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of one member, each begun with the one before.")],
    *,
    output: Annotated[Path, typer.Option(help="Folder of the run that is made; not there yet.")],
) -> None:
    """Averages the weights of runs that descend from one another (Wortsman et al. 2022, model soups)."""
    average_runs(runs, output)
    typer.echo(f"{output}: mean of {', '.join(map(str, runs))}")


def average_runs(runs: Sequence[Path], output: Path) -> None:
    """Writes a run whose weights are the mean of others'; everything else is the last one's.

    A run that goes on with other crops gains there and forgets some of what it knew; where one began with the other's
    weights, their mean keeps much of both (Wortsman et al., arXiv 2203.05482).

    Args:
        runs: at least two, of the same network, channels and regions.
        output: made; a folder with a run in it is refused.

    Raises:
        UsageError: these runs can't be averaged, or the output holds one already.
        WeightsError: a checkpoint can't be read, or has other tensors than the first.
    """
    from training.checkpoint import average_checkpoints  # noqa: PLC0415 - heavy

    if len(runs) < 2:  # noqa: PLR2004 - the mean of one is itself
        raise UsageError(f"a mean takes two runs, found {len(runs)}", hint="Name the runs to average.")
    if (output / RUN_FILE).exists():
        raise UsageError(f"output {output}: holds a run already", hint="Name another folder.")
    recipes = [recipe_of(run) for run in runs]
    for run, recipe in zip(runs, recipes, strict=True):
        if (recipe.network, recipe.data.channels, recipe.regions) != (
            recipes[-1].network,
            recipes[-1].data.channels,
            recipes[-1].regions,
        ):
            raise UsageError(f"run {run}: has another network, other channels or regions than {runs[-1]}")
    content = json.loads((runs[-1] / RUN_FILE).read_text(encoding="utf-8"))
    content["mean_of"] = [run.name for run in runs]
    weights = average_checkpoints([run / CHECKPOINT for run in runs])
    output.mkdir(parents=True, exist_ok=True)
    for name in (RECIPE_FILE, SPLIT_FILE):
        write_atomically(output / name, (runs[-1] / name).read_bytes())
    write_atomically(output / CHECKPOINT, weights)
    write_atomically(output / RUN_FILE, json.dumps(content, indent=1).encode())
