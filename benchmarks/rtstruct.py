"""RT Structure Sets: seconds for a case of many lesions, and what contours and placing lose, beside other ways.

    python -m benchmarks.rtstruct [--lesions 30] [--trials 240]

Three tables: processor seconds of `export-dicom` on an MR and on a planning CT; balls on their own grid, drawn and
filled again in two ways; ellipsoids of an MR's grid brought to a CT's. The tables of decision 061 are from here.
"""

import argparse
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation
from skimage.draw import polygon2mask
from skimage.measure import find_contours

from benchmarks.dicom_series import LPS_TO_RAS, make_images, write_images
from metseg.dicom.contours import trace_mask
from metseg.dicom.export import Destination, export_dicom
from metseg.dicom.placing import place_by_volume
from metseg.dicom.series import read_series
from metseg.space.grid import Grid
from metseg.space.rigid import resample_rigid
from metseg.systems import BRATS

MR_GRIDS = ((1.0, 1.0, 1.0), (0.86, 0.86, 1.5))
CT_GRIDS = ((0.6, 0.6, 2.0), (0.98, 0.98, 2.5), (0.7, 0.7, 1.0), (1.17, 1.17, 3.0))
SIZES_MM3 = {"under 30": 30.0, "30 to 100": 100.0, "100 to 1000": 1000.0, "over 1000": np.inf}


# ---- seconds


def write_series(folder: Path, shape: Sequence[int], spacing: Sequence[float], *, is_ct: bool) -> np.ndarray:
    """Writes axial images without pixels of interest; returns voxel to RAS mm."""
    affine = np.diag([*spacing, 1.0])
    affine[:2, 3] = -np.array(spacing[:2]) * shape[:2] / 2
    uids = [generate_uid() for _ in range(3)]
    write_images(folder, make_images(np.zeros(shape, np.int16), LPS_TO_RAS @ affine, {}, uids, is_ct=is_ct))
    return LPS_TO_RAS @ affine


def draw_balls(shape: Sequence[int], spacing: np.ndarray, count: int) -> np.ndarray:
    """A label map with so many separate balls of 1.5 to 14 mm radius."""
    rng, labels, taken = np.random.default_rng(0), np.zeros(shape, dtype=np.uint8), []
    while len(taken) < count:
        centre, radius = rng.uniform(0.25, 0.75, 3) * shape, np.exp(rng.uniform(np.log(1.5), np.log(14)))
        if all(np.linalg.norm((centre - other) * spacing) > radius + reach + 3 for other, reach in taken):
            taken.append((centre, radius))
            first = np.floor(centre - radius / spacing).astype(int)
            box = tuple(slice(low, low + int(2 * radius / side) + 3) for low, side in zip(first, spacing, strict=True))
            away = np.indices(labels[box].shape).transpose(1, 2, 3, 0) + first - centre
            labels[box][np.linalg.norm(away * spacing, axis=-1) <= radius] = 3
    return labels


