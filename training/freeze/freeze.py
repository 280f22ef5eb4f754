"""From finished runs to a bundle that `metseg infer` runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from metseg.errors import UsageError
from metseg.files.atomic import write_atomically
from metseg.plan.bundle import PLAN_FILE, PLANS_FOLDER
from metseg.plan.plan import MemberPlan, Plan, WindowPlan
from training.data.cache import SHARE_DECIMALS
from training.freeze.member import BRAIN_SHARE, CheckpointName, FrozenFrom, freeze_member
from training.recipe import Recipe, load_recipe, merge_keys
from training.runs.files import RECIPE_FILE, RUN_FILE, SPLIT_FILE
from training.runs.members import read_member_recipe

SMALL_LESIONS_PLAN = "small_lesions"
"""Name of the plan that adds the small-lesion model (`metseg infer --plan small_lesions`)."""

SECTIONS = ("intensity", "window", "tta", "fusion", "postprocess")
"""Plan keys that are sections of their own."""


@dataclass(frozen=True, slots=True)
class FreezeOptions:
    """What a bundle holds besides its members.

    Attributes:
        name: of the bundle.
        plan: plan keys that differ from the defaults. Its `members`, where given, are what each member must be
            (`name`, `channels`, `regions`, `network`, any of them), in order; or the names of those that vote in it.
        variants: further plans by name: keys on top of `plan`'s; `members` names those that vote in the variant.
        small_lesions: run of a small-lesion model, for the plans whose `fusion.added_by_maximum` names it; where the
            default does not, there is a plan `small_lesions` that does. It keeps the windows of its recipe's validation
            where they are of another size than the plan's.
        checkpoint: `best` by validation (`last` where a run has no validation), or `last`.
        half: weights in float16 on disk; float32 again when loaded.
        provenance: where the training data came from.
        cache: folder of prepared volumes; None is the one that each run names.
    """

    name: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    small_lesions: Path | None = None
    checkpoint: CheckpointName = "best"
    half: bool = False
    provenance: str = ""
    cache: Path | None = None


def freeze_bundle(runs: Sequence[Path], output: Path, options: FreezeOptions) -> Plan:
    """Writes a bundle: each member's weights without the VAE branch, plan.yaml, and the named plans.

    Args:
        runs: finished runs, in the ensemble's order; or weights files of a bundle, which are taken over as they are.
        output: made where it is missing; nothing is written before every plan is valid.
        options: see there.

    Returns:
        The bundle's default plan.

    Raises:
        UsageError: a folder is no run, two have one name, or the members disagree with the plan or with each other.
        WeightsError: a frozen network's logits are not bitwise those of the trained one.
    """
    keys = dict(options.plan)
    for plan_name, own in ((options.name, keys), *options.variants.items()):
        _require_sections(plan_name, own)
    stated = keys.get("members") or ()
    names_voters = bool(stated) and all(isinstance(item, str) for item in stated)
    expected = None if names_voters else keys.pop("members", None)
    small = options.small_lesions
    every_run = (*runs, *([small] if small else []))
    recipes = {run: _read_recipe(run) for run in every_run}
    _require_different_names(every_run, recipes)
    _require_expected([recipes[run] for run in runs], expected)
    keys |= _shared_keys(tuple(recipes.values()), keys)
    sources = FrozenFrom(options.checkpoint, options.half, options.provenance, options.cache)
    frozen = {run: freeze_member(run, recipe, sources) for run, recipe in recipes.items()}
    shares = [item.brain_share for item in frozen.values() if item.brain_share is not None]
    if shares:
        keys.setdefault(BRAIN_SHARE, round(fmean(shares), SHARE_DECIMALS))
    members = [_with_own_grid(frozen[run].plan, recipes[run], keys) for run in runs]
    variants = dict(options.variants)
    added: MemberPlan | None = None
    if small is not None:
        added = _with_own_window(_with_own_grid(frozen[small].plan, recipes[small], keys), recipes[small], keys)
        if added.name not in _added_by(keys):
            variants[SMALL_LESIONS_PLAN] = {"fusion": {"added_by_maximum": [added.name]}}
    default = _make_plan({"name": options.name, **keys}, members, added)
    plans = {
        variant: _make_plan({"name": variant, **merge_keys(keys, extra)}, members, added)
        for variant, extra in variants.items()
    }
    output.mkdir(parents=True, exist_ok=True)
    for item in frozen.values():
        write_atomically(output / item.plan.weights, item.content)
    for variant, plan in plans.items():
        (output / PLANS_FOLDER).mkdir(exist_ok=True)
        _write_plan(output / PLANS_FOLDER / f"{variant}.yaml", plan)
    _write_plan(output / PLAN_FILE, default)
    return default


def _read_recipe(run: Path) -> Recipe:
    if run.is_file():
        return read_member_recipe(run)
    for file in (RECIPE_FILE, RUN_FILE, SPLIT_FILE):
        if not (run / file).is_file():
            raise UsageError(
                f"run {run}: no {file} in it", hint="Name the folders that `python -m training train` made."
            )
    return load_recipe(str(run / RECIPE_FILE))


def _require_sections(plan_name: str, keys: Mapping[str, Any]) -> None:
    for key in SECTIONS:
        if key in keys and not isinstance(keys[key], Mapping):
            raise UsageError(
                f"plan {plan_name}: {key} must be a section of keys, found {keys[key]!r:.200}",
                hint="docs/plans.md lists each section's keys; leave the section out for the defaults.",
            )
    if not isinstance(keys.get("members") or [], list | tuple):
        raise UsageError(
            f"plan {plan_name}: members must be a list, found {keys['members']!r:.200}",
            hint="Name the members that vote, or leave the key out for all of them.",
        )


def _require_different_names(runs: Sequence[Path], recipes: Mapping[Path, Recipe]) -> None:
    """A member's weights file is called as its recipe."""
    first: dict[str, Path] = {}
    for run in runs:
        name = recipes[run].name
        if name in first:
            raise UsageError(
                f"member {name}: expected one run of this name, found {first[name]} and {run}",
                hint="Name each run once; runs of one ensemble need recipes with different names.",
            )
        first[name] = run


