"""Synthetic DICOM studies taken all the way by `metseg study`, measured against what they were made of.

    python -m benchmarks.studies --work FOLDER [--studies 20] [--first 0] [--known]

Each study is a whole head with metastases in five sequences, moved by up to 10 mm and 10 degrees, on oblique grids of
1 to 5 mm (benchmarks.synthetic_study). Prints a row per study and a summary with the aims beside it, and writes
FOLDER/studies.json. A study that was measured before is not done again: remove its folder to repeat it.

    registration  distance between where brain voxels are taken and where they belong
    brain         Dice of the mask and the generator's, on t1c's grid
    TC            Dice of the tumour core and the generator's on t1c's grid, of the imported case, of the generator's
                  own files cut with its own mask, which have no thick slices, and with --known of the same series
                  prepared with the known motion and the generator's mask
    RTSTRUCT      each structure as two other programs read it, against the lesion of the label map, which a sampling of
                  3 x 3 x 3 places per voxel brings to the CT through the registration of import.json: cut at a half,
                  which takes some volume away, and cut where the volume is the lesion's ("same volume")

Seconds are wall and processor time within one process, without its start. docs/import-dicom.md has the figures.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
from scipy import ndimage

import metseg.cli.run_studies
from benchmarks.stage_clock import StageClock, cover
from benchmarks.structure_readers import Volume, find_readers, read_structures
from benchmarks.synthetic_study import SyntheticStudy, as_scan, draw_study, write_study
from metseg.__main__ import run
from metseg.dicom.import_json import FILE_NAME, ImportJson, read_import_json
from metseg.dicom.targets import Target, find_targets
from metseg.errors import ExitCode
from metseg.files.header import make_header
from metseg.files.image import read_image
from metseg.files.write import write_image
from metseg.labels import LabelMap
from metseg.space.grid import Grid
from metseg.space.rigid import resample_rigid
from metseg.systems import BRATS, Modality

MOVED: Final = ("t1n", "t2w", "t2f", "ct")
LARGE_MM3: Final = 100.0
"""Below it, Dice says more of the voxels' size than of the contour."""

STEPS: Final = {
    (metseg.cli.run_studies, "recognise_and_print"): "recognise",
    (metseg.cli.run_studies, "import_study"): "import",
    (metseg.cli.run_studies, "segment_cases"): "infer, report",
    (metseg.cli.run_studies, "find_destination"): "export",
    (metseg.cli.run_studies, "export_dicom"): "export",
}

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for studies, cases and results")
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--known", action="store_true", help="segment a third case: what import itself costs")
    arguments = parser.parse_args()
    readers = find_readers()
    print(f"readers of RT Structure Sets: {', '.join(readers)}\n{HEAD}", flush=True)
    rows = []
    for index in range(arguments.first, arguments.first + arguments.studies):
        folder = arguments.work / f"{index:02d}"
        result = folder / "result.json"
        if not result.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            row = measure_study(index, folder, readers, with_known=arguments.known)
            result.write_text(json.dumps(row, indent=1) + "\n")
        rows.append(json.loads(result.read_text()))
        print(show(rows[-1]), flush=True)
    (arguments.work / "studies.json").write_text(json.dumps(rows, indent=1) + "\n")
    summarise(rows)


# ---- one study


def measure_study(index: int, folder: Path, readers: list[str], *, with_known: bool) -> Row:
    """Makes a study below a folder, runs it, and measures; an error of the program is in the row."""
    study = draw_study(index)
    series = write_study(study, folder / "study")
    grids = {name: item.grid for name, item in study.series.items()}
    case_id, wall, processor = f"S{index:02d}", StageClock(), StageClock(now=time.process_time)
    with ExitStack() as stack:
        stack.enter_context(cover(wall, STEPS))
        stack.enter_context(cover(processor, STEPS))
        start = time.perf_counter(), time.process_time()
        code = run(
            ["study", f"--dicom-path={folder / 'study'}", f"--output-path={folder / 'out'}", f"--case-id={case_id}"]
        )
        whole_s = time.perf_counter() - start[0], time.process_time() - start[1]
    row: Row = {"study": index, "exit_code": int(code)}
    if code != ExitCode.DONE:
        return row
    facts = read_import_json(folder / "out/cases" / case_id / FILE_NAME)
    row |= {
        "series": {name: image.rule for name, image in facts.images.items()},
        "recognised": len(facts.images),
        "findings": [item.what for item in facts.findings],
        "wall_s": {name: account.seconds for name, account in wall.accounts.items()} | {"all": whole_s[0]},
        "processor_s": {name: account.seconds for name, account in processor.accounts.items()} | {"all": whole_s[1]},
        "import_s": dict(facts.stage_s),
        "registration": measure_registration(study, facts),
        **measure_labels(study, folder, case_id, with_known=with_known),
        "structures": list(measure_structures(grids, facts, series, folder, readers)),
    }
    return row


