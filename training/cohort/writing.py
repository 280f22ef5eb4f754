"""Writes cases to a folder in the challenge's layout, the bytes independent of the number of processes."""

import gzip
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from metseg.systems import SystemName
from training.cohort.case import SyntheticCase, case_id, generate_case
from training.cohort.lesions import Lesion
from training.cohort.radiosurgery_case import RadiosurgeryCase, generate_radiosurgery_case, radiosurgery_case_id
from training.cohort.settings import CohortSettings

_COMPRESSION = 1


@dataclass(frozen=True, slots=True)
class WrittenCase:
    """What a caller wants to know of a case on disk."""

    case_id: str
    folder: Path
    lesions: tuple[Lesion, ...]


def case_id_of(index: int, system: SystemName = "brats") -> str:
    """The identifier of a system's n-th case, counted from 0."""
    return radiosurgery_case_id(index) if system == "radiosurgery" else case_id(index)


def _write_image(path: Path, values: NDArray[Any], affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=_COMPRESSION, mtime=0))
    partial.replace(path)


def write_case(case: SyntheticCase, output: Path) -> Path:
    """Writes `<output>/<ID>/<ID>-{t1n,t1c,t2w,t2f,seg}.nii.gz` and returns the case's folder."""
    folder = output / case.case_id
    folder.mkdir(parents=True, exist_ok=True)
    for modality, values in case.images.items():
        _write_image(folder / f"{case.case_id}-{modality}.nii.gz", values, case.affine)
    _write_image(folder / f"{case.case_id}-seg.nii.gz", case.labels, case.affine)
    return folder


def write_radiosurgery_case(case: RadiosurgeryCase, output: Path) -> Path:
    """Writes `<output>/<ID>/<ID>-{ct,t1c,seg}.nii.gz` and the known motion, and returns the case's folder.

    The motion, `<ID>-mr-to-ct.txt`, is what registration has to find: 4x4, RAS millimetres.
    """
    folder = output / case.case_id
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / f"{case.case_id}-mr-to-ct.txt", case.ct.mr_to_ct, fmt="%.9f")
    _write_image(folder / f"{case.case_id}-ct.nii.gz", case.ct.voxels, case.ct.grid.affine)
    _write_image(folder / f"{case.case_id}-t1c.nii.gz", case.t1c, case.grid.affine)
    _write_image(folder / f"{case.case_id}-seg.nii.gz", case.labels, case.grid.affine)
    return folder


def _generate_and_write(job: tuple[CohortSettings, SystemName, int, int, Path]) -> WrittenCase:
    settings, system, seed, index, output = job
    if system == "radiosurgery":
        other = generate_radiosurgery_case(settings, seed, index)
        return WrittenCase(other.case_id, write_radiosurgery_case(other, output), other.lesions)
    case = generate_case(settings, seed, index)
    return WrittenCase(case.case_id, write_case(case, output), case.lesions)


def write_cohort(
    settings: CohortSettings,
    *,
    cases: int,
    seed: int,
    output: Path,
    jobs: int = 1,
    first: int = 0,
    system: SystemName = "brats",
) -> Iterator[WrittenCase]:
    """Simulates and writes a cohort, yielding each case as it is complete, in order.

    Args:
        settings: the cohort's distributions.
        cases: how many.
        seed: of the cohort; case i depends on (seed, i) alone.
        output: folder; made if missing.
        jobs: processes.
        first: number of the first case, so that a cohort can be made in parts.
        system: which system's cases.
    """
    work = [(settings, system, seed, index, output) for index in range(first, first + cases)]
    if jobs <= 1:
        yield from map(_generate_and_write, work)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_generate_and_write, work)
