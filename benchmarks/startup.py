"""Seconds until the command line answers, in fresh processes, beside a bare Python.

    python -m benchmarks.startup [--repeats 5] [--data FOLDER_OF_CASES]

Prints the median wall and processor seconds of `metseg --help`, of `metseg info`, of `metseg check` until its first
line, and of `metseg infer` until its first window goes into a network; and their ratio to `python -c pass`. Beside
other work only the processor seconds hold. Without --data the case is one of noise, 240x240x155.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.memory import GRIDS, make_case, parse_grid

PROGRAM = Path(sys.executable).with_name("metseg")
FIRST_WINDOW = """
import sys
from metseg.predict.graph_network import GraphNetwork
run = GraphNetwork.__call__
def announce(network, batch):
    print("first window", file=sys.stderr, flush=True)
    return run(network, batch)
GraphNetwork.__call__ = announce
from metseg.__main__ import main
main()
"""
"""`metseg` that says when a window goes into a network; nothing is imported that it would not import itself."""


def time_process(command: list[str], until: str | None) -> tuple[float, float]:
    """Wall and processor seconds of a process, or until a line on stderr that holds this text."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        if until is not None and process.stderr is not None:
            if not any(until in line.decode(errors="replace") for line in process.stderr):
                raise SystemExit(f"{command}: ended without {until!r}")
            wall = time.perf_counter() - start
            ticks = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[11:13]
            process.kill()
            return wall, sum(int(part) for part in ticks) / 100
        process.communicate()
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if arguments.data is None:
            make_case(scratch / "data", "c0", parse_grid(GRIDS[1]))
        (scratch / "empty").mkdir()
        data = arguments.data or scratch / "data"
        infer = ["infer", "--plan=fast", "--device=cpu", f"--data-path={data}", f"--output-path={scratch / 'out'}"]
        commands = {
            "python -c pass": ([sys.executable, "-c", "pass"], None),
            "metseg --help": ([str(PROGRAM), "--help"], None),
            "metseg info": ([str(PROGRAM), "info"], None),
            "metseg check, first line": (
                [str(PROGRAM), "check", f"--data-path={arguments.data or scratch / 'empty'}"],
                "",
            ),
            "metseg infer, first window": ([sys.executable, "-c", FIRST_WINDOW, *infer], "first window"),
        }
        bare = None
        print(f"{'':28}{'wall s':>8}{'CPU s':>8}{'times bare':>12}")
        for title, (command, until) in commands.items():
            time_process(command, until)  # caches
            runs = [time_process(command, until) for _ in range(arguments.repeats)]
            wall, cpu = (statistics.median(run[part] for run in runs) for part in (0, 1))
            bare = bare or cpu
            print(f"{title:28}{wall:8.2f}{cpu:8.2f}{cpu / max(bare, 0.01):12.1f}", flush=True)


if __name__ == "__main__":
    main()