def measure_registration(study: SyntheticStudy, facts: ImportJson) -> dict[str, Row]:
    """Millimetres over the brain, for each image that was moved; empty where it was left out."""
    case = study.case
    places = np.argwhere(case.brain[::4, ::4, ::4]).T * 4
    points = case.grid.affine @ np.vstack([places, np.ones(places.shape[1])])
    found = {}
    for name in MOVED:
        image = facts.images.get(name)
        if image is None or image.alignment is None:
            found[name] = {"left_out": facts.left_out.get(name, "")}
            continue
        off = np.array(image.alignment.matrix) - study.series[name].motion
        errors_mm = np.linalg.norm((off @ points)[:3], axis=0)
        moved_mm = np.linalg.norm(((study.series[name].motion - np.eye(4)) @ points)[:3], axis=0)
        found[name] = {
            "mean_mm": errors_mm.mean(),
            "max_mm": errors_mm.max(),
            "moved_mm": moved_mm.mean(),
            "gain": image.alignment.gain,
            "slices_mm": study.series[name].grid.spacing_mm[2],
        }
    return found


def measure_labels(study: SyntheticStudy, folder: Path, case_id: str, *, with_known: bool) -> Row:
    """Dice of the brain's mask and of the tumour core on t1c's grid, beside cases that were prepared otherwise."""
    case, grid = study.case, study.series["t1c"].grid
    brain = bring(case.brain, case.grid, grid) >= 0.5
    core = bring(BRATS.regions.mask(case.labels, BRATS.regions.core), case.grid, grid) >= 0.5
    images = [read_image(folder / f"out/cases/{case_id}/{case_id}-{name}.nii.gz").voxels for name in ("t1c", "t2w")]
    found_brain = ndimage.binary_fill_holes(np.logical_or(*(image != 0 for image in images)))
    labels = read_labels(folder / f"out/labels/{case_id}.nii.gz")
    dices = {"imported": dice(core_of(labels), core)}
    own = {
        name: resample_rigid(as_float(image), case.grid, grid, np.eye(4), outside=0)
        for name, image in case.images.items()
    }
    ways = {"own": {**own, "t1c": study.series["t1c"].voxels}}
    if with_known:
        moved = {name: series for name, series in study.series.items() if name != "ct"}
        ways["known"] = {
            name: resample_rigid(as_scan(series).voxels, series.grid, grid, series.motion, outside=0)
            for name, series in moved.items()
        }
    for way, prepared in ways.items():
        place = folder / way / "cases" / case_id
        place.mkdir(parents=True)
        for name, image in prepared.items():
            write_image(place / f"{case_id}-{name}.nii.gz", as_float(np.where(brain, image, 0)), make_header(grid))
        if run(["infer", f"--data-path={place.parent}", f"--output-path={folder / way / 'labels'}"]) != ExitCode.DONE:
            raise SystemExit(f"infer failed on {place}")
        dices[way] = dice(core_of(read_labels(folder / way / "labels" / f"{case_id}.nii.gz")), core)
    return {
        "brain": {
            "dice": dice(found_brain, brain),
            "found_ml": float(found_brain.sum()) * grid.voxel_volume_mm3 / 1000,
            "true_ml": float(brain.sum()) * grid.voxel_volume_mm3 / 1000,
            "core_cut": float((core & ~found_brain).sum() / max(1, core.sum())),
        },
        "core_dice": dices,
        "core_mm3": float(core.sum()) * grid.voxel_volume_mm3,
        "t1c_mm": list(grid.spacing_mm),
    }


def as_float(image: np.ndarray) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)


def bring(mask: np.ndarray, grid: Grid, to_grid: Grid) -> np.ndarray:
    return resample_rigid(as_float(mask), grid, to_grid, np.eye(4), outside=0)


def read_labels(path: Path) -> LabelMap:
    return read_image(path).voxels.astype(np.uint8)


def core_of(labels: LabelMap) -> np.ndarray:
    return BRATS.regions.mask(labels, BRATS.regions.core)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    both = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / both if both else 1.0


# ---- RT Structure Sets


