"""Many small cases in one process: do memory, open files or seconds per case grow?

    python -m benchmarks.soak [--cases 200]

The cases are links to three made here (24x32x16), the networks small and untrained. Prints each figure every SAMPLE
cases, and at the end the last SAMPLE cases beside those after the first WARM. Exits with 1 if resident memory grew by
more than GROWTH_MIB, open files by any, or a case takes more than TIMES as long.
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from metseg.files.discovery import discover_cases
from metseg.plan.bundle import open_bundle
from metseg.predict.device import choose_device
from metseg.predict.engine import load_engine
from metseg.run.batch import Job, run_batch
from metseg.run.pipeline import Segmented
from metseg.run.record import CaseRecord

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # whose modules import each other by their bare names

from phantoms import phantom
from support import ALL, SUB, write_bundle, write_case

GROWTH_MIB = 20
TIMES = 1.5
WARM = 10
SAMPLE = 20


def resident_mib() -> float:
    """What the process occupies now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_cases(folder: Path, count: int) -> None:
    """Three cases, and links to them under other names."""
    sources = [write_case(folder / "source", f"s{number}", images=phantom(seed=number)) for number in range(3)]
    for number in range(count):
        source, name = sources[number % 3], f"SOAK-{number:04d}"
        (folder / "data" / name).mkdir(parents=True)
        for image in source.iterdir():
            (folder / "data" / name / image.name.replace(source.name, name)).symlink_to(image)


class Watch:
    """Samples the process after each case."""

    def __init__(self) -> None:
        self.memory_mib: list[float] = []
        self.files: list[int] = []
        self.seconds: list[float] = []
        self._last = time.process_time()

    def sample(self, record: CaseRecord, _segmented: Segmented | None) -> None:
        """A listener of `run_batch`."""
        if not record.succeeded:
            raise AssertionError(f"{record.case_id}: {record.error}")
        now = time.process_time()
        self.seconds.append(now - self._last)
        self._last = now
        self.memory_mib.append(resident_mib())
        self.files.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - names are wanted
        if len(self.seconds) % SAMPLE == 0:
            print(f"{len(self.seconds):5d}  {self.memory_mib[-1]:7.1f} MiB  {self.files[-1]:4d} files  "
                  f"{statistics.median(self.seconds[-SAMPLE:]):.3f} s of processor per case", flush=True)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=200)
    arguments = parser.parse_args()
    watch = Watch()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_cases(folder, arguments.cases)
        bundle = open_bundle(write_bundle(folder / "bundle", channels=(ALL, SUB), tta={"variant": "none"}))
        engine = load_engine(bundle, choose_device("cpu"))
        run_batch(Job(discover_cases(folder / "data"), folder / "out"), engine, watch.sample)
    gc.collect()
    early = slice(WARM, WARM + SAMPLE)
    growth = statistics.median(watch.memory_mib[-SAMPLE:]) - statistics.median(watch.memory_mib[early])
    files = watch.files[-1] - max(watch.files[early])
    slower = statistics.median(watch.seconds[-SAMPLE:]) / statistics.median(watch.seconds[early])
    print(f"{len(watch.seconds)} cases: memory {growth:+.1f} MiB, open files {files:+d}, the last {SAMPLE} cases take "
          f"{slower:.2f} times as long as the {WARM + 1}th to {WARM + SAMPLE}th")  # fmt: skip
    return int(growth > GROWTH_MIB or files > 0 or slower > TIMES)


if __name__ == "__main__":
    sys.exit(main())
