"""How long the command line takes to answer: fresh processes, wall clock and processor, beside a bare Python.

    .venv/bin/python benchmarks/startup.py [--repeats 5] [--data FOLDER_OF_CASES]

Prints the median wall and processor time of `metseg --help`, `metseg info` and, up to its first line, `metseg check`;
and how many times a bare `python -c pass` that is. On a busy machine the processor time is the figure to look at.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("metseg")


def time_process(command: list[str], *, first_line: bool) -> tuple[float, float]:
    """Wall and processor seconds of a process, or (wall alone) until its first line on stderr."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        if first_line and process.stderr is not None:
            process.stderr.readline()
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
    with tempfile.TemporaryDirectory() as empty:
        data = str(arguments.data or empty)
        commands = {
            "python -c pass": ([sys.executable, "-c", "pass"], False),
            "metseg --help": ([str(PROGRAM), "--help"], False),
            "metseg info": ([str(PROGRAM), "info"], False),
            "metseg check, first line": ([str(PROGRAM), "check", f"--data-path={data}"], True),
        }
        bare = None
        print(f"{'':28}{'wall s':>8}{'CPU s':>8}{'times bare':>12}")
        for name, (command, first_line) in commands.items():
            time_process(command, first_line=first_line)  # caches
            runs = [time_process(command, first_line=first_line) for _ in range(arguments.repeats)]
            wall, cpu = (statistics.median(run[part] for run in runs) for part in (0, 1))
            bare = bare or cpu
            print(f"{name:28}{wall:8.2f}{cpu:8.2f}{cpu / max(bare, 0.01):12.1f}")


if __name__ == "__main__":
    main()
