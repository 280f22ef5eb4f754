"""Bundles: a frozen ensemble on disk, `plan.yaml` beside one safetensors file per member.

A bundle holds no executable content: YAML is read with the safe loader, weights with safetensors. Every file is hashed
before it is used, and a member is loaded whole or not at all.
"""

import hashlib
import json
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from metseg.errors import UsageError, WeightsError
from metseg.plan.plan import MemberPlan, Plan, load_plan

if TYPE_CHECKING:
    from torch import nn

PLAN_FILE: Final = "plan.yaml"
PLANS_FOLDER: Final = "plans"
DEFAULT_BUNDLE: Final = "mets"
"""The bundled one that runs unless told otherwise."""

DEFAULT_FILE: Final = "DEFAULT"
"""Beside the bundles: the name of another default, for an image of one's own. A file stays where callers clear the
environment."""

MAX_WEIGHTS_BYTES: Final = 2 * 2**30
"""A larger member is refused before it is read; the paper's take 19 MB."""

SHOWN_METADATA: Final = 400
"""Characters of a metadata value in a message."""

MAX_HEADER_BYTES: Final = 16 * 2**20
"""A safetensors header longer than this is refused before it is read; real ones take some kilobytes."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A frozen ensemble and the plan to run it with.

    Attributes:
        folder: where the weights lie.
        plan: the plan chosen: `plan.yaml`, a named one of `plans/`, or a file of the user's.
    """

    folder: Path
    plan: Plan


def bundle_folder(named: str | Path | None = None, *, base: Path | None = None) -> Path:
    """A bundle's folder as a user names it: a path, or the bare name of a bundled one, `srs-demo`.

    Args:
        named: a folder that is there wins over a name; None for METSEG_WEIGHTS, else the name in DEFAULT_FILE, else
            the default bundle.
        base: what a relative path counts from; None for the working directory.
    """
    named = named or os.environ.get("METSEG_WEIGHTS")
    if not named:
        file = bundles_root() / DEFAULT_FILE
        name = file.read_text(encoding="utf-8").strip() if file.is_file() else DEFAULT_BUNDLE
        return bundles_root() / name
    folder = (base or Path()) / named
    bundled = bundles_root() / named
    is_name = Path(named).name == str(named)
    return bundled if is_name and not folder.is_dir() and bundled.is_dir() else folder


def bundles_root() -> Path:
    """The folder of the bundled weights: `/opt/metseg/weights` in the image, `weights/` in a checkout."""
    image = Path("/opt/metseg/weights")
    checkout = Path(__file__).resolve().parents[3] / "weights"
    return image if image.is_dir() else checkout


def open_bundle(folder: Path, plan: str | None = None) -> Bundle:
    """Reads a bundle's plan; the weights are read by `load_member`.

    Args:
        folder: holds `plan.yaml` and the members' weights.
        plan: None for `plan.yaml`, the name of a file in `plans/` without `.yaml`, or the path of a YAML file.

    Raises:
        WeightsError: `folder` is no bundle.
        UsageError: there is no such plan, or it breaks the schema.
    """
    default = folder / PLAN_FILE
    if not default.is_file():
        raise WeightsError(
            f"weights {folder}: no {PLAN_FILE} found there",
            hint=f"Name a bundle's folder, or one that is bundled: {', '.join(bundled_names()) or 'none is'}.",
        )
    return Bundle(folder=folder, plan=load_plan(_plan_path(folder, plan)))


def bundled_names() -> tuple[str, ...]:
    """Names of the bundles that come with the program, sorted."""
    return tuple(sorted(path.parent.name for path in bundles_root().glob(f"*/{PLAN_FILE}")))


def plan_names(folder: Path) -> tuple[str, ...]:
    """Names of the bundle's plans beside its default, sorted."""
    return tuple(sorted(path.stem for path in (folder / PLANS_FOLDER).glob("*.yaml")))


def _plan_path(folder: Path, plan: str | None) -> Path:
    default = folder / PLAN_FILE
    if plan is None:
        return default
    named = folder / PLANS_FOLDER / f"{plan}.yaml"
    if Path(plan).name == plan and named.is_file():
        return named
    if Path(plan).is_file():
        return Path(plan)
    if load_plan(default).name == plan:
        return default
    raise UsageError(
        f"plan {plan!r}: neither a file nor a plan of {folder}; it has {', '.join(plan_names(folder)) or 'no other'}",
        hint="Name one of these, or the path of a YAML file.",
    )


