"""Seconds of one full-size case through the radiosurgery system's small networks, stage by stage.

    PYTHONPATH=. python -P benchmarks/radiosurgery.py [--threads 2] [--bundle weights/srs-demo]

(-P, because benchmarks/training.py would otherwise be taken for the package `training`.)

Without a bundle the networks are untrained, which takes as long: nothing in them depends on their weights but the
size of what is found.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

import torch
import yaml
from safetensors.torch import save

from metseg.files.discovery import discover_cases
from metseg.network import build_network
from metseg.plan.bundle import metadata_of, open_bundle
from metseg.plan.plan import MemberPlan, Plan
from metseg.predict.device import choose_device
from metseg.predict.ensemble import load_ensemble
from metseg.run.pipeline import load_case, segment_case
from metseg.systems import MODALITIES
from training.cohort.radiosurgery_case import generate_radiosurgery_case
from training.cohort.settings import load_settings
from training.cohort.writing import write_radiosurgery_case
from training.recipe import load_recipe

LIMIT_S = 300


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bundle", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = generate_radiosurgery_case(load_settings(system="radiosurgery"), 5, 0)
        write_radiosurgery_case(case, folder / "cases")
        bundle = open_bundle(arguments.bundle or write_untrained(folder / "bundle"))
        device = choose_device("cpu")
        torch.set_num_threads(arguments.threads)
        ensemble = load_ensemble(bundle, device)
        (files,) = discover_cases(folder / "cases", modalities=(*MODALITIES, "ct"))
        loaded = load_case(files, ensemble)
        segment_case(loaded.prepared, ensemble, loaded.watch)
        box = [side.stop - side.start for side in loaded.prepared.brain]
    print(f"{device.description}; {arguments.threads} threads; brain's box of {' x '.join(map(str, box))} voxels")
    for stage, seconds in loaded.watch.seconds.items():
        print(f"{stage:12} {seconds:7.1f} s")
    total = sum(loaded.watch.seconds.values())
    print(f"{'all':12} {total:7.1f} s, {total / LIMIT_S:.0%} of {LIMIT_S} s")


def write_untrained(folder: Path) -> Path:
    """A bundle of the small networks with random weights."""
    folder.mkdir(parents=True)
    keys = yaml.safe_load((Path(__file__).parents[1] / "training/plans/srs.yaml").read_text(encoding="utf-8"))
    members = []
    for name in ("unet_small", "deepmedic_small"):
        recipe = load_recipe(name)
        network = build_network(recipe.network, in_channels=2, out_channels=1)
        state = {key: tensor.float() for key, tensor in network.state_dict().items()}
        member = MemberPlan(
            name=name,
            weights=f"{name}.safetensors",
            sha256="0" * 64,
            channels=recipe.data.channels,
            regions=recipe.regions,
            network=recipe.network,
        )
        content = save(state, metadata_of(member))
        (folder / member.weights).write_bytes(content)
        members.append(member.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()}))
    data = load_recipe("unet_small").data
    sections = {key: getattr(data, key) for key in ("spacing_mm", "frame", "intensity", "registration")}
    plan = Plan.model_validate({"name": "untrained", **keys, **sections, "members": members})
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan.model_dump(mode="json")), encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
