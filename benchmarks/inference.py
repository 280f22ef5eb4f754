"""One case through metseg and through plain MONAI, with the same weights, passes, threads and torch, in one run.

    python benchmarks/inference.py --weights weights/mets CASE_FOLDER [CASE_FOLDER ...]
        [--tta none|flips|aurora] [--peers float32 bfloat16] [--members 3]

The peer is what a user of MONAI writes: `SlidingWindowInferer` over the full volume, one pass after the other, no brain
box, with the quicker of the batch sizes 1 and 2. A second peer has metseg's own precision. Each side runs in a process
of its own, so that peak memory is its own, and MONAI's with glibc as it is. Fusion and rules are the same functions on
both sides: the comparison is about the way through the networks. Prints, per case: seconds, ratio, share of time inside
the network, peak memory, and the Dice of both label maps per region; then the Dice pooled over all cases.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from reference_path import overlaps, plain_ensemble, pooled_dice, segment_plainly

from metseg.files.discovery import discover_cases
from metseg.labels import LabelMap
from metseg.plan.bundle import Bundle, open_bundle
from metseg.plan.plan import TtaPlan
from metseg.predict.device import choose_device
from metseg.predict.ensemble import Ensemble, load_ensemble

GIB = 2**30

GLIBC_AS_IT_IS = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}
"""Where somebody has chosen, `reuse_memory` does nothing; this choice is glibc's own, a MONAI user's.
"""


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
    segment: Callable[[Path, Ensemble], LabelMap] = run_metseg if ours else segment_plainly
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


def timed_networks(ensemble: Ensemble) -> tuple[Ensemble, list[float]]:
    """Lets every network note the seconds of each forward pass."""
    seconds: list[float] = []
    starts: list[float] = []
    for member in ensemble.members:
        member.network.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter()))
        member.network.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - starts[-1]))
    return ensemble, seconds


def run_metseg(folder: Path, ensemble: Ensemble) -> LabelMap:
    from metseg.run.pipeline import load_case, segment_case  # noqa: PLC0415
    from metseg.run.record import Stopwatch  # noqa: PLC0415

    (files,) = discover_cases(folder)
    loaded = load_case(files, ensemble)
    return segment_case(loaded.prepared, ensemble, Stopwatch()).network_labels


# ---- the comparison


def compare(case: Path, arguments: argparse.Namespace, scratch: Path) -> dict[str, LabelMap]:
    sides = {}
    for side in ("metseg", *arguments.peers):
        output = scratch / f"{case.name}-{side}.npy"
        command = [sys.executable, __file__, str(case), "--weights", str(arguments.weights), "--side", side]
        command += ["--output", str(output)]
        for option in ("plan", "tta", "members"):
            if getattr(arguments, option):
                command += [f"--{option}", str(getattr(arguments, option))]
        environment = os.environ | (GLIBC_AS_IT_IS if side != "metseg" else {})
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        sides[side] = json.loads(done.stdout.splitlines()[-1]) | {"labels": np.load(output)}
    ours = sides["metseg"]
    print(f"\n{case.name}: {lesion_count(ours['labels'])} lesions found by metseg")
    for side, facts in sides.items():
        name = "metseg" if side == "metseg" else f"MONAI {side}"
        shared = overlaps(ours["labels"], facts["labels"])
        agreement = " ".join(f"{region} {overlap.dice:.4f}" for region, overlap in shared.items())
        print(
            f"  {name:16s} {facts['elapsed_s']:8.1f} s  {facts['elapsed_s'] / ours['elapsed_s']:6.1f} x  network "
            f"{facts['network_s'] / facts['elapsed_s']:4.0%} ({facts['passes']} calls)  "
            f"peak {facts['peak_gib']:.2f} GiB  Dice to metseg: {agreement}",
            flush=True,
        )
    return {side: facts["labels"] for side, facts in sides.items()}


def lesion_count(labels: LabelMap) -> int:
    from metseg.space.components import find_components  # noqa: PLC0415

    return int(find_components(labels > 0).sizes.size)


def print_pooled(rows: list[dict[str, LabelMap]]) -> None:
    for peer in [side for side in rows[0] if side != "metseg"]:
        pooled = pooled_dice([overlaps(row["metseg"], row[peer]) for row in rows])
        agreement = " ".join(f"{region} {dice:.4f}" for region, dice in pooled.items())
        print(f"pooled over {len(rows)} cases, Dice of metseg and MONAI {peer}: {agreement}")


if __name__ == "__main__":
    main()
