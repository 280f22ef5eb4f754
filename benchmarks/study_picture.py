"""A picture of what `metseg study` made of a study: contours of its RT Structure Sets on t1c and on the planning CT.

    python -m benchmarks.study_picture STUDY OUT --output PICTURE.webp [--slice-of GTV01] [--with-brain]

STUDY and OUT are the folders that `metseg study` had, for one study with a planning CT. Each panel is the slice on
which the named structure is largest. --with-brain draws the edge of the brain that was found, too.
docs/images/study.webp:

    python -m benchmarks.studies --work WORK --first 1 --studies 1
    python -m benchmarks.study_picture WORK/01/study WORK/01/out --output docs/images/study.webp
"""

import argparse
import io
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
import pydicom
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.dicom_series import LPS_TO_RAS
from metseg.dicom.import_case import recognise_study
from metseg.dicom.volume import read_volume
from metseg.files.case import Scan

PANELS: Final = (("t1c", "rtstruct.dcm", "contrast T1"), ("ct", "rtstruct-ct.dcm", "planning CT"))
SHOWN_HU: Final = (-40.0, 120.0)
INCHES, DPI = 4.0, 110

Polygons = list[tuple[str, str, np.ndarray]]
"""Name and colour of the structure, corners as (column, row, slice), shape (n, 3)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--slice-of", default="GTV01", help="how the structure's name begins")
    parser.add_argument("--with-brain", action="store_true")
    arguments = parser.parse_args()
    (objects,) = (arguments.out / "dicom").iterdir()
    chosen = recognise_study(arguments.study).chosen
    by_side = Figure(figsize=(2 * INCHES, INCHES), dpi=DPI, facecolor="black")
    for column, (modality, name, title) in enumerate(PANELS):
        axes = by_side.add_axes((column / 2, 0, 0.5, 1))
        scan = read_volume(chosen[modality].stack)
        polygons = read_polygons(objects / name, scan)
        index = find_fullest(polygons, arguments.slice_of)
        if arguments.with_brain and modality == "t1c":
            case = arguments.out / "cases" / objects.name
            brain = np.asarray(nib.load(case / f"{objects.name}-t1c.nii.gz").dataobj)[:, :, index] != 0
            axes.contour(brain.T, levels=[0.5], colors="#56b4e9", linewidths=0.6)
        draw(axes, scan, polygons, index)
        axes.text(0.03, 0.96, title, transform=axes.transAxes, color="#e8e8e8", fontsize=9, va="top")
    buffer = io.BytesIO()
    by_side.savefig(buffer, format="png", facecolor="black")
    Image.open(buffer).convert("RGB").save(arguments.output, quality=80)


def read_polygons(path: Path, scan: Scan) -> Polygons:
    data: Any = pydicom.dcmread(path)
    names = {item.ROINumber: str(item.ROIName) for item in data.StructureSetROISequence}
    to_index = np.linalg.inv(LPS_TO_RAS @ scan.grid.affine)
    found = []
    for item in data.ROIContourSequence:
        colour = "#" + "".join(f"{int(part):02x}" for part in item.ROIDisplayColor)
        for contour in item.get("ContourSequence", ()):
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3).T
            places = to_index[:3, :3] @ points + to_index[:3, 3:]
            found.append((names[item.ReferencedROINumber], colour, places.T))
    return found


def find_fullest(polygons: Polygons, beginning: str) -> int:
    """The slice on which the polygons of a structure enclose most."""
    areas: dict[int, float] = {}
    for name, _, corners in polygons:
        if name.startswith(beginning):
            x, y, z = corners.T
            index = round(float(z.mean()))
            areas[index] = areas.get(index, 0.0) + abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    if not areas:
        raise SystemExit(f"no structure begins with {beginning}")
    return max(areas, key=lambda index: areas[index])


def draw(axes: Axes, scan: Scan, polygons: Polygons, index: int) -> None:
    layer = scan.voxels[:, :, index].T
    low, high = SHOWN_HU if scan.voxels.min() < -500 else (0.0, float(np.percentile(layer, 99.8)))
    columns_mm, rows_mm, _ = scan.grid.spacing_mm
    axes.imshow(layer, cmap="gray", vmin=low, vmax=high, aspect=rows_mm / columns_mm)
    for _, colour, corners in polygons:
        if round(float(corners[:, 2].mean())) == index:
            axes.fill(corners[:, 0], corners[:, 1], fill=False, edgecolor=colour, linewidth=1.3)
    rows, columns = np.nonzero(layer > low + 0.1 * (high - low))
    (left, right), (top, bottom) = np.percentile(columns, (0.2, 99.8)), np.percentile(rows, (0.2, 99.8))
    middle, centre, half_mm = (left + right) / 2, (top + bottom) / 2, 112.0
    axes.set_xlim(middle - half_mm / columns_mm, middle + half_mm / columns_mm)
    axes.set_ylim(centre + half_mm / rows_mm, centre - half_mm / rows_mm)
    axes.set_axis_off()
    axes.set_facecolor("black")


if __name__ == "__main__":
    main()