@dataclass(frozen=True)
class Expected:
    """A lesion on a series' grid: box and masks there, its volume in the field of view."""

    box: tuple[slice, ...]
    mask: np.ndarray
    same_volume: np.ndarray
    volume_mm3: float


def measure_structures(
    grids: dict[Modality, Grid], facts: ImportJson, series: dict[str, Path], folder: Path, readers: list[str]
) -> Iterator[Row]:
    """A row per structure, reader and series."""
    case_id, grid = facts.case_id, grids["t1c"]
    targets = find_targets(read_labels(folder / f"out/labels/{case_id}.nii.gz"), grid, BRATS)
    for name, path in (("t1c", "rtstruct.dcm"), ("ct", "rtstruct-ct.dcm")):
        if name not in facts.images:
            continue
        there, alignment = grids[name], facts.images[name].alignment
        expected = {item.name: carry(item, grid, there, alignment and np.array(alignment.matrix)) for item in targets}
        structure_set = folder / "out/dicom" / case_id / path
        stated = [str(item.ROIName) for item in pydicom.dcmread(structure_set).StructureSetROISequence]
        if targets and stated != [item.name for item in targets]:
            raise SystemExit(f"{structure_set}: structures {stated}, expected {list(expected)}")
        for reader in readers:
            with tempfile.TemporaryDirectory() as work:
                volume = Volume(series[name], there.shape, there.affine)
                found = read_structures(reader, structure_set, volume, Path(work)) if targets else {}
            for item in targets:
                yield {
                    "on": name,
                    "reader": reader,
                    "name": item.name,
                    "label_mm3": item.volume_mm3,
                    **compare(found[item.name], expected[item.name], there.voxel_volume_mm3),
                }


def carry(target: Target, grid: Grid, to_grid: Grid, matrix: np.ndarray | None) -> Expected | None:
    """A target on a series' grid; None where it lies outside."""
    if matrix is None:
        return Expected(target.box, target.mask, target.mask, target.volume_mm3)
    index = np.linalg.inv(to_grid.affine) @ matrix @ grid.affine
    corners = np.array([[side.start - 2, side.stop + 1] for side in target.box], dtype=float)
    places = np.stack(np.meshgrid(*corners, indexing="ij")).reshape(3, -1)
    reached = index[:3, :3] @ places + index[:3, 3:]
    low = np.clip(np.floor(reached.min(axis=1)), 0, to_grid.shape).astype(int)
    high = np.clip(np.ceil(reached.max(axis=1)) + 1, 0, to_grid.shape).astype(int)
    if (high <= low).any():
        return None
    fine = np.diag([1 / 3, 1 / 3, 1 / 3, 1.0])
    fine[:3, 3] = low - 1 / 3
    to_mask = np.linalg.inv(index) @ fine
    shift = to_mask[:3, 3] - [side.start - 1 for side in target.box]
    soft = ndimage.affine_transform(
        np.pad(as_float(target.mask), 1), to_mask[:3, :3], shift, tuple(3 * (high - low)), np.float32, order=1
    )
    columns, rows, slices = high - low
    cover_ = soft.reshape(columns, 3, rows, 3, slices, 3).mean(axis=(1, 3, 5))
    if not cover_.any():
        return None
    box = tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
    fullest = np.zeros(cover_.size, dtype=bool)
    fullest[np.argsort(-cover_, axis=None, kind="stable")[: max(1, round(float(cover_.sum())))]] = True
    return Expected(box, cover_ >= 0.5, fullest.reshape(cover_.shape), float(cover_.sum()) * to_grid.voxel_volume_mm3)


def compare(found: np.ndarray, expected: Expected | None, voxel_mm3: float) -> Row:
    if expected is None:
        return {"is_there": not found.any(), "is_outside": True}
    voxels = int(found.sum())
    masks = {"dice": expected.mask, "dice_same_volume": expected.same_volume}
    dices = {
        name: 2 * int((found[expected.box] & mask).sum()) / max(1, voxels + int(mask.sum()))
        for name, mask in masks.items()
    }
    return {
        "is_there": bool(found.any()),
        "is_outside": False,
        **dices,
        "mm3": voxels * voxel_mm3,
        "expected_mm3": expected.volume_mm3,
        "volume_error": voxels * voxel_mm3 / expected.volume_mm3 - 1,
    }


# ---- what is printed

HEAD: Final = (
    "study series  registration, mean mm: t1n   t2w   t2f    ct  largest  brain  TC imported    own"
    "  lesions  Dice MR    CT  volume  import s  infer  export    all"
)


