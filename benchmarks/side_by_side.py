"""Runs side by side on the same cores: what settings of OpenMP and of the allocator cost and save.

    python -m benchmarks.side_by_side [--weights weights/mets] [--processes 2] [--threads 2]
        [--window 96 96 48] [--passes 3] [--repeats 3] [--settings default GOMP_SPINCOUNT=1000 OMP_WAIT_POLICY=passive]

Measures every setting (an environment variable) with one process and with several at once, each with --threads
threads. The settings take turns, so that other work on the machine affects all of them. Prints the median seconds of a
pass through the bundle's first member, wall and processor, and their ratio to one process with the first setting. At
best, N processes side by side take N times as long, in the same processor seconds. `default` is libgomp's own setting.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

LIBGOMP_DEFAULT = "GOMP_SPINCOUNT=300000"
"""libgomp's own default (its manual, GOMP_SPINCOUNT); named, so that metseg does not set another."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one process does.

    Attributes:
        weights: bundle whose first member runs.
        window: sides of the noise that it reads.
        passes: forward passes that are timed, after one that is not.
    """

    weights: Path
    window: tuple[int, int, int]
    passes: int


class Pass(NamedTuple):
    """Seconds of one forward pass, by the clock and of the processor."""

    wall_s: float
    processor_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("weights/mets"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--window", type=int, nargs=3, default=(96, 96, 48))
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["default", "GOMP_SPINCOUNT=1000", "GOMP_SPINCOUNT=10000", "OMP_WAIT_POLICY=passive"],
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    x, y, z = arguments.window
    work = Work(arguments.weights, (x, y, z), arguments.passes)
    if arguments.child:
        run_child(work)
        return
    seconds: dict[tuple[str, int], list[Pass]] = {}
    for _ in range(arguments.repeats):
        for setting in arguments.settings:
            for count in (1, arguments.processes):
                seconds.setdefault((setting, count), []).append(run_children(work, setting, count, arguments.threads))
    print_table(seconds, arguments)


def print_table(seconds: dict[tuple[str, int], list[Pass]], arguments: argparse.Namespace) -> None:
    found = {key: Pass(*map(statistics.median, zip(*runs, strict=True))) for key, runs in seconds.items()}
    first = found[arguments.settings[0], 1]
    print(
        f"{arguments.threads} threads each, window {tuple(arguments.window)}, median of {arguments.repeats}, one pass"
    )
    print(f"{'setting':26}{'at once':>8}{'wall s':>10}{'times':>8}{'CPU s':>10}{'times':>8}")
    for (setting, count), one in found.items():
        times = f"{one.wall_s / first.wall_s:8.2f}{one.processor_s:10.3f}{one.processor_s / first.processor_s:8.2f}"
        print(f"{setting:26}{count:8d}{one.wall_s:10.3f}{times}")


# ---- one measurement


def run_children(work: Work, setting: str, count: int, threads: int) -> Pass:
    """A pass in the slowest of several processes that begin together."""
    name, _, value = (LIBGOMP_DEFAULT if setting == "default" else setting).partition("=")
    clean = {key: text for key, text in os.environ.items() if key not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}}
    environment = clean | {name: value, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.side_by_side", "--child", "--weights", str(work.weights)]
    command += ["--passes", str(work.passes), "--window", *map(str, work.window)]
    children = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for child in children:
        _hear(child)
    for child in children:
        _say(child, "go")
    answers = [json.loads(_hear(child)) for child in children]
    for child in children:
        child.wait()
    return Pass(*max(answers))


def _hear(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None  # noqa: S101 - for the type checker
    return child.stdout.readline()


def _say(child: "subprocess.Popen[str]", line: str) -> None:
    assert child.stdin is not None  # noqa: S101 - for the type checker
    child.stdin.write(f"{line}\n")
    child.stdin.flush()


def run_child(work: Work) -> None:
    """Gets ready, says so, waits for the word, and prints the seconds of a pass."""
    import torch  # noqa: PLC0415 - in the children alone

    from metseg.plan.bundle import open_bundle  # noqa: PLC0415
    from metseg.predict.device import choose_device  # noqa: PLC0415
    from metseg.predict.engine import load_engine  # noqa: PLC0415

    engine = load_engine(open_bundle(work.weights), choose_device("cpu"))
    member = engine.members[0]
    batch = torch.rand(1, len(member.plan.channels), *work.window).to(engine.device.dtype)
    batch = batch.contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        member.network(batch)
        print("ready", flush=True)
        sys.stdin.readline()
        starts = time.perf_counter(), time.process_time()
        for _ in range(work.passes):
            member.network(batch)
        ends = time.perf_counter(), time.process_time()
    print(json.dumps([(end - start) / work.passes for start, end in zip(starts, ends, strict=True)]), flush=True)


if __name__ == "__main__":
    main()