def verify_weights(folder: Path, member: MemberPlan) -> bytes:
    """Reads a member's weights file and compares its hash.

    Returns:
        The file's bytes, so that what was hashed is what is loaded.

    Raises:
        WeightsError: missing, unreadable, or altered.
    """
    path = folder / member.weights
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_WEIGHTS_BYTES:  # a pipe would wait for ever
            kind = f"{status.st_size} bytes long" if stat.S_ISREG(status.st_mode) else "no regular file"
            raise WeightsError(
                f"weights {path}: {kind}, expected a file of at most {MAX_WEIGHTS_BYTES} bytes",
                hint="The bundle is damaged: copy it again.",
            )
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"weights {path}: can't be read: {error.strerror}", hint="The bundle is incomplete: copy it again."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != member.sha256:
        raise WeightsError(
            f"weights {path}: SHA-256 is {found}, the plan expects {member.sha256}",
            hint="The file was altered or belongs to another plan: copy the bundle again.",
        )
    return content


def read_metadata(content: bytes, path: Path) -> Mapping[str, str]:
    """The metadata that `freeze` wrote into a safetensors file.

    Raises:
        WeightsError: the header is not a safetensors one.
    """
    try:
        length = min(struct.unpack_from("<Q", content)[0], MAX_HEADER_BYTES)
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except (struct.error, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"weights {path}: not a safetensors file: {error}") from error


def metadata_of(member: MemberPlan) -> dict[str, str]:
    """What a member's weights say about themselves and what loading compares: channels, regions, architecture."""
    return {
        "format": "metseg-member-1",
        "channels": ",".join(member.channels),
        "regions": ",".join(member.regions),
        "network": json.dumps(member.network.model_dump(mode="json"), sort_keys=True),
    }


def load_member(folder: Path, member: MemberPlan) -> "nn.Module":
    """Builds a member's network and loads its weights, strictly.

    Returns:
        The network in eval mode, float32, on the CPU, without gradients.

    Raises:
        WeightsError: hash, metadata, keys, shapes or values don't fit the plan.
    """
    import torch  # noqa: PLC0415 - heavy
    from safetensors.torch import load  # noqa: PLC0415

    path = folder / member.weights
    content = verify_weights(folder, member)
    found = read_metadata(content, path)
    for key, expected in metadata_of(member).items():
        if found.get(key) != expected:
            stated = found.get(key, "not stated")[:SHOWN_METADATA]
            raise WeightsError(
                f"weights {path}: {key} is {stated}, the plan expects {expected}",
                hint="The plan and the weights come from different runs: freeze them together.",
            )
    try:
        state = load(content)
    except (
        Exception
    ) as error:  # the parser's own error, and whatever torch says to a shape or type that it doesn't know
        raise WeightsError(f"weights {path}: not a safetensors file: {str(error)[:SHOWN_METADATA]}") from error
    network = _build_without_memory(member, path)
    expected_shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found_shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected_shapes != found_shapes:
        differing = sorted(set(expected_shapes.items()) ^ set(found_shapes.items()))
        name, _ = differing[0]
        raise WeightsError(
            f"weights {path}: {len({key for key, _ in differing})} tensors don't fit the network, first {name}: "
            f"found {found_shapes.get(name, 'none')}, expected {expected_shapes.get(name, 'none')}",
            hint="The plan's network section must be the one that the weights were trained with.",
        )
    if not all(tensor.is_floating_point() for tensor in state.values()):
        raise WeightsError(f"weights {path}: hold tensors that are not floating-point", hint="Freeze again.")
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    state = {name: tensor.to(types[name]) for name, tensor in state.items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise WeightsError(f"weights {path}: hold values that are not finite", hint="Train or freeze again.")
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def _build_without_memory(member: MemberPlan, path: Path) -> "nn.Module":
    """The member's network on no device: a plan may ask for any size, memory is for what the file really holds."""
    import torch  # noqa: PLC0415 - heavy

    from metseg.network import build_network  # noqa: PLC0415

    try:
        with torch.device("meta"):
            return build_network(member.network, in_channels=len(member.channels), out_channels=len(member.regions))
    except (ValueError, RuntimeError, TypeError, ArithmeticError, LookupError) as error:
        raise WeightsError(
            f"weights {path}: the plan's network can't be built: {str(error)[:SHOWN_METADATA]}",
            hint="The plan's network section must be the one that the weights were trained with.",
        ) from error
