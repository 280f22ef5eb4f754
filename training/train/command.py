"""`python -m training train`: from a folder of cases to a run's folder."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from metseg.cli.choices import LabelsOption
from metseg.predict.device import DeviceChoice
from training.recipe import load_recipe

if TYPE_CHECKING:
    from metseg.labels import LabelConvention

logger = logging.getLogger(__name__)


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe in training/recipes, or the path of a YAML file.")],
    *,
    data: Annotated[list[Path], typer.Option(help="Folder of cases with -seg; may be given several times.")],
    output: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run in it is continued.")],
    init: Annotated[Path | None, typer.Option(help="Run folder, checkpoint or frozen member to begin with.")] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of an earlier model's label maps of the training cases, for a recipe with "
            "crops.false_positive_probability; may be given several times."
        ),
    ] = None,
    labels: LabelsOption = None,
    split: Annotated[Path | None, typer.Option(help="split.json of another run; else drawn from the recipe.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for prepared volumes.")] = Path(".cache/prepared"),
    max_hours: Annotated[float | None, typer.Option(help="End (and the cosine schedule's end) after so long.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="End after so many steps.")] = None,
    device: Annotated[DeviceChoice, typer.Option(help="Where to train.")] = "auto",
    full_precision: Annotated[bool, typer.Option(help="float32 throughout, without bfloat16.")] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of each rank; default its share of all, behind torchrun 1.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Loader processes of each rank.")] = 1,
    micro_batch: Annotated[
        int | None, typer.Option(help="Crops at once; default 2 on a CPU (1 in bfloat16), all on a GPU.")
    ] = None,
    checkpoint_s: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 120.0,
) -> None:
    """Trains one member. Behind torchrun, on every rank: the same command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    from training.train.run import RunRequest, train_run  # noqa: PLC0415 - heavy

    request = RunRequest(
        data=tuple(data),
        output=output,
        cache=cache,
        init=init,
        predictions=tuple(predictions or ()),
        split=split,
        max_hours=max_hours,
        max_steps=max_steps,
        device=device,
        full_precision=full_precision,
        threads=threads,
        workers=workers,
        micro_batch=micro_batch,
        checkpoint_s=checkpoint_s,
        convention=cast("LabelConvention | None", labels),
    )
    progress = train_run(load_recipe(recipe), request)
    logger.info("done: %d steps in %.0f s, best score %s", progress.step, progress.elapsed_s, progress.best_score)
