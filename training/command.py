"""`python -m training train`: from a folder of cases to a run's folder."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from metseg.atomic import write_atomically
from metseg.device import DeviceChoice, choose_device
from metseg.discovery import discover_cases
from metseg.domain import CaseFiles
from metseg.errors import InputError
from training.data.split import Split, read_split, split_patients, write_split
from training.ranks import Ranks, joined_ranks
from training.recipe import Recipe, load_recipe

logger = logging.getLogger(__name__)


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe in training/recipes, or the path of a YAML file.")],
    data: Annotated[list[Path], typer.Option(help="Folder of cases with -seg; may be given several times.")],
    output: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run in it is continued.")],
    init: Annotated[Path | None, typer.Option(help="Run folder or checkpoint whose weights to begin with.")] = None,
    split: Annotated[Path | None, typer.Option(help="split.json of another run; else drawn from the recipe.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for prepared volumes.")] = Path(".cache/prepared"),
    max_hours: Annotated[float | None, typer.Option(help="End (and the cosine schedule's end) after so long.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="End after so many steps.")] = None,
    device: Annotated[DeviceChoice, typer.Option(help="Where to train.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of each rank; default all, shared by the ranks.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Loader processes of each rank.")] = 1,
    micro_batch: Annotated[int | None, typer.Option(help="Crops at once; default 1 on a CPU, all on a GPU.")] = None,
    checkpoint_s: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 120.0,
) -> None:
    """Trains one member. Behind torchrun, on every rank: the same command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    import torch  # noqa: PLC0415 - heavy

    from training.data.cache import prepare_all  # noqa: PLC0415
    from training.trainer import LAST, RunSettings, Trainer  # noqa: PLC0415

    chosen = load_recipe(recipe)
    place = choose_device(device)
    if place.is_cuda:
        place = choose_device(device, precision="bfloat16")  # float16 gradients would need a loss scaler
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, place.threads // local_world))
    with joined_ranks(place.name) as ranks:
        cases = {files.case_id: files for folder in data for files in discover_cases(folder)}
        usable = _usable_cases(cases, chosen)
        parts = _chosen_split(usable, chosen, split, output, ranks)
        wanted = tuple(usable[case_id] for case_id in (*parts.train, *parts.validation))
        # The first rank makes what is missing; the others then only find it.
        if not ranks.is_first:
            ranks.barrier()
        entries = prepare_all(wanted, chosen.data, cache, workers=max(1, place.threads // local_world))
        if ranks.is_first:
            ranks.barrier()
        train_ids = _with_lesions(parts.train, entries, chosen)
        settings = RunSettings(
            folder=output,
            device=place,
            init=_checkpoint_of(init, LAST) if init else None,
            max_hours=max_hours,
            max_steps=max_steps,
            checkpoint_s=checkpoint_s,
            workers=workers,
            micro_batch=micro_batch or (1_000_000 if place.is_cuda else 1),
        )
        if ranks.is_first:
            _write_run_file(output, chosen, parts, entries, place.description, init, max_hours)
        logger.info("%d training and %d validation cases; %s", len(train_ids), len(parts.validation), place.description)
        trainer = Trainer(chosen, entries, train_ids, parts.validation, settings, ranks)
        progress = trainer.run()
        logger.info("done: %d steps in %.0f s, best score %s", progress.step, progress.elapsed_s, progress.best_score)


def _usable_cases(cases: dict[str, CaseFiles], recipe: Recipe) -> dict[str, CaseFiles]:
    """The cases that have what the recipe's channels need."""
    needed = {"t1c", "t1n"} if "sub" in recipe.data.channels else set()
    needed |= {channel for channel in recipe.data.channels if channel != "sub"}
    usable = {}
    for case_id, files in cases.items():
        missing = needed - set(files.images)
        if missing == {"t2w"} and recipe.data.missing_t2w == "drop":
            logger.warning("case %s: left out, it has no t2w", case_id)
            continue
        if missing and not (missing == {"t2w"} and recipe.data.missing_t2w in {"t2f", "zeros"}):
            raise InputError(
                f"case {case_id}: {', '.join(sorted(missing))} missing",
                hint="Remove the case, or set data.missing_t2w in the recipe where only t2w is missing.",
            )
        usable[case_id] = files
    return usable


def _chosen_split(cases: dict[str, CaseFiles], recipe: Recipe, given: Path | None, output: Path, ranks: Ranks) -> Split:
    """The run's split: the one it began with, else the one given, else a new one; written to split.json."""
    own = output / "split.json"
    if own.exists():
        return read_split(own, cases)
    split = read_split(given, cases) if given else split_patients(cases, recipe.split)
    ranks.barrier()
    if ranks.is_first:
        output.mkdir(parents=True, exist_ok=True)
        write_split(own, split)
    return split


def _with_lesions(case_ids: tuple[str, ...], entries: dict[str, Path], recipe: Recipe) -> tuple[str, ...]:
    """The small-lesion model leaves out cases without lesion (Erdur et al. 2023, section 2.5)."""
    if recipe.data.max_lesion_voxels is None:
        return case_ids
    kept = tuple(
        case_id for case_id in case_ids if json.loads((entries[case_id] / "entry.json").read_text())["lesions"] > 0
    )
    if not kept:
        raise InputError(f"no training case has a lesion of at most {recipe.data.max_lesion_voxels} voxels")
    return kept


def _checkpoint_of(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _write_run_file(
    output: Path,
    recipe: Recipe,
    split: Split,
    entries: dict[str, Path],
    device: str,
    init: Path | None,
    hours: float | None,
) -> None:
    """recipe.yaml and run.json: what made this run, for `freeze` and for people."""
    recipe_file = output / "recipe.yaml"
    if not recipe_file.exists():
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        write_atomically(recipe_file, text.encode())
    content = {
        "recipe_sha256": recipe.sha256,
        "git_revision": git_revision(),
        "device": device,
        "init": init.name if init else None,
        "max_hours": hours,
        "cases": {"train": len(split.train), "validation": len(split.validation)},
        "entries": {case_id: entry.name for case_id, entry in sorted(entries.items())},
    }
    write_atomically(output / "run.json", json.dumps(content, indent=1).encode())


def git_revision() -> str:
    """The checkout's commit, with `+changes` when it has uncommitted ones; `unknown` outside a checkout."""
    if shutil.which("git") is None:
        return "unknown"
    root = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return revision.stdout.strip()
