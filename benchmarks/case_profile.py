"""Seconds of one case by step and by kind of layer, beside what the machine could do at best.

    python -m benchmarks.case_profile CASE_FOLDER [--weights weights/mets] [--plan NAME] [--device auto|cpu|cuda]
        [--members N] [--matrix-side 2048] [--copy-mb 512] [--clock wall|processor]

Runs the case twice and prints of the second run:

    stages   seconds of each stage of `metseg.run.pipeline` and of writing, one after the other (in a batch, reading and
             writing run beside the networks), and their sum
    steps    the same seconds by what the stages are made of
    layers   the networks' seconds by kind of layer (on a CPU)
    bounds   the convolutions' multiply-adds over the measured rate of a large matrix product in the networks'
             precision, and the bytes that they read and write over the measured bandwidth of a copy

Wall seconds need a machine that runs nothing else. OMP_NUM_THREADS=1 and --clock processor give the seconds of one
thread, which hold beside other work. docs/performance.md explains the figures. To compare two revisions, run the script
of each from the root of its checkout, with PYTHONPATH=app:. in front and the same options.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

import metseg.decide.decision
import metseg.files.write
import metseg.predict.fallback
import metseg.predict.inputs
import metseg.predict.members
import metseg.predict.passes
import metseg.predict.sliding
import metseg.prepare.prepare
import metseg.prepare.radiosurgery
import metseg.run.pipeline
from benchmarks.graph_work import build_member_graph, count_work, profile_graph
from benchmarks.stage_clock import StageClock, cover
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.files.write import write_label_map
from metseg.network.deepmedic import MARGIN, PADDED_RIM
from metseg.plan.bundle import bundle_folder, open_bundle
from metseg.predict.device import choose_device
from metseg.predict.engine import Engine, Member, load_engine
from metseg.predict.graph_network import GraphNetwork
from metseg.predict.inputs import Inputs, make_inputs
from metseg.predict.passes import CaseNoise, count_passes
from metseg.predict.tiles import lay_tiles
from metseg.predict.windows import Layout
from metseg.prepare.prepare import prepare
from metseg.run.pipeline import read, segment
from metseg.systems import modalities_to_find

WINDOWS: Final = "windows: cut, weigh, stitch"

FUNCTIONS: Final[dict[tuple[Any, str], str]] = {
    (metseg.run.pipeline, "read_case"): "read: decompress, check",
    (metseg.prepare.prepare, "to_network"): "prepare: turn, resample",
    (metseg.prepare.radiosurgery, "to_network"): "prepare: turn, resample",
    (metseg.prepare.radiosurgery, "register"): "prepare: register the CT",
    (metseg.prepare.radiosurgery, "resample_rigid"): "prepare: move the CT",
    (metseg.prepare.prepare, "scale_intensities"): "prepare: percentiles, scale",
    (metseg.prepare.radiosurgery, "equalise"): "prepare: equalise the histogram",
    (metseg.prepare.radiosurgery, "window_hounsfield"): "prepare: window the CT",
    (metseg.prepare.radiosurgery, "standardise"): "prepare: standardise",
    (metseg.prepare.prepare, "subtract"): "prepare: subtraction",
    (metseg.prepare.prepare, "brain_box"): "prepare: the brain's box",
    (metseg.prepare.radiosurgery, "brain_box_of_ct"): "prepare: the brain's box",
    (metseg.prepare.radiosurgery, "head_box"): "prepare: the brain's box",
    (metseg.predict.inputs, "lay_windows"): "inputs: lay the windows",
    (metseg.predict.inputs, "voxel_seed"): "inputs: seed of the noise",
    (Layout, "cut"): "inputs: cut the brain out",
    (CaseNoise, "draw"): "inputs: noise",
    (metseg.predict.inputs, "send"): "inputs: to the device",
    (metseg.predict.passes, "send"): "inputs: to the device",
    (metseg.predict.sliding, "flip"): "windows: flips",
    (metseg.predict.members, "sliding_logits"): WINDOWS,
    (metseg.predict.members, "tiled_logits"): WINDOWS,
    (metseg.predict.members, "logits_between_grids"): "predict: between grids",
    (Layout, "move"): "predict: to the plan's box",
    (metseg.predict.fallback, "predict_members"): "predict: sigmoid, to numpy",
    (metseg.decide.decision, "member_labels"): "decide: members' label maps",
    (metseg.decide.decision, "fuse_members"): "decide: fuse",
    (metseg.decide.decision, "apply_size_rules"): "decide: size rules",
    (metseg.decide.decision, "lesion_agreement"): "decide: agreement by lesion",
    (Layout, "paste"): "restore: paste",
    (metseg.run.pipeline, "labels_to_source"): "restore: to the source grid",
    (metseg.run.pipeline, "move_labels"): "restore: to the scan's grid",
    (metseg.files.write, "write_atomically"): "write: to disk",
}
"""What the stages are made of, in their order. What none of them covers is the rest of its stage."""

CLOCKS: Final = {"wall": time.perf_counter, "processor": time.process_time}

GIGA: Final = 1e9
NETWORK: Final = "networks"
SHOWN_SHARE: Final = 0.02
"""Kinds of layer that take less of their network are not printed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--plan", default=None)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--members", type=int, default=None, help="only the first so many")
    parser.add_argument("--matrix-side", type=int, default=2048)
    parser.add_argument("--copy-mb", type=int, default=512)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    now = CLOCKS[arguments.clock]
    bundle = open_bundle(bundle_folder(arguments.weights), arguments.plan)
    start = now()
    engine = load_engine(bundle, choose_device(arguments.device))
    engine = replace(engine, members=engine.members[: arguments.members])
    device = engine.device
    print(f"plan {bundle.plan.name}; {device.description}, networks in {device.precision}; {arguments.clock} seconds")
    print(f"loading the members: {now() - start:.1f} s")
    (files,) = discover_cases(arguments.case, modalities=modalities_to_find(bundle.plan.modalities))
    run_case(files, engine, StageClock())
    clock = StageClock(waiting_for(engine), now)
    run_case(files, engine, clock)
    inputs = make_inputs(prepare(read(files, bundle.plan), bundle.plan), bundle.plan)
    print_windows(inputs, engine)
    case_s = print_stages(clock)
    print_steps(clock, case_s)
    print_layers(inputs, engine)
    print_bounds(clock, inputs, engine, case_s, arguments)


