"""What a GPU does with a batch: seconds per case, networks' share, memory under a limit, CUDA graphs, smaller steps.

    python -m benchmarks.gpu [--weights weights/mets] [--plan paper] [--filters 16] [--cases 20] [--gpu-gb 24]
        [--parts batch graphs grid fallback devices] [--grid 240x240x155x1] [--large 512x512x176x0.5x0.5x1]
        [--data FOLDER] [--device cuda|cpu]

Parts:

    batch     --cases cases through the program's own batch: wall seconds per case, the networks' share of them, peak
              memory of the GPU (torch may take no more of it than --gpu-gb) and of the process
    graphs    a member's windows, one and several at once: launched kernel by kernel, and replayed as a CUDA graph
    grid      one large case within 8 GB: its peak
    fallback  one case under ever less memory: the steps in the log, and whether the labels stay the same
    devices   the same cases on the GPU and on the CPU: Dice of the label maps (slow, only if asked for)

Cases are noise in an ellipsoid as large as an adult brain (benchmarks.memory), links to one, or those of --data.
With --filters the members are SegResNets of that width with random weights, whose time is real but whose labels are
not. `--device cpu` tries the script without a GPU, and leaves out what only a GPU has.
"""

import argparse
import logging
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.case_profile import waiting_for
from benchmarks.memory import GRIDS, make_case, parse_grid
from benchmarks.reference_path import overlaps, pooled_dice
from benchmarks.stage_clock import StageClock
from metseg.errors import DeviceError
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.labels import BRATS_REGIONS
from metseg.network import build_network
from metseg.plan.bundle import Bundle, bundle_folder, open_bundle
from metseg.plan.networks import SegResNetPlan
from metseg.plan.plan import MemberPlan
from metseg.predict.device import Device, choose_device
from metseg.predict.engine import Engine, load_engine, place_member
from metseg.predict.inputs import make_inputs
from metseg.prepare.prepare import prepare
from metseg.run.batch import Job, run_batch
from metseg.run.pipeline import read, segment

PARTS = ("batch", "graphs", "grid", "fallback", "devices")
LARGE_CASE_GB = 8.0
FALLBACK_GB = (8.0, 4.0, 2.0, 1.0, 0.5)
AT_ONCE = (1, 2, 4, 8)
REPEATS = 10
WARM_UPS = 3
GB = 1e9


def main() -> None:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.WARNING, format="    %(message)s", stream=sys.stdout)
    try:
        device = choose_device(arguments.device)
    except DeviceError as error:
        raise SystemExit(f"{error}. --device cpu tries the script out.") from error
    bundle = open_bundle(arguments.weights, arguments.plan)
    engine = engine_of(bundle, device, arguments.filters)
    print(f"{bundle.folder}, plan {bundle.plan.name}; {device.description}, networks in {device.precision}")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if "batch" in arguments.parts:
            print_batch(cases_of(arguments, scratch / "batch", arguments.cases), engine, arguments.gpu_gb, scratch)
        if "graphs" in arguments.parts:
            print_graphs(engine, cases_of(arguments, scratch / "graphs", 1)[0])
        if "grid" in arguments.parts:
            print_grid(arguments.large, engine, scratch / "grid")
        if "fallback" in arguments.parts:
            print_fallback(cases_of(arguments, scratch / "fallback", 1)[0], engine)
        if "devices" in arguments.parts:
            on_cpu = engine_of(bundle, choose_device("cpu"), arguments.filters)
            print_devices(cases_of(arguments, scratch / "devices", arguments.cases), engine, on_cpu)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=bundle_folder())
    parser.add_argument("--plan", default="paper")
    parser.add_argument("--filters", type=int, default=None)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--gpu-gb", type=float, default=24.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:4])
    parser.add_argument("--grid", default=GRIDS[1])
    parser.add_argument("--large", default=GRIDS[3])
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    return parser.parse_args()


def engine_of(bundle: Bundle, device: Device, filters: int | None) -> Engine:
    """The bundle's members, or random ones of a width of their own."""
    engine = load_engine(bundle, device)
    if filters is None:
        return engine
    members = []
    for member in engine.members:
        plan = with_filters(member.plan, filters)
        torch.manual_seed(0)
        network = build_network(plan.network, in_channels=len(plan.channels), out_channels=len(plan.regions)).eval()
        members.append(place_member(plan, network.state_dict(), device))
    return replace(engine, members=tuple(members))


def with_filters(member: MemberPlan, filters: int) -> MemberPlan:
    """A SegResNet of another width; other networks stay as they are."""
    if not isinstance(member.network, SegResNetPlan):
        return member
    return member.model_copy(update={"network": member.network.model_copy(update={"init_filters": filters})})


def cases_of(arguments: argparse.Namespace, folder: Path, count: int) -> tuple[CaseFiles, ...]:
    """The first so many of --data, or that many copies of one case of noise."""
    if arguments.data is not None:
        return discover_cases(arguments.data)[:count]
    make_case(folder, "c000", parse_grid(arguments.grid))
    for number in range(1, count):
        copy = folder / f"c{number:03d}"
        copy.mkdir()
        for path in (folder / "c000").iterdir():
            (copy / path.name.replace("c000", copy.name)).symlink_to(path)
    return discover_cases(folder)


