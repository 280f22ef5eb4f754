"""The report of many cases: seconds per case, size of the page, and seconds until a browser shows it.

    python -m benchmarks.report [--cases 300] [--lesions 12] [--folder DIR] [--full]

The cases are links to one simulated case on a small grid (--full: 240x240x155). `metseg report` reads, measures and
draws each of them. Where there is a headless Chromium it opens the page; the time ends when the table has answered a
click.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from metseg.report.folder_report import report_label_maps

SMALL = (96, 96, 64)
FULL = (240, 240, 155)


def make_cases(folder: Path, cases: int, lesions: int, shape: tuple[int, int, int]) -> None:
    """One case with random lesions, and links to it under other names."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    brain = sum(axis**2 for axis in axes) < 0.7
    labels = np.zeros(shape, dtype=np.uint8)
    for _ in range(lesions):
        centre = [rng.integers(side // 4, 3 * side // 4) for side in shape]
        radius = rng.uniform(1, 6)
        distance = sum((np.arange(side).reshape([-1 if a == i else 1 for a in range(3)]) - c) ** 2
                       for i, (side, c) in enumerate(zip(shape, centre, strict=True)))  # fmt: skip
        labels[(distance < radius**2 * 2.5) & (labels == 0)] = 2
        labels[distance < radius**2] = 3
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    source = folder / "source"
    source.mkdir(parents=True)
    for number, modality in enumerate(("t1c", "t2f")):
        image = (300 + 40 * rng.standard_normal(shape) + 200 * (labels == 3 - number)) * brain
        nib.save(nib.Nifti1Image(image.astype(np.int16), affine), source / f"{modality}.nii.gz")
    nib.save(nib.Nifti1Image(labels * brain, affine), source / "labels.nii.gz")
    (folder / "maps").mkdir()
    for number in range(cases):
        name = f"BENCH-{number:05d}"
        (folder / "data" / name).mkdir(parents=True)
        for modality in ("t1c", "t2f"):
            (folder / "data" / name / f"{name}-{modality}.nii.gz").symlink_to(source / f"{modality}.nii.gz")
        (folder / "maps" / f"{name}.nii.gz").symlink_to(source / "labels.nii.gz")


def time_page(page: Path) -> float | None:
    """Seconds until the page has answered a click on a heading; None without a browser."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        return None
    from selenium import webdriver  # noqa: PLC0415 - where there is a browser

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        start = time.perf_counter()
        browser.get(page.as_uri())
        browser.execute_script(
            "document.querySelectorAll('#table thead button')[2].click(); return document.body.offsetHeight"
        )
        return time.perf_counter() - start
    finally:
        browser.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--lesions", type=int, default=12)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        make_cases(folder, arguments.cases, arguments.lesions, FULL if arguments.full else SMALL)
        make_cases(folder / "warm", 1, 2, SMALL)  # fonts and imports
        report_label_maps(folder / "warm/data", folder / "warm/maps", folder / "warm/report")
        wall, cpu = time.perf_counter(), time.process_time()
        report_label_maps(folder / "data", folder / "maps", folder / "report")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        page = folder / "report" / "report.html"
        print(
            f"{arguments.cases} cases: {wall:.1f} s, {cpu:.1f} s of processor; {cpu / arguments.cases:.3f} s per case"
        )
        print(f"page: {page.stat().st_size / 1e6:.1f} MB")
        seconds = time_page(page)
        print(
            "page in a browser: not measured, no chromium here" if seconds is None else f"page ready: {seconds:.2f} s"
        )


if __name__ == "__main__":
    main()
