"""From a run to a member's weights file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from metseg.errors import UsageError, WeightsError
from metseg.files.atomic import write_atomically
from metseg.network.segresnet import VAE_PREFIX
from metseg.plan.bundle import describe_member, read_metadata
from metseg.plan.plan import MemberPlan
from metseg.predict.weights import load_member
from training.provenance import HANDED_ON, hash_entries
from training.recipe import Recipe
from training.revision import git_revision
from training.runs.files import LAST, RECIPE_FILE, RUN_FILE, SPLIT_FILE
from training.runs.members import pack_weights
from training.runs.metrics import read_metrics
from training.runs.recipes import hash_written_recipe

if TYPE_CHECKING:
    from torch import nn

CheckpointName = Literal["best", "last"]

BRAIN_SHARE = "brain_share"
"""Key of a run's record, of a member's metadata and of a plan: see `metseg.plan.plan.Plan`."""


@dataclass(frozen=True, slots=True)
class FrozenFrom:
    """What of a run is frozen, and how.

    Attributes:
        checkpoint: `best` by validation (`last` where a run has no validation), or `last`.
        half: weights in float16 on disk; float32 again when loaded.
        provenance: where the training data came from.
        cache: folder of prepared volumes; None is the one that each run names.
    """

    checkpoint: CheckpointName
    half: bool
    provenance: str
    cache: Path | None


@dataclass(frozen=True, slots=True)
class FrozenMember:
    """A member before it is written: what the plan says of it, and its weights file."""

    plan: MemberPlan
    content: bytes

    @property
    def brain_share(self) -> float | None:
        """Mean share of the brain among the voxels of its training cases; None where it does not say."""
        stated = read_metadata(self.content, Path(self.plan.weights)).get(BRAIN_SHARE)
        return None if stated is None else float(stated)


def freeze_member(run: Path, recipe: Recipe, options: FrozenFrom) -> FrozenMember:
    """Freezes a run's network, or takes over a weights file.

    Args:
        run: folder of a finished run, or weights file of a bundle.
        recipe: of the run.
        options: which checkpoint, and how it is stored.

    Raises:
        UsageError: the checkpoint was trained with another recipe, or the case to compare on is not in the cache.
        WeightsError: the frozen network's logits are not those of the trained one.
    """
    if run.is_file():
        return _take_over(run, recipe)
    import torch  # noqa: PLC0415 - heavy

    from training.freeze.equality import check_equality  # noqa: PLC0415
    from training.runs.checkpoint import read_checkpoint, trained_weights  # noqa: PLC0415

    path = run / f"{options.checkpoint}.safetensors"
    path = path if path.is_file() else run / LAST
    _, progress = read_checkpoint(path)
    if progress.recipe_sha256 != hash_written_recipe(run):
        raise UsageError(f"run {run}: its checkpoint was trained with another recipe than its {RECIPE_FILE}")
    state = {key: tensor for key, tensor in trained_weights(path).items() if not key.startswith(VAE_PREFIX)}
    stored = torch.float16 if options.half else torch.float32
    # Batch norm counts its batches in whole numbers; a bundle holds floating-point tensors alone.
    state = {
        key: tensor.to(stored if tensor.is_floating_point() else torch.float32).contiguous()
        for key, tensor in state.items()
    }
    member = recipe.member
    metadata = describe_member(member) | _describe_provenance(run, path, recipe, progress.step, options.provenance)
    # Compared before the file has its final metadata, which holds what the comparison found.
    unchecked = _frozen(member, pack_weights(state, metadata))
    found = check_equality(_loaded(unchecked, run), path, recipe, stored, _find_entry(run, options.cache))
    metadata |= {
        "proven_on": found.case_id,
        "rounding": f"logits differ by at most {found.rounding:g}, {found.changed_voxels} labels of the window",
    }
    return _frozen(member, pack_weights(state, metadata))


def _take_over(weights: Path, recipe: Recipe) -> FrozenMember:
    """A frozen member of another bundle, or of this one, byte by byte."""
    member = _frozen(recipe.member, weights.read_bytes())
    load_member(weights.parent, member.plan.model_copy(update={"weights": weights.name}))
    return member


def _frozen(member: MemberPlan, content: bytes) -> FrozenMember:
    return FrozenMember(member.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()}), content)


def _loaded(member: FrozenMember, run: Path) -> "nn.Module":
    """The network as inference loads it: from a file."""
    with TemporaryDirectory() as folder:
        write_atomically(Path(folder) / member.plan.weights, member.content)
        try:
            return load_member(Path(folder), member.plan)
        except WeightsError as error:
            raise WeightsError(f"run {run}: frozen, its weights can't be used: {error}", hint=error.hint) from error


def _find_entry(run: Path, cache: Path | None) -> Path:
    """Cache entry of the run's first validation case, or of its first training case.

    Raises:
        UsageError: it is not in the cache.
    """
    content = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    split = json.loads((run / SPLIT_FILE).read_text(encoding="utf-8"))
    case_id = [*split["validation"], *split["train"]][0]
    folder = cache or (Path(content["cache"]) if "cache" in content else None)
    entry = _entry_of(case_id, folder, content.get("entries", {})) if folder is not None else None
    if entry is None:
        raise UsageError(
            f"run {run}: the prepared volumes of case {case_id} are not in {folder or 'a cache that it names'}",
            hint="Name the folder that the run was trained with: --cache.",
        )
    return entry


def _entry_of(case_id: str, folder: Path, entries: Mapping[str, str]) -> Path | None:
    """The case's entry that the run names, or, for a kept run, which names none, any of that case."""
    if entries:
        return folder / entries[case_id] if (folder / entries[case_id]).is_dir() else None
    for path in sorted(folder.glob("*/entry.json")):
        if json.loads(path.read_text(encoding="utf-8"))["case_id"] == case_id:
            return path.parent
    return None


def _describe_provenance(run: Path, checkpoint: Path, recipe: Recipe, step: int, provenance: str) -> dict[str, str]:
    content = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    validations = [line for line in read_metrics(run) if line["kind"] == "validation" and line["step"] <= step]
    return {
        "recipe": json.dumps(recipe.model_dump(mode="json"), sort_keys=True),
        "recipe_sha256": hash_written_recipe(run),
        "checkpoint": checkpoint.name,
        "steps": str(step),
        "validation": json.dumps(validations[-1] if validations else {}, sort_keys=True),
        "training_revision": str(content.get("git_revision", "unknown")),
        "freezing_revision": git_revision(),
        "training_cases": json.dumps(content.get("cases", {}), sort_keys=True),
        "data_sha256": hash_entries(content),
        "begun_with": json.dumps({key: content[key] for key in HANDED_ON if key in content}, sort_keys=True),
        "provenance": provenance,
    } | ({BRAIN_SHARE: str(content[BRAIN_SHARE])} if content.get(BRAIN_SHARE) is not None else {})
