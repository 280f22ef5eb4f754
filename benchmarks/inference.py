"""One case through metseg and through plain MONAI, with the same weights, passes, threads and torch, in one run.

    python benchmarks/inference.py --weights weights/mets CASE_FOLDER [CASE_FOLDER ...]
        [--tta none|flips|aurora] [--peers float32 bfloat16] [--members 3]

The peer is what a user of MONAI writes: `SlidingWindowInferer` over the full volume, one pass after the other, no
brain box, with the quicker of the batch sizes 1 and 2. A second peer has metseg's own precision. Each side runs in a
process of its own, so that peak memory is its own. Fusion and rules are the same functions on both sides: the
comparison is about the way through the networks. Prints, per case: seconds, ratio, share of time inside the network,
peak memory, and the Dice of both label maps per region; then the Dice pooled over all cases.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metseg.bundle import Bundle, load_member, open_bundle
from metseg.device import Device, choose_device
from metseg.discovery import discover_cases
from metseg.ensemble import Ensemble, Member, load_ensemble
from metseg.labels import REGIONS, LabelMap, region_masks
from metseg.plan import TtaPlan

GIB = 2**30


def main() -> None:
    arguments = parse_arguments()
    if arguments.side:
        print(json.dumps(run_side(arguments)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        rows = [compare(case, arguments, Path(scratch)) for case in arguments.cases]
    print_pooled(rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("weights/mets"))
    parser.add_argument("--plan", default=None)
    parser.add_argument("--tta", choices=["none", "flips", "aurora"], default=None)
    parser.add_argument("--members", type=int, default=None, help="only the first so many, on both sides")
    parser.add_argument("--peers", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--side", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- one side, in a process of its own


def run_side(arguments: argparse.Namespace) -> dict[str, float]:
    precision = None if arguments.side == "metseg" else arguments.side
    device = choose_device("cpu", precision=precision)
    bundle = chosen_bundle(arguments)
    ours = arguments.side == "metseg"
    ensemble, network_s = timed_networks(load_ensemble(bundle, device) if ours else plain_ensemble(bundle, device))
    segment: Callable[[Path, Ensemble], LabelMap] = run_metseg if arguments.side == "metseg" else run_monai
    start = time.perf_counter()
    labels = segment(arguments.cases[0], ensemble)
    elapsed_s = time.perf_counter() - start
    np.save(arguments.output, labels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"elapsed_s": elapsed_s, "network_s": sum(network_s), "peak_gib": peak / GIB, "passes": len(network_s)}


def chosen_bundle(arguments: argparse.Namespace) -> Bundle:
    bundle = open_bundle(arguments.weights, arguments.plan)
    changes: dict[str, Any] = {}
    if arguments.tta:
        changes["tta"] = TtaPlan(variant=arguments.tta)
    if arguments.members:
        changes["members"] = bundle.plan.members[: arguments.members]
    return Bundle(bundle.folder, bundle.plan.model_copy(update=changes))


def plain_ensemble(bundle: Bundle, device: Device) -> Ensemble:
    """The same weights in networks as MONAI builds them, in float32 and torch's default layout."""
    members = tuple(Member(plan, load_member(bundle.folder, plan)) for plan in bundle.plan.members)
    return Ensemble(bundle.plan, members, device)


def timed_networks(ensemble: Ensemble) -> tuple[Ensemble, list[float]]:
    """Lets every network note the seconds of each forward pass."""
    seconds: list[float] = []
    starts: list[float] = []
    for member in ensemble.members:
        member.network.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter()))
        member.network.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - starts[-1]))
    return ensemble, seconds


def run_metseg(folder: Path, ensemble: Ensemble) -> LabelMap:
    from metseg.pipeline import load_case, segment_case  # noqa: PLC0415
    from metseg.records import Stopwatch  # noqa: PLC0415

    (files,) = discover_cases(folder)
    loaded = load_case(files, ensemble)
    return segment_case(loaded.prepared, ensemble, Stopwatch()).network_labels


