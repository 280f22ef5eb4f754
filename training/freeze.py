"""`python -m training freeze`: from finished runs to a bundle that `metseg infer` runs."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml

from metseg.atomic import write_atomically
from metseg.bundle import PLAN_FILE, load_member, metadata_of
from metseg.errors import UsageError, WeightsError
from metseg.network.segresnet import VAE_PREFIX
from metseg.plan import MemberPlan, Plan
from training.command import git_revision
from training.recipe import Recipe, load_recipe

RUN_FILES = ("recipe.yaml", "run.json")


def freeze(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, one member each, in the ensemble's order.")],
    output: Annotated[Path, typer.Option(help="The bundle's folder, such as weights/NAME.")],
    name: Annotated[str | None, typer.Option(help="The bundle's name; default the folder's.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="YAML with plan keys (all but members) that differ from the paper's.")
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Which of a run's checkpoints.")] = "best",
    half: Annotated[bool, typer.Option(help="Store the weights in half precision.")] = False,  # noqa: FBT002
    provenance: Annotated[str, typer.Option(help="Where the training data came from, for the metadata.")] = "",
) -> None:
    """Freezes trained members into a bundle, proving that the frozen networks give the trained ones' logits."""
    bundle = freeze_bundle(
        runs,
        output,
        name=name or output.name,
        plan=_plan_keys(plan),
        checkpoint=checkpoint,
        half=half,
        provenance=provenance,
    )
    for member in bundle.members:
        typer.echo(f"{member.name}: {output / member.weights} sha256 {member.sha256}")
    typer.echo(f"{output / PLAN_FILE}: plan sha256 {bundle.sha256}")


def freeze_bundle(
    runs: Sequence[Path],
    output: Path,
    *,
    name: str,
    plan: dict[str, Any] | None = None,
    checkpoint: Literal["best", "last"] = "best",
    half: bool = False,
    provenance: str = "",
) -> Plan:
    """Writes a bundle.

    Args:
        runs: finished runs, in the ensemble's order.
        output: made where it is missing.
        name: of the bundle.
        plan: plan keys that differ from the defaults.
        checkpoint: `best` by validation (`last` where a run has no validation), or `last`.
        half: weights in float16 on disk; float32 again when loaded.
        provenance: where the training data came from.

    Raises:
        UsageError: a folder is no run, or the members don't make a plan.
        WeightsError: a frozen network's logits are not bitwise those of the trained one.
    """
    output.mkdir(parents=True, exist_ok=True)
    members = tuple(_freeze_member(run, output, checkpoint, half=half, provenance=provenance) for run in runs)
    content = {"name": name, **(plan or {}), "members": [member.model_dump(mode="json") for member in members]}
    try:
        frozen = Plan.model_validate(content)
    except ValueError as error:
        raise UsageError(f"bundle {name}: these runs and keys don't make a plan: {error}") from error
    write_atomically(output / PLAN_FILE, yaml.safe_dump(frozen.model_dump(mode="json"), sort_keys=False).encode())
    return frozen


def _freeze_member(run: Path, output: Path, checkpoint: str, *, half: bool, provenance: str) -> MemberPlan:
    import torch  # noqa: PLC0415 - heavy
    from safetensors.torch import save  # noqa: PLC0415

    from training.checkpoint import read_checkpoint, trained_weights  # noqa: PLC0415

    for file in RUN_FILES:
        if not (run / file).is_file():
            raise UsageError(
                f"run {run}: no {file} in it", hint="Name the folders that `python -m training train` made."
            )
    recipe = load_recipe(str(run / "recipe.yaml"))
    path = run / f"{checkpoint}.safetensors"
    path = path if path.is_file() else run / "last.safetensors"
    _, progress = read_checkpoint(path)
    if progress.recipe_sha256 != recipe.sha256:
        raise UsageError(f"run {run}: its checkpoint was trained with another recipe than its recipe.yaml")
    state = {key: tensor for key, tensor in trained_weights(path).items() if not key.startswith(VAE_PREFIX)}
    if half:
        state = {key: tensor.half() for key, tensor in state.items()}
    member = MemberPlan(
        name=recipe.name,
        weights=f"{recipe.name}.safetensors",
        sha256="0" * 64,
        channels=recipe.data.channels,
        network=recipe.network,
    )
    metadata = metadata_of(member) | _provenance_of(run, path, recipe, progress.step, provenance)
    content = save({key: tensor.contiguous() for key, tensor in state.items()}, metadata=metadata)
    member = member.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    write_atomically(output / member.weights, content)
    _prove_equal(load_member(output, member), path, recipe, torch.float16 if half else torch.float32)
    return member


def _provenance_of(run: Path, checkpoint: Path, recipe: Recipe, step: int, provenance: str) -> dict[str, str]:
    from training.monitor import read_metrics  # noqa: PLC0415

    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    validations = [line for line in read_metrics(run) if line["kind"] == "validation" and line["step"] <= step]
    return {
        "recipe": json.dumps(recipe.model_dump(mode="json"), sort_keys=True),
        "recipe_sha256": recipe.sha256,
        "checkpoint": checkpoint.name,
        "steps": str(step),
        "validation": json.dumps(validations[-1] if validations else {}, sort_keys=True),
        "training_revision": str(content.get("git_revision", "unknown")),
        "freezing_revision": git_revision(),
        "training_cases": json.dumps(content.get("cases", {}), sort_keys=True),
        "data_sha256": hashlib.sha256(json.dumps(content.get("entries", {}), sort_keys=True).encode()).hexdigest(),
        "provenance": provenance,
    }


def _prove_equal(frozen: Any, checkpoint: Path, recipe: Recipe, stored: Any) -> None:
    """Compares the frozen network with the trained one, VAE branch and all, on one window, bit by bit.

    Raises:
        WeightsError: they differ.
    """
    import torch  # noqa: PLC0415 - heavy

    from training.checkpoint import trained_weights  # noqa: PLC0415
    from training.network import TrainingNetwork  # noqa: PLC0415

    trained = TrainingNetwork(recipe)
    weights = trained_weights(checkpoint)
    trained.net.load_state_dict({key: tensor.to(stored).float() for key, tensor in weights.items()}, strict=True)
    trained.eval()
    window = torch.rand((1, len(recipe.data.channels), *recipe.crops.size), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        difference = (trained(window)[0] - frozen(window)).abs().max().item()
    if difference != 0:
        raise WeightsError(f"freezing {checkpoint}: the frozen logits differ from the trained ones by {difference:g}")


def _plan_keys(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "members" in content:
        raise UsageError(f"plan keys {path}: expected a YAML mapping without members")
    return content