def _require_expected(recipes: Sequence[Recipe], expected: Sequence[Mapping[str, Any]] | None) -> None:
    """Refuses runs that are not the members that the plan speaks of."""
    if expected is None:
        return
    if len(expected) != len(recipes):
        raise UsageError(f"the plan has {len(expected)} members, found {len(recipes)} runs")
    for recipe, wanted in zip(recipes, expected, strict=True):
        own_network = recipe.network.model_dump(mode="json")
        found = {"name": recipe.name, "channels": list(recipe.data.channels), "regions": list(recipe.regions.names)}
        for key in ("name", "channels", "regions"):
            if key in wanted and wanted[key] != found[key]:
                raise UsageError(
                    f"member {recipe.name}: {key} is {found[key]}, the plan expects {wanted[key]}",
                    hint="Name the runs in the plan's order, or train with the plan's channels.",
                )
        network = own_network | wanted.get("network", {})
        if json.dumps(network, sort_keys=True) != json.dumps(own_network, sort_keys=True):
            raise UsageError(f"member {recipe.name}: network is {own_network}, the plan expects {network}")


def _shared_keys(recipes: Sequence[Recipe], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Spacing and intensity as the members were trained; one plan prepares a case once for all of them.

    Raises:
        UsageError: the members differ in them, or the plan says otherwise; of the spacing it may.
    """
    shared = {}
    for key in ("spacing_mm", "intensity", "frame", "registration"):
        stated = {recipe.name: recipe.data.model_dump(mode="json").get(key) for recipe in recipes}
        # A member that reads no CT says nothing of its registration.
        found = {name: value for name, value in stated.items() if value is not None}
        if not found:
            continue
        first = next(iter(found.values()))
        if key == "spacing_mm" and key in keys:
            continue  # members of another one keep their own grid
        if any(value != first for value in found.values()):
            hint = "State the plan's own in --plan: the others keep theirs." if key == "spacing_mm" else ""
            raise UsageError(f"the members were trained with different data.{key}: {found}", hint=hint)
        if key in keys and _filled(keys[key], first) != first:
            raise UsageError(f"the plan's {key} is {keys[key]}, the members were trained with {first}")
        shared[key] = first
    return shared


def _filled(value: Any, default: Any) -> Any:
    return {**default, **value} if isinstance(value, Mapping) and isinstance(default, Mapping) else value


def _added_by(keys: Mapping[str, Any]) -> Sequence[str]:
    """Names of the members that a plan adds by maximum."""
    names = keys.get("fusion", {}).get("added_by_maximum")
    return names if isinstance(names, list | tuple) else ()


def _with_own_window(member: MemberPlan, recipe: Recipe, keys: Mapping[str, Any]) -> MemberPlan:
    """The member in the windows of its recipe's validation, where the plan's are of another size."""
    own = recipe.validation.window
    try:
        plans = WindowPlan.model_validate(keys.get("window", {}))
    except ValueError as error:
        raise UsageError(f"the plan's window can't be used: {error}") from error
    return member if own.size == plans.size else member.model_copy(update={"window": own})


def _with_own_grid(member: MemberPlan, recipe: Recipe, keys: Mapping[str, Any]) -> MemberPlan:
    """The member with its recipe's spacing and the windows of its validation, where the plan's spacing is another."""
    if keys["spacing_mm"] == recipe.data.model_dump(mode="json")["spacing_mm"]:
        return member
    return member.model_copy(update={"spacing_mm": recipe.data.spacing_mm, "window": recipe.validation.window})


def _make_plan(content: Mapping[str, Any], members: Sequence[MemberPlan], small: MemberPlan | None) -> Plan:
    """A plan of the `members` that it names, else of all, and of the small-lesion model where it names that."""
    named = content.get("members") or [member.name for member in members]
    unknown = sorted(set(map(str, named)) - {member.name for member in members})
    if unknown:
        raise UsageError(
            f"plan {content['name']}: members has {unknown}, which are none of the runs",
            hint=f"Name some of {[member.name for member in members]}.",
        )
    used = [member for member in members if member.name in named]
    if small is not None and small.name in _added_by(content):
        used.append(small)
    try:
        return Plan.model_validate({**content, "members": [member.model_dump(mode="json") for member in used]})
    except ValueError as error:
        raise UsageError(f"plan {content['name']}: these runs and keys don't make a plan: {error}") from error


def _write_plan(path: Path, plan: Plan) -> None:
    write_atomically(path, yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False).encode())