# ---- the device's memory


@contextmanager
def at_most(gigabytes: float, device: Device) -> Iterator[Callable[[], float]]:
    """Lets torch take so much of the GPU and no more; gives a function that tells the peak so far, in GB."""
    if not device.is_cuda:
        yield lambda: math.nan
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device.name).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * GB / total), device.name)
    torch.cuda.reset_peak_memory_stats(device.name)
    try:
        yield lambda: torch.cuda.max_memory_reserved(device.name) / GB
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device.name)


# ---- parts


def print_batch(cases: tuple[CaseFiles, ...], engine: Engine, gpu_gb: float, scratch: Path) -> None:
    """The first case is run once beforehand: a batch of thousands has one such start."""
    run_batch(Job(cases[:1], scratch / "first"), engine)
    with at_most(gpu_gb, engine.device) as peak_gb:
        start = time.perf_counter()
        records = run_batch(Job(cases, scratch / "out"), engine)
        elapsed_s = time.perf_counter() - start
        used_gb = peak_gb()
    stages = {name: sum(record.stage_s.get(name, 0.0) for record in records) for name in records[0].stage_s}
    share = stages["predict"] / elapsed_s
    print(f"\nbatch of {len(cases)}: {elapsed_s / len(cases):.2f} s per case, networks {share:.1%}")
    print(f"  all cases together, some of it side by side: {stage_line(stages)}")
    host_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB
    print(f"  peak: GPU {used_gb:.2f} GB of {gpu_gb:g} allowed, process {host_gb:.2f} GB")


def print_graphs(engine: Engine, files: CaseFiles) -> None:
    plan = engine.plan
    inputs = make_inputs(prepare(read(files, plan), plan), plan)
    print(f"\nCUDA graphs: milliseconds a window, median of {REPEATS}")
    print(f"  {'member':24}{'window':>16}{'at once':>9}{'launched':>10}{'replayed':>10}{'times':>8}")
    for member in engine.members:
        window = inputs.layout_of_member(member.plan, plan).window
        for count in AT_ONCE:
            shape = (count, len(member.plan.channels), *window)
            batch = torch.rand(shape, device=engine.device.name).to(engine.device.dtype)
            batch = batch.contiguous(memory_format=torch.channels_last_3d)
            launched = milliseconds(lambda: member.network(batch), engine) / count  # noqa: B023
            replay = capture(member.network, batch) if engine.device.is_cuda else None
            replayed = milliseconds(replay, engine) / count if replay else math.nan
            place = f"  {member.plan.name:24}{'x'.join(map(str, window)):>16}{count:9d}"
            print(f"{place}{launched:10.2f}{replayed:10.2f}{launched / replayed:8.2f}", flush=True)


def capture(network: nn.Module, batch: Tensor) -> Callable[[], object]:
    """Records a network's kernels over this batch; the function launches them all at once."""
    stream = torch.cuda.Stream(batch.device)
    stream.wait_stream(torch.cuda.current_stream(batch.device))
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            network(batch)
    torch.cuda.current_stream(batch.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        network(batch)
    return graph.replay


def milliseconds(work: Callable[[], object], engine: Engine) -> float:
    wait, seconds = waiting_for(engine), []
    with torch.inference_mode():
        for _ in range(WARM_UPS + REPEATS):
            wait()
            start = time.perf_counter()
            work()
            wait()
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[WARM_UPS:])) * 1000


def print_grid(grid: str, engine: Engine, folder: Path) -> None:
    make_case(folder, "large", parse_grid(grid))
    (files,) = discover_cases(folder)
    with at_most(LARGE_CASE_GB, engine.device) as peak_gb:
        clock = StageClock()
        segment(files, engine, run=clock.run)
        print(f"\n{grid}: peak {peak_gb():.2f} GB of {LARGE_CASE_GB:g} allowed; {stage_line(clock.stages)}")


def print_fallback(files: CaseFiles, engine: Engine) -> None:
    plain = segment(files, engine).labels
    print("\nsmaller steps")
    for gigabytes in FALLBACK_GB:
        print(f"  {gigabytes:g} GB:", flush=True)
        with at_most(gigabytes, engine.device) as peak_gb:
            try:
                labels = segment(files, engine).labels
            except Exception as error:  # noqa: BLE001 - the last step's error is a result, too
                print(f"    ends: {error}")
                continue
            differing = int(np.count_nonzero(labels != plain))
            print(f"    peak {peak_gb():.2f} GB, {differing} of {labels.size} voxels differ from those without a limit")


def print_devices(cases: tuple[CaseFiles, ...], engine: Engine, on_cpu: Engine) -> None:
    print("\nGPU and CPU, Dice of the label maps")
    shared = []
    for files in cases:
        ours, theirs = segment(files, engine).labels, segment(files, on_cpu).labels
        shared.append(overlaps(theirs, ours))
        print(f"  {files.case_id}: " + ", ".join(f"{name} {item.dice:.4f}" for name, item in shared[-1].items()))
    pooled = pooled_dice(shared)
    print("  pooled: " + ", ".join(f"{name} {pooled[name]:.4f}" for name in BRATS_REGIONS.names))


def stage_line(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())


if __name__ == "__main__":
    main()
