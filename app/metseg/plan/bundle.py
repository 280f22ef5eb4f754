"""Bundles: a frozen ensemble on disk, `plan.yaml` beside one safetensors file per member.

A bundle holds no executable content: YAML is read with the safe loader, weights with safetensors.
"""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metseg.errors import UsageError, WeightsError
from metseg.plan.plan import MemberPlan, Plan, load_plan
from metseg.systems import DEFAULT_SYSTEM, System

PLAN_FILE: Final = "plan.yaml"
PLANS_FOLDER: Final = "plans"
DEFAULT_BUNDLE: Final = DEFAULT_SYSTEM.bundle
"""The bundled one that runs unless told otherwise."""

DEFAULT_FILE: Final = "DEFAULT"
"""Beside the bundles: the name of another default, for an image of one's own. A file stays where callers clear the
environment."""

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


def bundle_for(system: System) -> Path:
    """The folder of the bundle that runs a system's cases where nobody names one: the default, if it is of that system.

    Raises:
        WeightsError: the default is no bundle.
        UsageError: its plan breaks the schema.
    """
    default = bundle_folder()
    is_its_own = open_bundle(default).plan.system.name == system.name
    return default if is_its_own else bundles_root() / system.bundle


def bundles_root() -> Path:
    """The folder of the bundled weights: `/opt/metseg/weights` in the image, `weights/` in a checkout."""
    image = Path("/opt/metseg/weights")
    checkout = Path(__file__).resolve().parents[3] / "weights"
    return image if image.is_dir() else checkout


def open_bundle(folder: Path, plan: str | None = None) -> Bundle:
    """Reads a bundle's plan; the weights are read by `metseg.predict.weights`.

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


def list_plans(folder: Path) -> tuple[str, ...]:
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
        f"plan {plan!r}: neither a file nor a plan of {folder}; it has {', '.join(list_plans(folder)) or 'no other'}",
        hint="Name one of these, or the path of a YAML file.",
    )


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


def describe_member(member: MemberPlan) -> dict[str, str]:
    """What a member's weights say about themselves and what loading compares."""
    described = {
        "format": "metseg-member-1",
        "channels": ",".join(member.channels),
        "regions": ",".join(member.regions),
        "network": json.dumps(member.network.model_dump(mode="json"), sort_keys=True),
    }
    return described | ({"optional": ",".join(member.optional)} if member.optional else {})