def run_monai(folder: Path, ensemble: Ensemble) -> LabelMap:
    import torch  # noqa: PLC0415
    from monai.inferers import SlidingWindowInferer  # noqa: PLC0415
    from monai.transforms import LoadImage, Orientation  # noqa: PLC0415

    from metseg.fusion import fuse_labels, member_labels  # noqa: PLC0415
    from metseg.postprocess import postprocess  # noqa: PLC0415
    from metseg.preprocess import voxel_seed  # noqa: PLC0415
    from metseg.tta import flip, images_of_rounds  # noqa: PLC0415

    plan = ensemble.plan
    load, turn = LoadImage(image_only=True, ensure_channel_first=True), Orientation("RAS", labels=None)
    channels = {}
    for name in ("t1n", "t1c", "t2w", "t2f"):
        volume = np.asarray(turn(load(folder / f"{folder.name}-{name}.nii.gz"))[0], dtype=np.float32)
        lower, upper = np.percentile(volume, [plan.intensity.lower_percentile, plan.intensity.upper_percentile])
        channels[name] = np.clip((volume - lower) / (upper - lower), 0, 1).astype(np.float32)
    channels["sub"] = (channels["t1c"] - channels["t1n"]) ** 2
    seed = voxel_seed(channels, tuple(slice(None) for _ in range(3)))
    votes = []
    with torch.inference_mode():
        for member in ensemble.members:
            image = np.stack([channels[name] for name in member.plan.channels])
            network = as_peer(member.network, ensemble.device)
            best = best_batch(network, image, plan.window.size)
            infer = SlidingWindowInferer(
                plan.window.size, best, overlap=plan.window.overlap, mode="gaussian", padding_mode="replicate"
            )
            passes = [
                flip(infer(flip(torch.from_numpy(copy)[None], axes), network), axes)[0]
                for copy, flips in images_of_rounds(image, plan.tta, seed)
                for axes in flips
            ]
            votes.append(member_labels(torch.stack(passes).mean(0).sigmoid().numpy(), plan.threshold))
    return postprocess(fuse_labels(votes, plan.fusion), plan.postprocess)


def as_peer(network: Any, device: Device) -> Callable[[Any], Any]:
    """The network as a plain user runs it: autocast when the precision is not float32."""
    import torch  # noqa: PLC0415

    def run(batch: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=device.precision == "bfloat16"):
            return network(batch).float()

    return run


def best_batch(network: Callable[[Any], Any], image: np.ndarray, window: tuple[int, int, int]) -> int:
    """The quickest of a few batch sizes, per window; the search is not part of what is timed in the network."""
    import torch  # noqa: PLC0415

    place = tuple(slice(0, side) for side in window)
    seconds = {}
    for size in (1, 2):
        batch = torch.from_numpy(image[(slice(None), *place)].copy()).expand(size, -1, -1, -1, -1).contiguous()
        start = time.perf_counter()
        network(batch)
        seconds[size] = (time.perf_counter() - start) / size
    return min(seconds, key=lambda size: seconds[size])


# ---- the comparison


def compare(case: Path, arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    sides = {}
    for side in ("metseg", *arguments.peers):
        output = scratch / f"{case.name}-{side}.npy"
        command = [sys.executable, __file__, str(case), "--weights", str(arguments.weights), "--side", side]
        command += ["--output", str(output)]
        for option in ("plan", "tta", "members"):
            if getattr(arguments, option):
                command += [f"--{option}", str(getattr(arguments, option))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        sides[side] = json.loads(done.stdout.splitlines()[-1]) | {"labels": np.load(output)}
    ours = sides["metseg"]
    print(f"\n{case.name}: {lesion_count(ours['labels'])} lesions found by metseg")
    for side, facts in sides.items():
        name = "metseg" if side == "metseg" else f"MONAI {side}"
        agreement = " ".join(f"{region} {dice:.4f}" for region, dice in dices(ours["labels"], facts["labels"]).items())
        print(
            f"  {name:16s} {facts['elapsed_s']:8.1f} s  {facts['elapsed_s'] / ours['elapsed_s']:6.1f} x  network "
            f"{facts['network_s'] / facts['elapsed_s']:4.0%} ({facts['passes']} calls)  "
            f"peak {facts['peak_gib']:.2f} GiB  Dice to metseg: {agreement}",
            flush=True,
        )
    return {side: facts["labels"] for side, facts in sides.items()}


def lesion_count(labels: LabelMap) -> int:
    from metseg.components import find_components  # noqa: PLC0415

    return int(find_components(labels > 0).sizes.size)


def dices(one: LabelMap, other: LabelMap) -> dict[str, float]:
    overlaps = zip(REGIONS, region_masks(one), region_masks(other), strict=True)
    return {region: 2 * float((a & b).sum()) / max(float(a.sum() + b.sum()), 1.0) for region, a, b in overlaps}


def print_pooled(rows: list[dict[str, Any]]) -> None:
    for peer in [side for side in rows[0] if side != "metseg"]:
        ours = np.concatenate([row["metseg"].ravel() for row in rows])
        theirs = np.concatenate([row[peer].ravel() for row in rows])
        pooled = dices(ours, theirs)
        agreement = " ".join(f"{region} {dice:.4f}" for region, dice in pooled.items())
        print(f"pooled over {len(rows)} cases, Dice of metseg and MONAI {peer}: {agreement}")


if __name__ == "__main__":
    main()
