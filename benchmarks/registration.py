"""Registration of a planning CT to the MR: the error over the brain on synthetic pairs with a known motion.

    python -m benchmarks.registration [PAIRS] [FIRST]

Each pair is a head of its own with up to 10 mm and 10 degrees between the scanners, other noise, and a CT that misses
up to 40 mm of the head's top and bottom. Prints each pair's error, the seconds it took, and whether another patient's
CT, an empty CT and the same CT turned upside down are refused.
"""

import argparse
from time import perf_counter

import numpy as np

from metseg.errors import InputError
from metseg.files.case import Scan
from metseg.plan.radiosurgery import RegistrationPlan
from metseg.prepare.registration import Registration, register
from training.cohort.radiosurgery_case import RadiosurgeryCase, generate_radiosurgery_case
from training.cohort.settings import load_settings
from training.systems import RADIOSURGERY_TRAINING

SEED = 2019
MEAN_MM, LARGEST_MM = 1.0, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?", type=int, default=20)
    parser.add_argument("first", nargs="?", type=int, default=0)
    arguments = parser.parse_args()
    measure(arguments.pairs, arguments.first)


def measure(pairs: int, first: int) -> None:
    settings = load_settings(defaults=RADIOSURGERY_TRAINING.cohort_defaults)
    cut = settings.ct.model_copy(update={"bottom_cut_mm": (0.0, 30.0), "top_cut_mm": (0.0, 10.0)})
    settings = settings.model_copy(update={"ct": cut})
    plan, good, refused = RegistrationPlan(), 0, 0
    print("pair  moved mm  turned   mean mm  max mm  overlap  gain   s     another patient")
    previous: RadiosurgeryCase | None = None
    for index in range(first, first + pairs):
        case = generate_radiosurgery_case(settings, SEED, index)
        start = perf_counter()
        try:
            found = register(scan_of(case), case.t1c.astype(np.float32), case.grid, plan)
        except InputError as error:
            print(f"{index:4d}  refused: {error}", flush=True)
            previous = case
            continue
        seconds = perf_counter() - start
        error_mm = errors_over_brain(case, found)
        good += error_mm.mean() <= MEAN_MM and error_mm.max() <= LARGEST_MM
        other = "-"
        if previous is not None:
            other = outcome(scan_of(previous), case, plan)
            refused += other.startswith("refused")
        previous = case
        mean_mm, max_mm = error_mm.mean(), error_mm.max()
        print(
            f"{index:4d}  {found.shift_mm:8.1f}  {found.rotation_degrees:6.1f}  {mean_mm:8.2f}  {max_mm:6.2f}"
            f"  {found.overlap:7.0%}  {found.gain:+.2f}  {seconds:5.1f}  {other}",
            flush=True,
        )
    print(f"{good} of {pairs} pairs within {MEAN_MM:g} mm mean and {LARGEST_MM:g} mm at most; "
          f"{refused} of {pairs - 1} other patients refused")  # fmt: skip
    if previous is not None:
        ct = scan_of(previous)
        rng = np.random.default_rng(0)
        empty = Scan((-1000 + 10 * rng.standard_normal(ct.grid.shape)).astype(np.float32), ct.grid, b"")
        upside_down = Scan(np.ascontiguousarray(ct.voxels[:, :, ::-1]), ct.grid, b"")
        print(f"empty CT: {outcome(empty, previous, plan)}")
        print(f"upside down: {outcome(upside_down, previous, plan)}")


def scan_of(case: RadiosurgeryCase) -> Scan:
    return Scan(case.ct.voxels.astype(np.float32), case.ct.grid, b"")


def errors_over_brain(case: RadiosurgeryCase, found: Registration) -> np.ndarray:
    """Distance in millimetres between where every fourth brain voxel is taken and where it belongs."""
    places = np.argwhere(case.brain[::4, ::4, ::4]).T * 4
    points = case.grid.affine @ np.vstack([places, np.ones(places.shape[1])])
    return np.linalg.norm(((found.mr_to_ct - case.ct.mr_to_ct) @ points)[:3], axis=0)


def outcome(ct: Scan, case: RadiosurgeryCase, plan: RegistrationPlan) -> str:
    try:
        found = register(ct, case.t1c.astype(np.float32), case.grid, plan)
    except InputError as error:
        return f"refused ({error})"
    return f"ACCEPTED, gain {found.gain:+.2f}"


if __name__ == "__main__":
    main()
