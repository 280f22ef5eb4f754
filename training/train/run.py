"""One run, from a folder of cases to a trained member in a folder of its own.

<run>/recipe.yaml        all its science
<run>/run.json           what it began with; revision, device, cases, cache entries
<run>/split.json         which case was used for what
<run>/metrics.jsonl      a line a step and a line a validation; tensorboard/ has the same
<run>/best.safetensors   the checkpoint with the best validation score
<run>/last.safetensors   the newest checkpoint: the same command continues from it
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from metseg.errors import InputError, UsageError
from metseg.files.atomic import write_atomically
from metseg.files.case import CaseFiles
from metseg.files.discovery import images_beside
from metseg.files.read import refuse_unusable
from metseg.findings import printable
from metseg.labels import LabelConvention
from metseg.predict.device import Device, DeviceChoice, choose_device
from metseg.systems import modalities_to_find
from training.data.cache import mean_brain_share, prepare_all
from training.data.cases import find_cases
from training.data.false_positives import find_false_positives
from training.data.split import Split, read_split, split_patients, write_split
from training.provenance import keep_provenance, record_provenance
from training.ranks import Ranks, joined_ranks
from training.recipe import Recipe
from training.revision import git_revision
from training.runs.checkpoint import Progress
from training.runs.end import Ended, write_end
from training.runs.files import LAST, RECIPE_FILE, RUN_FILE, SPLIT_FILE
from training.runs.recipes import hash_written_recipe
from training.train.trainer import RunSettings, Trainer

logger = logging.getLogger(__name__)

ALL_CROPS = 1_000_000
"""More than any step has."""

CPU_CROPS = {"float32": 2, "bfloat16": 1}
"""In float32 torch sends a small crop that comes alone to convolutions several times slower
(`python -m benchmarks.training --micro-batch 1`). In bfloat16 it does not, and one at a time takes the least memory."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to train on, where to, and how; the science is the recipe's.

    Attributes:
        data: folders of cases with `-seg`.
        output: the run's folder.
        cache: folder of prepared volumes; several runs share it, and ranks on several machines must see it.
        init: run folder, checkpoint or frozen member whose weights the run begins with.
        predictions: folders of an earlier model's label maps of the training cases, for the recipe's
            `crops.false_positive_probability`.
        split: split.json of another run; None draws it from the recipe.
        max_hours: see RunSettings.
        max_steps: see RunSettings.
        device: where to train.
        full_precision: float32 arithmetic also where the device would take bfloat16.
        threads: CPU threads of each rank; None is its share of all, or of OMP_NUM_THREADS, which torchrun sets to 1.
        workers: loader processes of each rank.
        micro_batch: crops at once; None is `CPU_CROPS` on a CPU, all on a GPU.
        checkpoint_s: seconds between checkpoints.
        convention: what label 4 of the references means; needed where they leave it open.
    """

    data: tuple[Path, ...]
    output: Path
    cache: Path
    init: Path | None = None
    predictions: tuple[Path, ...] = ()
    split: Path | None = None
    max_hours: float | None = None
    max_steps: int | None = None
    device: DeviceChoice = "auto"
    full_precision: bool = False
    threads: int | None = None
    workers: int = 1
    micro_batch: int | None = None
    checkpoint_s: float = 120.0
    convention: LabelConvention | None = None


def train_run(recipe: Recipe, request: RunRequest) -> Progress:
    """Trains a member, or continues it; behind torchrun, on every rank.

    Raises:
        InputError: a case can't be used.
        UsageError: the folder holds a run of another recipe, the split doesn't fit the data, two folders of data
            hold a case of the same ID, or only one of recipe and request asks for false positives.
        DivergenceError: the loss is not finite.
        InterruptedRunError: a signal came; the same request continues the run.
    """
    import torch  # noqa: PLC0415 - heavy

    place = _training_device(request)
    _check_predictions(recipe, request)
    with joined_ranks(place.name) as ranks:
        torch.set_num_threads(request.threads or max(1, place.threads // ranks.local_world))
        known = modalities_to_find(recipe.member.modalities)
        found = find_cases(request.data, modalities=known, regions=recipe.regions, convention=request.convention)
        usable = _usable_cases(found, recipe)
        split = _chosen_split(usable, recipe, request, ranks)
        wanted = tuple(usable[case_id] for case_id in (*split.train, *split.validation))
        with ranks.first_before_others():  # who only find what it has made
            workers = ranks.free_cpus if ranks.world > 1 else place.threads
            entries = prepare_all(wanted, recipe, request.cache, workers=workers)
        if ranks.is_first:
            _write_run_files(recipe, request, split, entries, place)
        train_ids = _with_lesions(split.train, entries, recipe)
        logger.info("%d training and %d validation cases; %s", len(train_ids), len(split.validation), place.description)
        settings = _settings(request, place, recipe)
        train_cases = [usable[case_id] for case_id in train_ids]
        false = find_false_positives(train_cases, request.predictions, entries, recipe) if request.predictions else None
        trainer = Trainer(
            recipe, entries, train_ids, split.validation, settings=settings, ranks=ranks, false_positives=false
        )
        progress = trainer.run()
        if ranks.is_first:
            write_end(request.output, Ended(progress.step, progress.elapsed_s))
        return progress


def _check_predictions(recipe: Recipe, request: RunRequest) -> None:
    """The recipe says how often crops go to false positives, the request where these are found."""
    share = recipe.crops.false_positive_probability
    if (share is None) != (not request.predictions):
        found = f"crops.false_positive_probability {share}" if share else "--predictions alone"
        raise UsageError(
            f"recipe {recipe.name}: expected both crops.false_positive_probability and --predictions, or neither; "
            f"found {found}",
            hint="--predictions names folders of label maps of the training cases, made by an earlier model.",
        )


def _training_device(request: RunRequest) -> Device:
    import torch  # noqa: PLC0415 - heavy

    if request.full_precision:
        return choose_device(request.device, precision="float32")
    place = choose_device(request.device)
    if not place.is_cuda:
        return place
    # float16 gradients would need a loss scaler; bfloat16 has the range of float32, but older GPUs don't multiply it.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return choose_device(request.device, precision="bfloat16" if native else "float32")


def _settings(request: RunRequest, place: Device, recipe: Recipe) -> RunSettings:
    return RunSettings(
        folder=request.output,
        device=place,
        init=_init_checkpoint(request),
        max_hours=request.max_hours,
        max_steps=request.max_steps,
        checkpoint_s=request.checkpoint_s,
        workers=request.workers,
        micro_batch=request.micro_batch or _crops_at_once(place, recipe),
    )


def _crops_at_once(place: Device, recipe: Recipe) -> int:
    return ALL_CROPS if place.is_cuda or recipe.system.needs_whole_batches else CPU_CROPS[place.precision]


def _init_checkpoint(request: RunRequest) -> Path | None:
    init = request.init
    return init / LAST if init is not None and init.is_dir() else init


def _usable_cases(cases: Mapping[str, CaseFiles], recipe: Recipe) -> dict[str, CaseFiles]:
    """The cases that have what the recipe's channels need."""
    needed = recipe.member.required_modalities
    usable = {}
    for case_id, files in cases.items():
        refuse_unusable(files, [name for name in files.rivals if name in needed])
        name = printable(case_id)
        missing = needed - set(files.images)
        if missing == {"t2w"} and recipe.data.missing_t2w == "drop":
            logger.warning("case %s: left out, it has no t2w", name)
            continue
        if missing and not (missing == {"t2w"} and recipe.data.missing_t2w in {"t2f", "zeros"}):
            raise InputError(
                f"case {name}: {', '.join(sorted(missing))} missing{images_beside(files)}",
                hint="Remove the case, or set data.missing_t2w in the recipe where only t2w is missing.",
            )
        usable[case_id] = files
    return usable


