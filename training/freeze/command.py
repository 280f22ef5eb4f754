"""`python -m training freeze`: from finished runs to a bundle that `metseg infer` runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from metseg.errors import UsageError
from metseg.plan.bundle import PLAN_FILE
from metseg.plan.document import YamlFileError, read_yaml
from training.freeze.freeze import FreezeOptions, freeze_bundle
from training.freeze.member import CheckpointName


def freeze(
    runs: Annotated[list[Path], typer.Argument(help="Run folders or weights files of a bundle, one member each.")],
    *,
    output: Annotated[Path, typer.Option(help="The bundle's folder, such as weights/NAME.")],
    name: Annotated[str | None, typer.Option(help="The bundle's name; default the folder's.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="YAML with plan keys that differ from the paper's; members are compared.")
    ] = None,
    variant: Annotated[
        list[Path] | None, typer.Option(help="YAML with keys on top of --plan: a named plan, called as the file.")
    ] = None,
    small_lesions: Annotated[
        Path | None,
        typer.Option(
            help="Run or weights file of a small-lesion model, for plans that name it in fusion.added_by_maximum; "
            "if the bundle's own doesn't, for a plan small_lesions, too."
        ),
    ] = None,
    checkpoint: Annotated[CheckpointName, typer.Option(help="Which of a run's checkpoints.")] = "best",
    half: Annotated[bool, typer.Option(help="Store the weights in half precision.")] = False,
    provenance: Annotated[str, typer.Option(help="Where the training data came from, for the metadata.")] = "",
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared volumes, for the comparison; default the runs' own.")
    ] = None,
) -> None:
    """Freezes trained members into a bundle and checks that the frozen networks give the trained ones' logits."""
    options = FreezeOptions(
        name=name or output.resolve().name,
        plan=_read_keys(plan) if plan else {},
        variants={path.stem: _read_keys(path) for path in variant or ()},
        small_lesions=small_lesions,
        checkpoint=checkpoint,
        half=half,
        provenance=provenance,
        cache=cache,
    )
    bundle = freeze_bundle(runs, output, options)
    for member in bundle.members:
        typer.echo(f"{member.name}: {output / member.weights} sha256 {member.sha256}")
    typer.echo(f"{output / PLAN_FILE}: plan sha256 {bundle.sha256}")


def _read_keys(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path)
    except YamlFileError as error:
        raise UsageError(f"plan keys {path}: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"plan keys {path}: expected a YAML mapping, found {type(content).__name__}")
    return content