def waiting_for(engine: Engine) -> Callable[[], None]:
    return torch.cuda.synchronize if engine.device.is_cuda else lambda: None


def run_case(files: CaseFiles, engine: Engine, clock: StageClock) -> None:
    with ExitStack() as stack:
        stack.enter_context(cover(clock, FUNCTIONS | {(GraphNetwork, "__call__"): NETWORK}))
        for member in engine.members:
            if engine.device.is_cuda:
                stack.enter_context(cover(clock, {(member.network, "forward"): NETWORK}))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        segmented = segment(files, engine, run=clock.run)
        clock.run("write", write_label_map, folder / "labels.nii.gz", segmented.labels, segmented.header)


# ---- what was measured


def print_windows(inputs: Inputs, engine: Engine) -> None:
    print(f"\n{inputs.prepared.case_id}: {count_passes(engine.plan.tta)} passes")
    for member, sides, calls in network_calls(inputs, engine):
        print(f"  {member.plan.name}: {calls} windows of {'x'.join(map(str, sides))}")


def print_stages(clock: StageClock) -> float:
    """Returns the seconds of the whole case."""
    case_s = sum(clock.stages.values())
    print(f"one case, {case_s:.2f} s with the clock's own cost:")
    for stage, seconds in clock.stages.items():
        print(f"  {stage:34s} {seconds:9.3f} s  {seconds / case_s:6.1%}")
    print(f"  {'in sum':34s} {case_s:9.3f} s")
    return case_s


