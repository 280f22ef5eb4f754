"""Two revisions in turns: seconds by stage of the same cases, peak memory, and how their label maps agree.

    python -m benchmarks.before_after CASES --before REVISION [--weights weights/mets] [--plans own fast]
        [--precisions bfloat16 float32] [--repeats 3] [--threads 2]

REVISION is checked out into a temporary folder; both revisions run in this environment, each with its own bundle at
--weights. A run segments every case of the folder, one after the other. Prints for each plan and precision the median
seconds of a case by stage (of its fastest run), the process's peak of memory, and the pooled Dice of each region
between both revisions' label maps. Wall seconds need a machine that runs nothing else.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from metseg.files.read import read_label_map
from metseg.plan.bundle import open_bundle

RUN: Final = """
import sys
from metseg.predict import device
precision = sys.argv.pop(1)
device.usual_precision = lambda: precision
from metseg.__main__ import main
main()
"""
"""`metseg`, in the precision that is asked for."""

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True, slots=True)
class Run:
    """What one process took.

    Attributes:
        stages: median seconds of a case by stage.
        peak_gb: largest resident size.
    """

    stages: dict[str, float]
    peak_gb: float

    @property
    def case_s(self) -> float:
        """Seconds of all stages."""
        return sum(self.stages.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--before", required=True)
    parser.add_argument("--weights", default="weights/mets", help="within each checkout")
    parser.add_argument("--plans", nargs="+", default=["own", "fast"])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    own = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as name, checkout(own, arguments.before, Path(name) / "before") as before:
        for plan in arguments.plans:
            for precision in arguments.precisions:
                compare({BEFORE: before, AFTER: own}, plan, precision, Path(name), arguments)


@contextmanager
def checkout(repository: Path, revision: str, folder: Path) -> Iterator[Path]:
    git = ["git", "-C", str(repository), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def compare(
    checkouts: dict[str, Path], plan: str, precision: str, scratch: Path, arguments: argparse.Namespace
) -> None:
    runs: dict[str, list[Run]] = {name: [] for name in checkouts}
    for _ in range(arguments.repeats):
        for name, root in checkouts.items():
            runs[name].append(segment(root, plan, precision, scratch / name, arguments))
    best = {name: min(found, key=lambda run: run.case_s) for name, found in runs.items()}
    print(f"\nplan {plan}, {precision}, {arguments.threads} threads, fastest of {arguments.repeats}")
    print(f"  {'stage':12}{BEFORE:>10}{AFTER:>10}{'times':>8}")
    for stage in best[AFTER].stages:
        print_row(stage, *(run.stages.get(stage, 0.0) for run in best.values()))
    print_row("a case", *(run.case_s for run in best.values()))
    print_row("peak, GB", *(min(run.peak_gb for run in found) for found in runs.values()))
    for region, dice in pooled_dice(scratch / BEFORE, scratch / AFTER, checkouts[AFTER] / arguments.weights).items():
        print(f"  Dice of {region}: {dice:.5f}", flush=True)


def print_row(name: str, before: float, after: float) -> None:
    print(f"  {name:12}{before:10.3f}{after:10.3f}{before / max(after, 1e-9):8.2f}")


def segment(root: Path, plan: str, precision: str, output: Path, arguments: argparse.Namespace) -> Run:
    """One process over all cases."""
    command = [sys.executable, "-c", RUN, precision, "infer", "--device=cpu", "--on-error=stop"]
    command += [
        f"--data-path={arguments.cases}",
        f"--output-path={output / 'labels'}",
        f"--report-dir={output / 'report'}",
    ]
    command += [f"--weights={root / arguments.weights}", *([] if plan == "own" else [f"--plan={plan}"])]
    environment = os.environ | {"PYTHONPATH": str(root / "app"), "OMP_NUM_THREADS": str(arguments.threads)}
    with subprocess.Popen(command, env=environment, cwd=root, stderr=subprocess.PIPE) as process:
        said = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}\n{said.decode()}")
    cases = json.loads((output / "report" / "run.json").read_text(encoding="utf-8"))["cases"]
    stages = {stage: statistics.median(case["stage_s"][stage] for case in cases) for stage in cases[0]["stage_s"]}
    return Run(stages, usage.ru_maxrss * 1024 / 1e9)


def pooled_dice(before: Path, after: Path, weights: Path) -> dict[str, float]:
    """Twice the common voxels of all cases over the sum of both."""
    regions = open_bundle(weights).plan.regions
    found: dict[str, list[tuple[int, int]]] = {}
    for path in sorted((after / "labels").glob("*.nii.gz")):
        one, other = (read_label_map(folder / "labels" / path.name).labels for folder in (before, after))
        for region in regions:
            inside = [np.isin(labels, region.labels) for labels in (one, other)]
            found.setdefault(region.name, []).append(counts(inside))
    return {
        name: 2 * sum(both for both, _ in pairs) / max(1, sum(total for _, total in pairs))
        for name, pairs in found.items()
    }


def counts(inside: Sequence[np.ndarray]) -> tuple[int, int]:
    one, other = inside
    return int((one & other).sum()), int(one.sum() + other.sum())


if __name__ == "__main__":
    main()
