"""A finished run cut down to what a repository keeps: half-precision weights, recipe, split and a thinned log.

Such a folder is frozen as any other (`freeze --cache`), and other runs begin with it (`train --init`). It has no
optimiser's state: it doesn't go on.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from metseg.errors import UsageError, WeightsError
from metseg.files.atomic import write_atomically
from metseg.network.segresnet import VAE_PREFIX
from training.provenance import ENTRIES_HASH, hash_entries
from training.runs.checkpoint import FORMAT, has_optimizer, read_checkpoint, trained_weights
from training.runs.end import ENDED, Ended, find_end
from training.runs.files import BEST, LAST, METRICS_FILE, RECIPE_FILE, RUN_FILE, SPLIT_FILE
from training.runs.members import pack_weights
from training.runs.metrics import read_metrics

METRICS_EVERY: Final = 50
"""Of the steps, every so many-th is kept in metrics.jsonl; validations are all kept."""


def keep_run(run: Path, output: Path, checkpoint: str = LAST) -> int:
    """Writes what is worth keeping of a run; what the output holds of an earlier one is replaced.

    Args:
        run: folder of the run; it may still be running: its newest checkpoint is taken.
        output: made where it is missing.
        checkpoint: `LAST` or `BEST`.

    Returns:
        Bytes of the weights.

    Raises:
        UsageError: `run` is no run, has no such checkpoint, or is `output`.
        WeightsError: the checkpoint can't be read, or a weight is beyond half precision.
    """
    if run.resolve() == output.resolve():
        raise UsageError(f"run {run}: can't be kept in its own folder", hint="Name another folder.")
    for file in (RECIPE_FILE, RUN_FILE, SPLIT_FILE, LAST, checkpoint):
        if not (run / file).is_file():
            raise UsageError(f"run {run}: no {file} in it", hint="Name a folder that `python -m training train` made.")
    content = pack_weights(_halved(run / checkpoint), _metadata(run / checkpoint))
    output.mkdir(parents=True, exist_ok=True)
    for name in (LAST, BEST):
        if name != checkpoint:
            (output / name).unlink(missing_ok=True)
    write_atomically(output / checkpoint, content)
    write_atomically(output / RUN_FILE, json.dumps(_describe(run), indent=1).encode())
    lines = [line for line in read_metrics(run) if line["kind"] != "train" or line["step"] % METRICS_EVERY == 0]
    write_atomically(output / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in lines).encode())
    for file in (RECIPE_FILE, SPLIT_FILE):
        shutil.copyfile(run / file, output / file)
    return len(content)


def find_kept_run(folder: Path) -> Ended | None:
    """Where a kept run ended; None where the folder holds none: nothing, or a run with all it needs to go on.

    Raises:
        WeightsError: the checkpoint can't be read.
    """
    path = next((folder / name for name in (LAST, BEST) if (folder / name).is_file()), None)
    if path is None or not (folder / RUN_FILE).is_file():
        return None
    tensors, progress = read_checkpoint(path)
    if has_optimizer(tensors):
        return None
    return find_end(folder) or Ended(progress.step, progress.elapsed_s)


def _halved(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The averaged weights where there are some, without the VAE branch, whole numbers as they are."""
    halved = {}
    for name, tensor in trained_weights(checkpoint).items():
        if name.startswith(VAE_PREFIX):
            continue
        half = tensor.half() if tensor.is_floating_point() else tensor
        if not bool(torch.isfinite(half).all()):
            raise WeightsError(f"checkpoint {checkpoint}: {name} is beyond half precision")
        halved[f"model.net.{name}"] = half.contiguous()
    return halved


def _metadata(checkpoint: Path) -> dict[str, str]:
    _, progress = read_checkpoint(checkpoint)
    return {"format": FORMAT, "progress": json.dumps(asdict(progress))}


def _describe(run: Path) -> dict[str, Any]:
    """run.json without what only the machine that trained can use."""
    content: dict[str, Any] = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    if "entries" in content:
        content[ENTRIES_HASH] = hash_entries(content)
    _, progress = read_checkpoint(run / LAST)
    content[ENDED] = asdict(Ended(progress.step, progress.elapsed_s))
    return {key: value for key, value in content.items() if key not in {"entries", "cache"}}
