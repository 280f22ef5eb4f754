"""Writes cases to a folder in the challenge's layout, the bytes independent of the number of processes."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from evaluation.processes import map_in_processes
from training.cohort.case import generate_case
from training.cohort.lesions import Lesion
from training.cohort.settings import CohortSettings
from training.cohort.simulated import SimulatedCase, Simulator

_COMPRESSION = 1


@dataclass(frozen=True, slots=True)
class WrittenCase:
    """What a caller wants to know of a case on disk."""

    case_id: str
    folder: Path
    lesions: tuple[Lesion, ...]


def _write_image(path: Path, values: NDArray[Any], affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=_COMPRESSION, mtime=0))
    partial.replace(path)


def write_case(case: SimulatedCase, output: Path) -> Path:
    """Writes `<output>/<ID>/<ID>-<image>.nii.gz`, the known transforms as `.txt`, and returns the case's folder."""
    folder = output / case.case_id
    folder.mkdir(parents=True, exist_ok=True)
    for name, matrix in case.matrices.items():
        np.savetxt(folder / f"{case.case_id}-{name}.txt", matrix, fmt="%.9f")
    for name, volume in case.volumes.items():
        _write_image(folder / f"{case.case_id}-{name}.nii.gz", volume.voxels, volume.affine)
    return folder


def _generate_and_write(job: tuple[Simulator, CohortSettings, int, int, Path]) -> WrittenCase:
    simulate, settings, seed, index, output = job
    case = simulate(settings, seed, index)
    return WrittenCase(case.case_id, write_case(case, output), case.lesions)


def write_cohort(
    settings: CohortSettings,
    *,
    cases: int,
    seed: int,
    output: Path,
    jobs: int = 1,
    first: int = 0,
    simulate: Simulator = generate_case,
) -> Iterator[WrittenCase]:
    """Simulates and writes a cohort, yielding each case as it is complete, in order.

    Args:
        settings: the cohort's distributions.
        cases: how many.
        seed: of the cohort; case i depends on (seed, i) alone.
        output: folder; made if missing.
        jobs: processes.
        first: number of the first case, so that a cohort can be made in parts.
        simulate: makes each case; a function of a module, which other processes can import.
    """
    work = [(simulate, settings, seed, index, output) for index in range(first, first + cases)]
    yield from map_in_processes(_generate_and_write, work, jobs)
