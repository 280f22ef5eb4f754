"""How the cost grows with the grid, the members, the passes, the cases and the ranks, as ratios of one run.

    python -m benchmarks.scale [--weights weights/mets] [--plan fast] [--device cpu|cuda|auto]
        [--parts grids members passes cases ranks estimate] [--grids 96x96x96x1 240x240x155x1 ...] [--small 96x96x96x1]
        [--cases 1 2 4 8] [--ranks 1 2 4] [--of-cases 8] [--challenge 240x240x155x1]

Images are noise in an ellipsoid as large as an adult brain, cut by the grid (benchmarks.memory). Grids, members and
passes are measured in this process, each by the second of two runs. Cases and ranks are measured by `metseg infer` on
the small grid, start-up included. The ranks of torchrun share the cores of this machine. `estimate` multiplies the
seconds per case by 10,000, and says in how many hours how many jobs of scripts/infer.sbatch finish that.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.memory import GRIDS, make_case, parse_grid
from benchmarks.stage_clock import StageClock
from metseg.files.discovery import discover_cases
from metseg.files.write import write_label_map
from metseg.plan.bundle import bundle_folder, open_bundle
from metseg.plan.plan import TtaPlan
from metseg.predict.device import choose_device
from metseg.predict.engine import Engine, load_engine
from metseg.predict.passes import count_passes
from metseg.run.pipeline import segment

PARTS = ("grids", "members", "passes", "cases", "ranks", "estimate")
COHORT = 10_000
JOBS = (8, 32, 128)


@dataclass(slots=True)
class Measured:
    """What the estimate is made of.

    Attributes:
        case_s: seconds of a case on the challenge's grid.
        start_s: seconds of a run that do not depend on the number of cases.
    """

    case_s: float | None = None
    start_s: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=bundle_folder())
    parser.add_argument("--plan", default="fast")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--grids", nargs="+", default=GRIDS)
    parser.add_argument("--small", default=GRIDS[0])
    parser.add_argument("--challenge", default=GRIDS[1])
    parser.add_argument("--cases", type=int, nargs="+", default=(1, 2, 4, 8))
    parser.add_argument("--ranks", type=int, nargs="+", default=(1, 2, 4))
    parser.add_argument("--of-cases", type=int, default=8)
    arguments = parser.parse_args()
    engine = load_engine(open_bundle(arguments.weights, arguments.plan), choose_device(arguments.device))
    device = engine.device
    print(f"{arguments.weights}, plan {engine.plan.name}; {device.description}, networks in {device.precision}")
    measured = Measured()
    if "grids" in arguments.parts:
        print_grids(arguments.grids, engine, measured, arguments.challenge)
    if "members" in arguments.parts:
        print_engines("members", arguments.small, with_members(engine))
    if "passes" in arguments.parts:
        print_engines("passes", arguments.small, with_passes(engine))
    if "cases" in arguments.parts:
        print_cases(arguments, measured)
    if "ranks" in arguments.parts:
        print_ranks(arguments)
    if "estimate" in arguments.parts:
        print_estimate(measured, device.threads)


# ---- in this process


def timed_case(folder: Path, engine: Engine) -> dict[str, float]:
    """Seconds by stage of the second of two runs of the folder's one case."""
    (files,) = discover_cases(folder)
    for _ in range(2):
        clock = StageClock()
        segmented = segment(files, engine, run=clock.run)
        target = folder.parents[1] / "labels.nii.gz"
        clock.run("write", write_label_map, target, segmented.labels, segmented.header)
    voxels = float(np.prod(segmented.decision.predictions.layout.shape))
    return {**clock.stages, "voxels": voxels}