def _chosen_split(cases: Mapping[str, CaseFiles], recipe: Recipe, request: RunRequest, ranks: Ranks) -> Split:
    """The run's split: the one it began with, else the one given, else a new one; written to split.json."""
    own = request.output / SPLIT_FILE
    begun = own.exists()
    ranks.barrier()  # nobody writes it before everybody has looked
    if begun:
        return read_split(own, cases)
    split = read_split(request.split, cases) if request.split else split_patients(cases, recipe.split)
    if ranks.is_first:
        request.output.mkdir(parents=True, exist_ok=True)
        write_split(own, split)
    return split


def _with_lesions(case_ids: Sequence[str], entries: Mapping[str, Path], recipe: Recipe) -> tuple[str, ...]:
    """The small-lesion model leaves out cases without lesion (Erdur et al. 2023, section 2.5)."""
    if recipe.data.max_lesion_voxels is None:
        return tuple(case_ids)
    kept = tuple(
        case_id for case_id in case_ids if json.loads((entries[case_id] / "entry.json").read_text())["lesions"] > 0
    )
    if not kept:
        raise InputError(f"no training case has a lesion of at most {recipe.data.max_lesion_voxels} voxels")
    return kept


def _write_run_files(
    recipe: Recipe, request: RunRequest, split: Split, entries: Mapping[str, Path], place: Device
) -> None:
    """recipe.yaml and run.json: what made this run, for `freeze` and for people."""
    recipe_file = request.output / RECIPE_FILE
    if not recipe_file.exists():
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        write_atomically(recipe_file, text.encode())
    if (request.output / LAST).exists():  # it goes on from there
        provenance = keep_provenance(request.output)
    else:
        provenance = record_provenance(request.init, _init_checkpoint(request), request.predictions)
    content = {
        "recipe_sha256": hash_written_recipe(request.output),
        "git_revision": git_revision(),
        "device": place.description,
        **provenance,
        "max_hours": request.max_hours,
        "labels": request.convention,
        "cases": {"train": len(split.train), "validation": len(split.validation)},
        "cache": str(request.cache.resolve()),
        "brain_share": mean_brain_share(entries[case_id] for case_id in split.train),
        "entries": {case_id: entry.name for case_id, entry in sorted(entries.items())},
    }
    write_atomically(request.output / RUN_FILE, json.dumps(content, indent=1).encode())