def print_steps(clock: StageClock, case_s: float) -> None:
    print("\nby step:")
    order = [*dict.fromkeys(FUNCTIONS.values()), NETWORK, *(f"{stage}: the rest" for stage in clock.stages)]
    rows = [(name, clock.accounts[name].seconds) for name in order if name in clock.accounts]
    for name, seconds in rows:
        print(f"  {name:34s} {seconds:9.3f} s  {seconds / case_s:6.1%}")


def print_layers(inputs: Inputs, engine: Engine) -> None:
    """By kind of layer as OpenVINO executes it; a window of each member, times its calls."""
    if engine.device.is_cuda:
        return
    print("\nthe networks, by kind of layer, one window at a time:")
    for member, sides, calls in network_calls(inputs, engine):
        seconds = profile_graph(build_member_graph(member, sides, engine.device.precision), engine.device)
        whole = sum(seconds.values())
        print(f"  {member.plan.name}: {whole * calls:.3f} s")
        for kind, part in seconds.items():
            if part >= SHOWN_SHARE * whole:
                print(f"    {kind:30s} {part * calls:9.3f} s  {part / whole:6.1%}")


def network_calls(inputs: Inputs, engine: Engine) -> Iterator[tuple[Member, tuple[int, ...], int]]:
    """Each member with the sides of its windows (or of its smallest tile) and how many of them it sees."""
    passes = count_passes(engine.plan.tta)
    for member in engine.members:
        if member.plan.network.runs_in_tiles:
            axes = [lay_tiles(length) for length in inputs.layout.shape]
            sides = tuple(kept + 2 * (MARGIN + PADDED_RIM) for _, kept in axes)
            yield member, sides, math.prod(len(origins) for origins, _ in axes)
        else:
            own = inputs.layout_of_member(member.plan, engine.plan)
            yield member, own.window, len(own.origins) * passes


# ---- what the machine can do


def print_bounds(
    clock: StageClock, inputs: Inputs, engine: Engine, case_s: float, arguments: argparse.Namespace
) -> None:
    """The two bounds of all network calls together."""
    operations = moved = 0.0
    for member, sides, calls in network_calls(inputs, engine):
        work = count_work(build_member_graph(member, sides, engine.device.precision), engine.device.precision)
        operations, moved = operations + calls * work.operations, moved + calls * work.moved_bytes
    now, network_s = CLOCKS[arguments.clock], clock.accounts[NETWORK].seconds
    rate = matrix_rate(engine, now, arguments.matrix_side)
    bandwidth = copy_bandwidth(engine, now, arguments.copy_mb)
    larger = max(operations / rate, moved / bandwidth)
    print("\nbounds of the network calls, rates measured now:")
    print(f"  {operations / GIGA:10.1f} G operations at {rate / GIGA:8.1f} G/s: at least {operations / rate:8.3f} s")
    print(f"  {moved / GIGA:10.2f} G bytes      at {bandwidth / GIGA:8.1f} G/s: at least {moved / bandwidth:8.3f} s")
    print(f"  the networks take {network_s / larger:.1f} times the larger, the case {case_s / larger:.1f} times")


def matrix_rate(engine: Engine, now: Callable[[], float], side: int) -> float:
    """Operations (a multiply-add counts as two) a second of a square matrix product in the networks' precision."""
    one = torch.rand(side, side, device=engine.device.name).to(engine.device.dtype)
    return 2 * side**3 / best_time(lambda: one @ one, engine, now)


def copy_bandwidth(engine: Engine, now: Callable[[], float], megabytes: int) -> float:
    """Bytes a second that a large copy reads and writes together."""
    source = torch.from_numpy(np.ones(megabytes * 2**20, dtype=np.uint8)).to(engine.device.name)
    target = torch.empty_like(source)
    return 2 * source.numel() / best_time(lambda: target.copy_(source), engine, now)


def best_time(work: Callable[[], Any], engine: Engine, now: Callable[[], float], repeats: int = 5) -> float:
    wait, seconds = waiting_for(engine), []
    for _ in range(repeats):
        wait()
        start = now()
        work()
        wait()
        seconds.append(now() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
