"""`metseg info`: what is installed and which bundle would run; needs no torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import metseg
from metseg.cli.infer import WeightsOption
from metseg.run.versions import package_versions, platform_name, python_version

if TYPE_CHECKING:
    from metseg.plan.plan import MemberPlan, Plan


def info(
    weights: WeightsOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> int:
    """Shows versions, the bundle, its plans and members."""
    facts = collect_facts(weights)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        typer.echo("\n".join(_format_facts(facts)))
    return 0


def collect_facts(weights: Path | None = None) -> dict[str, Any]:
    """Everything that `metseg info` shows, as plain JSON data.

    Raises:
        WeightsError: there is no bundle.
    """
    from metseg.plan.bundle import bundle_folder, list_plans, open_bundle  # noqa: PLC0415 - heavy

    bundle = open_bundle(bundle_folder(weights))
    plan = bundle.plan
    return {
        "metseg": metseg.__version__,
        "python": python_version(),
        "platform": platform_name(),
        "packages": dict(package_versions()),
        "bundle": {
            "folder": str(bundle.folder),
            "plan": plan.name,
            "plan_sha256": plan.sha256,
            "plans": [plan.name, *(name for name in list_plans(bundle.folder) if name != plan.name)],
            "required_modalities": sorted(plan.required_modalities),
            "modalities": sorted(plan.modalities),
            "members": [_describe_member(member, plan) for member in plan.members],
        },
    }


def _describe_member(member: "MemberPlan", plan: "Plan") -> dict[str, Any]:
    tiled = member.network.runs_in_tiles
    return {
        "name": member.name,
        "sha256": member.sha256,
        "channels": list(member.channels),
        "optional": list(member.optional),
        "window": None if tiled else plan.choose_window(member).model_dump(mode="json"),
        "spacing_mm": plan.choose_spacing(member),
        "fusion": "maximum" if member.name in plan.fusion.added_by_maximum else plan.fusion.method,
    }


def _describe_window(window: dict[str, Any] | None) -> str:
    if window is None:
        return "tiles"
    if window["extent"] == "whole":
        return "one window as large as the brain"
    return f"windows of {'x'.join(map(str, window['size']))}, overlap {window['overlap']:g}, {window['extent']}"


def _format_facts(facts: dict[str, Any]) -> list[str]:
    from metseg.findings import spacing_in_words  # noqa: PLC0415 - heavy
    from metseg.plan.plan import expand_sides  # noqa: PLC0415 - heavy

    bundle = facts["bundle"]
    lines = [f"metseg {facts['metseg']}, Python {facts['python']}, {facts['platform']}"]
    lines += [f"  {name} {found or 'not installed'}" for name, found in facts["packages"].items()]
    lines += [f"bundle {bundle['folder']}", f"  plans: {', '.join(bundle['plans'])} (the first is the default)"]
    lines += [f"  needs: {', '.join(bundle['required_modalities'])}; reads: {', '.join(bundle['modalities'])}"]
    lines += [
        f"  member {member['name']}: {', '.join(member['channels'])}; {_describe_window(member['window'])} "
        f"at {spacing_in_words(expand_sides(member['spacing_mm']))} mm; "
        f"fused by {member['fusion']}; SHA-256 {member['sha256'][:16]}..."
        for member in bundle["members"]
    ]
    return lines
