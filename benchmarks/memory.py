"""Peak memory of `metseg infer` by grid, beside the estimate of `metseg check`.

    python -m benchmarks.memory [--weights BUNDLE] [--plan NAME] [--grids 96x96x96x1 240x240x155x1 ...]

One process per grid runs one case: what does not fit beside it is not read ahead. A grid is the voxels along x, y, z
and the voxel side in mm (or three sides). The images are noise in an ellipsoid as large as an adult brain.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from metseg.plan.bundle import bundle_folder, open_bundle
from metseg.predict.memory import estimate_need
from metseg.space.grid import Grid

GRIDS = ("96x96x96x1", "240x240x155x1", "256x256x106x0.8594x0.8594x1.5", "512x512x176x0.5x0.5x1")
BRAIN_MM = (140, 180, 140)


def parse_grid(text: str) -> Grid:
    parts = text.split("x")
    shape = (int(parts[0]), int(parts[1]), int(parts[2]))
    sides = [float(part) for part in parts[3:]] or [1.0]
    return Grid(shape, np.diag([*(sides if len(sides) == 3 else sides * 3), 1.0]))


def make_case(folder: Path, case_id: str, grid: Grid) -> None:
    rng = np.random.default_rng(0)
    offsets = [
        (np.arange(side) - side / 2) * step / (mm / 2)
        for side, step, mm in zip(grid.shape, grid.spacing_mm, BRAIN_MM, strict=True)
    ]
    x, y, z = np.meshgrid(*offsets, indexing="ij", sparse=True)
    brain = x**2 + y**2 + z**2 < 1
    (folder / case_id).mkdir(parents=True)
    for modality in ("t1n", "t1c", "t2w", "t2f"):
        image = (rng.normal(300, 40, grid.shape) * brain).astype(np.int16)
        nib.save(nib.Nifti1Image(image, grid.affine), folder / case_id / f"{case_id}-{modality}.nii.gz")


def peak_bytes(command: list[str]) -> int:
    """Largest resident size of a process."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    said = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}\n{said.decode()}")
    return usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--weights", type=Path, default=bundle_folder())
    parser.add_argument("--plan")
    parser.add_argument("--grids", nargs="*", default=GRIDS)
    arguments = parser.parse_args()
    plan = open_bundle(arguments.weights, arguments.plan).plan
    print(f"bundle {arguments.weights}, plan {plan.name}")
    print(f"{'grid':34}{'measured GB':>12}{'estimated GB':>14}{'times':>7}")
    for text in arguments.grids:
        grid = parse_grid(text)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_case(folder / "data", "c0", grid)
            command = [sys.executable, "-m", "metseg", "infer", "--device=cpu", f"--data-path={folder / 'data'}"]
            command += [f"--output-path={folder / 'out'}", f"--weights={arguments.weights}"]
            measured = peak_bytes([*command, *([f"--plan={arguments.plan}"] if arguments.plan else [])])
        estimated = estimate_need(grid, plan).total
        print(f"{text:34}{measured / 1e9:12.2f}{estimated / 1e9:14.2f}{estimated / measured:7.2f}", flush=True)


if __name__ == "__main__":
    main()