@contextmanager
def case_on(grid: str, count: int = 1) -> Iterator[Path]:
    """A folder of cases of noise on a grid."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(count):
            make_case(folder / "data", f"c{number:03d}", parse_grid(grid))
        yield folder


def print_grids(grids: Iterable[str], engine: Engine, measured: Measured, challenge: str) -> None:
    print("\ngrids, one case each")
    print(
        f"{'':34}{'voxels':>8}{'region':>8}{'case s':>9}{'times':>7}{'read':>8}{'prepare':>8}{'predict':>9}{'rest':>7}"
    )
    first: tuple[float, float, float] | None = None
    for text in grids:
        with case_on(text) as folder:
            found = timed_case(folder / "data" / "c000", engine)
        voxels, region = float(np.prod(parse_grid(text).shape)), found.pop("voxels")
        case_s = sum(found.values())
        if text == challenge:
            measured.case_s = case_s
        first = first or (voxels, region, case_s)
        rest = case_s - found["read"] - found["prepare"] - found["predict"]
        print(
            f"{text:34}{voxels / first[0]:8.2f}{region / first[1]:8.2f}{case_s:9.2f}{case_s / first[2]:7.2f}"
            f"{found['read']:8.2f}{found['prepare']:8.2f}{found['predict']:9.2f}{rest:7.2f}",
            flush=True,
        )
    print("voxels: of the grid; region: that the windows cover, on the network's grid; both times the first row's")


def with_members(engine: Engine) -> Iterator[tuple[int, Engine]]:
    for count in range(1, len(engine.members) + 1):
        yield count, replace(engine, members=engine.members[:count])


def with_passes(engine: Engine) -> Iterator[tuple[int, Engine]]:
    for variant in ("none", "flips", "aurora"):
        plan = engine.plan.model_copy(update={"tta": TtaPlan(variant=variant)})
        yield count_passes(plan.tta), replace(engine, plan=plan)


def print_engines(what: str, grid: str, engines: Iterator[tuple[int, Engine]]) -> None:
    print(f"\n{what}, {grid}")
    print(f"{what:>8}{'predict s':>11}{'times':>7}")
    first = 0.0
    with case_on(grid) as folder:
        for count, engine in engines:
            seconds = timed_case(folder / "data" / "c000", engine)["predict"]
            first = first or seconds
            print(f"{count:8d}{seconds:11.3f}{seconds / first:7.2f}", flush=True)


# ---- by the command


def infer(folder: Path, arguments: argparse.Namespace, ranks: int | None = None) -> float:
    """Wall seconds of `metseg infer` over a folder, alone or as so many ranks of torchrun."""
    command = [sys.executable, "-m", "metseg"]
    environment = dict(os.environ)
    if ranks is not None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command += ["-m", "metseg"]
        environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    with tempfile.TemporaryDirectory() as output:
        command += [
            "infer",
            f"--device={arguments.device}",
            f"--data-path={folder / 'data'}",
            f"--output-path={output}",
        ]
        command += [f"--weights={arguments.weights}", f"--plan={arguments.plan}"]
        start = time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        elapsed_s = time.perf_counter() - start
        written = len(list(Path(output).iterdir()))
    expected = len(list((folder / "data").iterdir()))
    if written != expected:
        raise SystemExit(f"{written} label maps of {expected}")
    return elapsed_s


def print_cases(arguments: argparse.Namespace, measured: Measured) -> None:
    print(f"\ncases, {arguments.small}, `metseg infer`")
    print(f"{'cases':>8}{'wall s':>9}{'times':>7}{'s per case':>12}")
    seconds = []
    for count in arguments.cases:
        with case_on(arguments.small, count) as folder:
            seconds.append(infer(folder, arguments))
        print(f"{count:8d}{seconds[-1]:9.2f}{seconds[-1] / seconds[0]:7.2f}{seconds[-1] / count:12.2f}", flush=True)
    if len(seconds) > 1:
        slope, start = np.polyfit(arguments.cases, seconds, 1)
        measured.start_s = max(float(start), 0.0)
        print(f"a straight line: {start:.2f} s to start, {slope:.2f} s per case")


def print_ranks(arguments: argparse.Namespace) -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"\nranks of torchrun, {arguments.of_cases} cases of {arguments.small}, {cores} cores divided among them")
    print(f"{'ranks':>8}{'wall s':>9}{'faster':>8}")
    first = 0.0
    with case_on(arguments.small, arguments.of_cases) as folder:
        for ranks in arguments.ranks:
            seconds = infer(folder, arguments, ranks)
            first = first or seconds
            print(f"{ranks:8d}{seconds:9.2f}{first / seconds:8.2f}", flush=True)


def print_estimate(measured: Measured, threads: int) -> None:
    if measured.case_s is None or measured.start_s is None:
        print("\nno estimate: it needs the parts grids, with --challenge among --grids, and cases")
        return
    print(
        f"\n{COHORT} cases at {measured.case_s:.1f} s on {threads} cores and {measured.start_s:.1f} s a start: "
        f"{COHORT * measured.case_s * threads / 3600:.0f} core hours"
    )
    print(f"{'jobs':>8}{'cores':>8}{'hours':>8}")
    for jobs in JOBS:
        hours = (-(-COHORT // jobs) * measured.case_s + measured.start_s) / 3600
        print(f"{jobs:8d}{jobs * threads:8d}{hours:8.1f}")


if __name__ == "__main__":
    main()
