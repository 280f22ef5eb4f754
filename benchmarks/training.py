"""Seconds per training step, and the share of them that waits for data, with 1 and with 2 ranks on this machine.

    python -m benchmarks.training --data COHORT [--recipe tiny_blob] [--steps 20] [--ranks 1 2] [--threads 1]
        [--micro-batch N]

Warms the cache, then runs `python -m training train` once per number of ranks (behind torchrun for more than one). The
first quarter of the steps is left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def train(options: argparse.Namespace, folder: Path, ranks: int, steps: int) -> list[dict[str, float]]:
    """Runs and returns the metrics of its steps."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks > 1 else []
    output = folder / f"ranks-{ranks}-{steps}"
    command = [sys.executable, "-m", *launcher, "training", "train", options.recipe, f"--max-steps={steps}"]
    command += [f"--data={options.data}", f"--output={output}", f"--cache={folder / 'cache'}", "--checkpoint-s=1e9"]
    command += [f"--threads={options.threads}", f"--workers={options.workers}", f"--device={options.device}"]
    command += [f"--micro-batch={options.micro_batch}"] if options.micro_batch else []
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"training failed: {done.stderr[-2000:]}")
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def main() -> None:
    """Prints one line for each number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="tiny_blob")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each rank")
    parser.add_argument("--workers", type=int, default=1, help="loader processes of each rank")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--micro-batch", type=int, default=None, help="crops at once; default that of `train`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(options, folder, 1, 1)
        print(f"recipe {options.recipe}, {options.threads} thread(s) and {options.workers} loader(s) per rank")
        print("ranks   s/step (median)   steps/s against 1 rank   waiting for data")
        alone = None
        for ranks in options.ranks:
            steps = train(options, folder, ranks, options.steps)[options.steps // 4 :]
            seconds = statistics.median(step["step_s"] for step in steps)
            waited = sum(step["waited_s"] for step in steps) / sum(step["step_s"] for step in steps)
            alone = alone or seconds
            print(f"{ranks:5d} {seconds:17.3f} {alone / seconds:24.2f} {waited:17.1%}")


if __name__ == "__main__":
    main()