def show(row: Row) -> str:
    if row["exit_code"] != 0:
        return f"{row['study']:5d}  exit code {row['exit_code']}"
    means = [row["registration"][name].get("mean_mm", np.nan) for name in MOVED]
    largest = max(row["registration"][name].get("max_mm", np.nan) for name in MOVED)
    dices, wall = row["core_dice"], row["wall_s"]
    import_s = wall["import"] + wall["recognise"]
    worst = {name: min((item["dice"] for item in large(row, name)), default=np.nan) for name in ("t1c", "ct")}
    volume = max((abs(item["volume_error"]) for item in large(row)), default=0)
    count = len({item["name"] for item in row["structures"]})
    return (
        f"{row['study']:5d} {row['recognised']:6d} {'':23s}" + "".join(f"{mean:6.2f}" for mean in means)
        + f" {largest:8.2f}  {row['brain']['dice']:.3f} {dices['imported']:12.3f} {dices['own']:6.3f}"
        f" {count:8d} {worst['t1c']:8.3f} {worst['ct']:5.3f} {volume:7.1%}"
        f" {import_s:9.1f} {wall['infer, report']:6.1f} {wall['export']:7.1f} {wall['all']:6.1f}"
    )  # fmt: skip


def large(row: Row, *on: str) -> list[Row]:
    """Structures over `LARGE_MM3` that lie on these series, or on any."""
    return [
        item
        for item in row["structures"]
        if not item["is_outside"] and item["expected_mm3"] > LARGE_MM3 and item["on"] in (on or ("t1c", "ct"))
    ]


def summarise(rows: list[Row]) -> None:
    done = [row for row in rows if row["exit_code"] == 0]
    print(f"\n{len(done)} of {len(rows)} studies complete                                   aim")
    if not done:
        return
    right = sum(row["recognised"] == len(MOVED) + 1 for row in done)
    print(f"all series recognised and registered {f'{right} of {len(rows)}':>24}   all")
    for name in MOVED:
        errors = [row["registration"][name] for row in done if "mean_mm" in row["registration"][name]]
        means, largest = ([item[key] for item in errors] for key in ("mean_mm", "max_mm"))
        say(
            f"registration of {name}, mm: mean, worst mean, largest", "1 mean", np.mean(means), max(means), max(largest)
        )
    masks = [row["brain"]["dice"] for row in done]
    say("brain mask's Dice: mean, lowest", ".95", np.mean(masks), min(masks))
    for way in ("own", "known"):
        pairs = [(row["core_dice"]["imported"], row["core_dice"][way]) for row in done if way in row["core_dice"]]
        if pairs:
            imported, other = np.array(pairs).T
            less = imported - other
            means = (imported.mean(), other.mean(), less.mean(), less.min())
            say(f"TC Dice: imported, {way}, mean and lowest difference", "-.05", *means)
    for name in ("t1c", "ct"):
        own = [item for row in done for item in row["structures"] if item["on"] == name and not item["is_outside"]]
        outside = sum(item["on"] == name and item["is_outside"] for row in done for item in row["structures"])
        there = sum(item["is_there"] for item in own)
        print(f"lesions on {name}, of each reader: {there} of {len(own)} there, {outside} outside the field of view")
        big = [item for row in done for item in large(row, name)]
        if big:
            for key, words in (("dice", "Dice"), ("dice_same_volume", "Dice, same volume")):
                dices = [item[key] for item in big]
                say(f"  over {LARGE_MM3:g} mm3: {words}, mean, lowest", ".95", np.mean(dices), min(dices))
            volumes = [abs(item["volume_error"]) for item in big]
            say("  over 100 mm3: volume's error, mean, largest", ".05", np.mean(volumes), max(volumes))
            small = [abs(item["volume_error"]) for item in own if 10 < item["expected_mm3"] <= LARGE_MM3]
            say("  10 to 100 mm3: volume's error, mean, largest", ".05", np.mean(small), max(small))
    for kind in ("wall_s", "processor_s"):
        print(f"{kind}, mean (largest): " + "; ".join(
            f"{name} {np.mean([row[kind][name] for row in done]):.1f} ({max(row[kind][name] for row in done):.1f})"
            for name in done[0][kind]
        ))  # fmt: skip
    print("of import, wall s, mean: " + "; ".join(
        f"{name} {np.mean([row['import_s'][name] for row in done]):.1f}" for name in done[0]["import_s"]
    ))  # fmt: skip


def say(what: str, aim: str, *values: float) -> None:
    print(f"{what:55s} {' '.join(f'{value:7.3f}' for value in values):32s} {aim}")


if __name__ == "__main__":
    main()
