"""The same cases by one run with all threads, and by shards of fewer threads side by side.

    python -m benchmarks.side_by_side CASES [--weights weights/mets] [--plan fast] [--runs 1x2 2x1 2x2] [--repeats 3]

A run `2x1` is two processes of one thread each, as a launcher starts them (RANK, WORLD_SIZE, OMP_NUM_THREADS). The runs
take turns. Prints the seconds until the last process has ended, start included, the fastest of the repeats, and the
seconds per case. The machine must run nothing else.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from metseg.files.discovery import discover_cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--weights", default="weights/mets")
    parser.add_argument("--plan", default="fast")
    parser.add_argument("--runs", nargs="+", default=["1x2", "2x1", "2x2"], help="processes x threads of each")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cases = len(discover_cases(arguments.cases))
    seconds: dict[str, list[float]] = {run: [] for run in arguments.runs}
    for _ in range(arguments.repeats):
        for run, found in seconds.items():
            found.append(time_run(run, arguments))
    print(f"{cases} cases, plan {arguments.plan}, fastest of {arguments.repeats}")
    print(f"{'processes x threads':22}{'wall s':>8}{'per case':>10}{'times':>8}")
    first = min(seconds[arguments.runs[0]])
    for run, found in seconds.items():
        print(f"{run:22}{min(found):8.2f}{min(found) / cases:10.2f}{min(found) / first:8.2f}")


def time_run(run: str, arguments: argparse.Namespace) -> float:
    """Seconds until all processes have ended."""
    count, threads = map(int, run.split("x"))
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "metseg", "infer", "--device=cpu", f"--plan={arguments.plan}"]
        command += [f"--data-path={arguments.cases}", f"--output-path={output}", f"--weights={arguments.weights}"]
        start = time.perf_counter()
        processes = [
            subprocess.Popen(command, env=environment(rank, count, threads), stderr=subprocess.DEVNULL)
            for rank in range(count)
        ]
        codes = [process.wait() for process in processes]
        elapsed = time.perf_counter() - start
    if any(codes):
        raise SystemExit(f"{command}: exit codes {codes}")
    return elapsed


def environment(rank: int, count: int, threads: int) -> dict[str, str]:
    """As torchrun sets it."""
    return os.environ | {"RANK": str(rank), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": str(threads)}


if __name__ == "__main__":
    main()