def time_exports(lesions: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, shape, spacing = Path(name), (256, 256, 180), np.array([0.94, 0.94, 1.0])
        affine = write_series(folder / "mr", shape, spacing, is_ct=False)
        write_series(folder / "ct", (512, 512, 200), (0.6, 0.6, 1.0), is_ct=True)
        nib.save(nib.Nifti1Image(draw_balls(shape, spacing, lesions), affine), folder / "c.nii.gz")
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("xyz", (3, -4, 5), degrees=True).as_matrix()
        for series, matrix in (("mr", None), ("ct", turn)):
            for kind in ("seg", "rtstruct"):
                start, output = time.process_time(), folder / f"{series}-{kind}.dcm"
                export_dicom(
                    folder / "c.nii.gz", Destination(read_series(folder / series), matrix), {kind: output}, BRATS
                )
                took_s, size_mb = time.process_time() - start, output.stat().st_size / 2**20
                print(f"{lesions} lesions, {kind} on {series}: {took_s:.1f} s of processor time, {size_mb:.1f} MB")


# ---- contours


def march(mask: np.ndarray) -> list[np.ndarray]:
    return [polygon[:-1] - 1 for polygon in find_contours(np.pad(mask, 1).astype(float), 0.5)]


def follow_centres(mask: np.ndarray) -> list[np.ndarray]:
    found, _ = cv2.findContours(mask.T.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [polygon[:, 0].astype(float) for polygon in found]


def fill_by_centres(polygon: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return polygon2mask(shape, polygon) if len(polygon) > 2 else np.zeros(shape, dtype=bool)


def fill_by_corners(polygon: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    filled = np.zeros(shape[::-1], dtype=np.uint8)
    cv2.fillPoly(filled, [np.floor(polygon + 0.5).astype(np.int32)], 1)
    return filled.T > 0


def area(polygon: np.ndarray) -> float:
    column, row = polygon.T
    return abs((column * np.roll(row, -1) - np.roll(column, -1) * row).sum()) / 2


def compare_contours() -> None:
    rng = np.random.default_rng(3)
    ways = {"pixels' edges": trace_mask, "marching squares": march, "pixels' centres": follow_centres}
    print("\nvoxels, contour: area; Dice and volume by pixels' centres; the same by corners (fillPoly)")
    for voxels in (1, 100, 5000):
        found = defaultdict(list)
        for _ in range(6):
            half = int((3 * voxels / 4 / np.pi) ** (1 / 3) + 3)
            away = np.indices([2 * half + 1] * 3).transpose(1, 2, 3, 0) - half - rng.uniform(-0.5, 0.5, 3)
            ball = keep_first(-np.linalg.norm(away, axis=-1), voxels)
            for name, trace in ways.items():
                slices = [(index, trace(ball[..., index])) for index in range(ball.shape[2]) if ball[..., index].any()]
                row = [sum(area(polygon) for _, polygons in slices for polygon in polygons) / voxels - 1]
                for fill in (fill_by_centres, fill_by_corners):
                    filled = np.zeros_like(ball)
                    for index, polygons in slices:
                        for polygon in polygons:
                            filled[..., index] ^= fill(polygon, ball.shape[:2])
                    row += [dice(filled, ball), filled.sum() / voxels - 1]
                found[name].append(row)
        for name, rows in found.items():
            ground, one, off_one, other, off_other = np.mean(rows, axis=0)
            print(f"{voxels:5d} {name:17s} {ground:+7.1%}  {one:.2f} {off_one:+6.0%}  {other:.2f} {off_other:+6.0%}")


# ---- placing


def keep_first(values: np.ndarray, count: int) -> np.ndarray:
    kept = np.zeros(values.size, dtype=bool)
    kept[np.argsort(-values, axis=None, kind="stable")[:count]] = True
    return kept.reshape(values.shape)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / max(1, one.sum() + other.sum())


def cover(grid: Grid, to_ball: np.ndarray) -> np.ndarray:
    """How much of each voxel lies in the unit ball; `to_ball` takes RAS mm to it."""
    samples = 4
    places = [(np.arange(side * samples) + 0.5) / samples - 0.5 for side in grid.shape]
    index = np.stack(np.meshgrid(*places, indexing="ij")).reshape(3, -1)
    points = to_ball @ (grid.affine[:3, :3] @ index + grid.affine[:3, 3:])
    shape = [part for side in grid.shape for part in (side, samples)]
    return ((points**2).sum(axis=0) <= 1).reshape(shape).mean(axis=(1, 3, 5))


def make_grid(spacing: Sequence[float], reach_mm: float, rng: np.random.Generator, turn: np.ndarray) -> Grid:
    shape = tuple(int(np.ceil(2 * reach_mm / side)) for side in spacing)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2 + rng.uniform(-0.5, 0.5, 3))
    return Grid(shape, affine)


def place_marched(labels: np.ndarray, mr: Grid, ct: Grid) -> np.ndarray:
    """Linear, on places three times as dense within the slices; marching squares at a half; filled by centres."""
    finer = np.diag([1 / 3, 1 / 3, 1.0, 1.0])
    finer[:2, 3] = -1 / 3
    dense = Grid((3 * ct.shape[0], 3 * ct.shape[1], ct.shape[2]), ct.affine @ finer)
    soft = resample_rigid(labels.astype(np.float32), mr, dense, np.eye(4), outside=0)
    filled = np.zeros(ct.shape, dtype=bool)
    for index in range(ct.shape[2]):
        for polygon in find_contours(np.pad(soft[..., index], 1), 0.5):
            filled[..., index] ^= polygon2mask(ct.shape[:2], (polygon - 1 + 0.5) / 3 - 0.5)
    return filled


def place_volume(labels: np.ndarray, mr: Grid, ct: Grid) -> np.ndarray:
    filled = np.zeros(ct.shape, dtype=bool)
    placed = place_by_volume(tuple(slice(0, side) for side in labels.shape), labels, mr, ct)
    if placed is not None:
        filled[placed.box] = placed.mask
    return filled


def place_cut(labels: np.ndarray, mr: Grid, ct: Grid) -> np.ndarray:
    return resample_rigid(labels.astype(np.float32), mr, ct, np.eye(4), outside=0) >= 0.5


def compare_placing(trials: int) -> None:
    ways = {"by volume": place_volume, "linear, cut at a half": place_cut, "marching squares at a half": place_marched}
    rng, found = np.random.default_rng(1), defaultdict(list)
    for trial in range(trials):
        volume_mm3 = np.exp(rng.uniform(0, np.log(15000)))
        radii = (3 * volume_mm3 / 4 / np.pi) ** (1 / 3) * np.exp(rng.uniform(-0.25, 0.25, 3))
        to_ball = Rotation.random(random_state=trial).as_matrix() / radii[:, None]
        turn = Rotation.from_euler("xyz", rng.uniform(-10, 10, 3), degrees=True).as_matrix()
        mr = make_grid(MR_GRIDS[trial % 2], radii.max() + 4, rng, np.eye(3))
        ct = make_grid(CT_GRIDS[trial // 2 % 4], 1.2 * radii.max() + 5, rng, turn)
        labels, truth = (
            keep_first(part, max(1, round(part.sum()))) for part in (cover(mr, to_ball), cover(ct, to_ball))
        )
        labelled_mm3 = labels.sum() * mr.voxel_volume_mm3
        size = next(name for name, end in SIZES_MM3.items() if labelled_mm3 < end)
        for name, place in ways.items():
            moved = place(labels, mr, ct)
            off = moved.sum() * ct.voxel_volume_mm3 / labelled_mm3 - 1
            found[size, name].append((dice(moved, truth), abs(off), not moved.any()))
    print("\nmm3, way: Dice to the ellipsoid; largest error of volume; lost")
    for size in SIZES_MM3:
        for name in ways:
            rows = np.array(found[size, name], dtype=float).reshape(-1, 3)
            if len(rows):
                mean, worst, lost = rows[:, 0].mean(), rows[:, 1].max(), int(rows[:, 2].sum())
                print(f"{size:12s} {name:27s} {mean:.3f} {worst:6.1%} {lost:3d} of {len(rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesions", type=int, default=30)
    parser.add_argument("--trials", type=int, default=240)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    time_exports(arguments.lesions)
    compare_contours()
    compare_placing(arguments.trials)


if __name__ == "__main__":
    main()
