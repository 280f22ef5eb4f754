"""Seconds of one case by step and by layer, beside what the machine could do at best.

    python -m benchmarks.case_profile CASE_FOLDER [--weights weights/mets] [--plan NAME] [--device auto|cpu|cuda]
        [--members N] [--matrix-side 2048] [--copy-mb 512] [--clock wall|processor]

Runs the case twice and prints of the second run:

    stages   seconds of each stage of `metseg.run.pipeline` and of writing, one after the other (in a batch, reading and
             writing run beside the networks), and their sum
    steps    the same seconds by what the stages are made of
    layers   the networks' seconds by kind of layer and by level, with the operations and bytes of each
    bounds   all multiply-adds over the measured rate of a large matrix product in the networks' precision, and all
             bytes that the layers read and write over the measured bandwidth of a copy

Wall seconds need a machine that runs nothing else. OMP_NUM_THREADS=1 and --clock processor give the seconds of one
thread, which hold beside other work. docs/performance.md explains the figures. To compare two revisions, run the script
of each from the root of its checkout, with PYTHONPATH=app:. in front and the same options.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

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
from benchmarks.stage_clock import BETWEEN, Account, StageClock, cover, cover_network
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.files.write import write_label_map
from metseg.plan.bundle import bundle_folder, open_bundle
from metseg.predict.device import choose_device
from metseg.predict.engine import Engine, load_engine
from metseg.predict.inputs import Inputs, make_inputs
from metseg.predict.passes import CaseNoise, count_passes
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
SAME_COUNT: Final = 0.01
"""Our count of multiply-adds and torch's may differ by this share."""


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
    print_layers(clock)
    print_bounds(clock, engine, case_s, arguments)
    check_count(inputs, engine)


def waiting_for(engine: Engine) -> Callable[[], None]:
    return torch.cuda.synchronize if engine.device.is_cuda else lambda: None


def run_case(files: CaseFiles, engine: Engine, clock: StageClock) -> None:
    with ExitStack() as stack:
        stack.enter_context(cover(clock, FUNCTIONS))
        for member in engine.members:
            stack.enter_context(cover_network(clock, member.network))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        segmented = segment(files, engine, run=clock.run)
        clock.run("write", write_label_map, folder / "labels.nii.gz", segmented.labels, segmented.header)


# ---- what was measured


def print_windows(inputs: Inputs, engine: Engine) -> None:
    plan, passes = engine.plan, count_passes(engine.plan.tta)
    print(f"\n{inputs.prepared.case_id}: {passes} passes")
    for member in engine.members:
        own = inputs.layout_of_member(member.plan, plan)
        calls = len(own.origins) * passes
        print(f"  {member.plan.name}: window {own.window}, {len(own.origins)} per pass, {calls} network calls")


def layers(clock: StageClock) -> dict[tuple[str, int | None], Account]:
    return {name: account for name, account in clock.accounts.items() if isinstance(name, tuple)}


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
    network_s = sum(account.seconds for account in layers(clock).values())
    order = [*dict.fromkeys(FUNCTIONS.values()), *(f"{stage}: the rest" for stage in clock.stages)]
    rows = [(name, clock.accounts[name].seconds) for name in order if name in clock.accounts]
    place = next((place for place, (name, _) in enumerate(rows) if name.startswith("windows: ")), 0)
    rows.insert(place, ("network, all layers", network_s))
    for name, seconds in rows:
        print(f"  {name:34s} {seconds:9.3f} s  {seconds / case_s:6.1%}")


def print_layers(clock: StageClock) -> None:
    found = layers(clock)
    whole = sum(account.seconds for account in found.values())
    print("\nthe networks, by kind of layer and by level (level 1 has half the input's sides):")
    print(f"  {'':30s} {'seconds':>9s} {'share':>7s} {'calls':>7s} {'Gop':>9s} {'GB':>8s} {'Gop/s':>8s} {'GB/s':>7s}")
    kinds = sorted({kind for kind, _ in found}, key=lambda kind: -_sum(found, kind=kind).seconds)
    for kind in kinds:
        _print_account(kind, _sum(found, kind=kind), whole)
    print()
    for level in sorted({level for _, level in found if level is not None}):
        _print_account(f"level {level}", _sum(found, level=level), whole)
    _print_account(BETWEEN, _sum(found, kind=BETWEEN), whole)


def _sum(accounts: dict[tuple[str, int | None], Account], kind: str | None = None, level: int | None = None) -> Account:
    wanted: Iterable[Account] = [
        account
        for (its_kind, its_level), account in accounts.items()
        if kind in {None, its_kind} and level in {None, its_level}
    ]
    total = Account()
    for account in wanted:
        total.seconds += account.seconds
        total.calls += account.calls
        total.operations += account.operations
        total.moved_bytes += account.moved_bytes
    return total


def _print_account(name: str, account: Account, whole_s: float) -> None:
    rates = f"{account.operations / account.seconds / GIGA:8.1f} {account.moved_bytes / account.seconds / GIGA:7.1f}"
    print(
        f"  {name:30s} {account.seconds:9.3f} {account.seconds / whole_s:7.1%} {account.calls:7d} "
        f"{account.operations / GIGA:9.1f} {account.moved_bytes / GIGA:8.2f} {rates}"
    )


# ---- what the machine can do


def print_bounds(clock: StageClock, engine: Engine, case_s: float, arguments: argparse.Namespace) -> None:
    """The two bounds of all network calls together, and a third that adds up the larger of both kind by kind."""
    found = layers(clock)
    whole = _sum(found)
    now = CLOCKS[arguments.clock]
    rate = matrix_rate(engine, now, arguments.matrix_side)
    bandwidth = copy_bandwidth(engine, now, arguments.copy_mb)
    by_operations, by_bytes = whole.operations / rate, whole.moved_bytes / bandwidth
    by_layer = sum(max(item.operations / rate, item.moved_bytes / bandwidth) for item in found.values())
    larger = max(by_operations, by_bytes)
    print("\nbounds of the network calls, rates measured now:")
    print(f"  {whole.operations / GIGA:10.1f} G operations at {rate / GIGA:8.1f} G/s: at least {by_operations:8.3f} s")
    print(f"  {whole.moved_bytes / GIGA:10.2f} G bytes      at {bandwidth / GIGA:8.1f} G/s: at least {by_bytes:8.3f} s")
    print(f"  layer by layer, each at its own bound:                at least {by_layer:8.3f} s")
    print(f"  the networks take {whole.seconds / larger:.1f} times the larger, the case {case_s / larger:.1f} times")


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


def check_count(inputs: Inputs, engine: Engine) -> None:
    """Our count of a window's multiply-adds is torch's own; otherwise there are layers that the clock does not know."""
    member, clock = engine.members[0], StageClock()
    multiples = engine.plan.side_multiples
    window = inputs.layout.window if multiples == (1, 1, 1) else tuple(2 * m for m in multiples)
    batch = torch.rand(1, len(member.plan.channels), *window).to(engine.device.name, engine.device.dtype)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter, cover_network(clock, member.network):
        member.network(batch.contiguous(memory_format=torch.channels_last_3d))
    ours, theirs = _sum(layers(clock)).operations, counter.get_total_flops()
    if abs(ours - theirs) > SAME_COUNT * theirs:
        raise SystemExit(f"operations of a window: {ours:.4g} counted here, {theirs:.4g} by torch")


if __name__ == "__main__":
    main()
