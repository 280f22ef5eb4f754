"""What resampling to the network's grid and back does to a label map, and what it costs.

    python -m benchmarks.geometry

Random ellipsoid lesions (oedema around an enhancing ring around a core), grouped by the volume of their WT in the grid
where they begin. `there and back` takes a label map from the source grid to the network's and back, as a reference
travels. `back and there` takes it from the network's grid to the source grid and back, as a prediction does when it is
scored in the network's grid. A lesion survives if the map that comes back has a voxel within 1 mm of it (half the
longest voxel side if that is more). docs/geometry.md has the figures.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metseg.labels import BRATS_REGIONS, ET, NETC, SNFH
from metseg.space.components import find_components
from metseg.space.grid import Grid
from metseg.space.resampling import (
    Resampling,
    find_resampling,
    labels_to_network,
    labels_to_source,
    to_network,
    volume_to_source,
)

Volume = NDArray[np.generic]
Bin = tuple[str, float, float]

BINS: tuple[Bin, ...] = (("< 5", 0, 5), ("5-15", 5, 15), ("15-50", 15, 50), ("50-500", 50, 500), ("> 500", 500, 1e9))
CENTRES_APART_MM = 22
N_MAPS = 6


def turned(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    x, y, z = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def grid_of(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    signs: tuple[int, int, int],
    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = turned(degrees) @ np.diag(signs) * spacing
    return Grid(shape, affine)


GRIDS = {
    "SRI24, LPS, 240x240x155, 1 mm": grid_of((240, 240, 155), (1, 1, 1), (-1, -1, 1)),
    "LPS, 256x256x106, 0.8594x0.8594x1.5 mm": grid_of((256, 256, 106), (0.8594, 0.8594, 1.5), (-1, -1, 1)),
    "RAS, 512x512x176, 0.5x0.5x1 mm": grid_of((512, 512, 176), (0.5, 0.5, 1.0), (1, 1, 1)),
    "oblique, 256x256x106, 0.8594x0.8594x1.5 mm": grid_of(
        (256, 256, 106), (0.8594, 0.8594, 1.5), (-1, 1, 1), (12, -9, 17)
    ),
    "RAS, 256x256x32, 0.9x0.9x5 mm": grid_of((256, 256, 32), (0.9, 0.9, 5.0), (1, 1, 1)),
}


def random_labels(grid: Grid, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Ellipsoids on a lattice, so that none touches another; many small, few large."""
    labels = np.zeros(grid.shape, dtype=np.uint8)
    spacing = np.array(grid.spacing_mm)
    extent = spacing * grid.shape
    cells = [np.arange(CENTRES_APART_MM, side - CENTRES_APART_MM, CENTRES_APART_MM) for side in extent]
    for cell in np.stack(np.meshgrid(*cells, indexing="ij"), axis=-1).reshape(-1, 3):
        centre = cell + rng.uniform(-2, 2, 3)
        radii = rng.choice([0.8, 1.2, 1.6, 2.2, 3.2, 6.0]) * rng.uniform(0.8, 1.25, 3)
        low = np.maximum(np.floor((centre - 10) / spacing), 0).astype(int)
        high = np.minimum(np.ceil((centre + 10) / spacing), grid.shape).astype(int)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        mm = [np.arange(a, b) * side - c for a, b, side, c in zip(low, high, spacing, centre, strict=True)]
        x, y, z = np.meshgrid(*mm, indexing="ij")
        distance = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
        part = labels[box]
        part[distance <= 1.2] = SNFH
        part[distance <= 1] = ET
        part[distance <= 0.5] = NETC
    return labels


def compare(
    grid: Grid,
    margin_mm: float,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    rows: dict[str, list[list[float]]],
) -> int:
    """Adds survival of WT and ET and Dice of WT of each lesion; returns how many lesions appeared from nothing."""
    lesions = find_components(before > 0).to_volume()
    volume = np.bincount(lesions.ravel())[1:] * grid.voxel_volume_mm3
    margin = [int(np.ceil(margin_mm / side)) for side in grid.spacing_mm]
    places = _boxes(lesions)
    explained = np.zeros(before.shape, dtype=np.bool_)
    for lesion, place in enumerate(places, start=1):
        box = tuple(slice(max(side.start - m, 0), side.stop + m) for side, m in zip(place, margin, strict=True))
        mine, theirs = lesions[box] == lesion, after[box] > 0
        explained[box] = True
        dice = 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum())
        had_et = bool((before[box][mine] == ET).any())
        kept_et = bool((after[box] == ET).any())
        name = next(label for label, low, high in BINS if low <= volume[lesion - 1] < high)
        rows.setdefault(name, []).append([bool(theirs.any()), kept_et if had_et else np.nan, dice])
    return int(find_components((after > 0) & ~explained).sizes.size)


def _boxes(lesions: NDArray[np.int32]) -> list[tuple[slice, ...]]:
    from scipy.ndimage import find_objects  # noqa: PLC0415

    return list(find_objects(lesions))


def report(title: str, rows: dict[str, list[list[float]]], strangers: int) -> None:
    print(f"  {title} (lesions that appeared elsewhere: {strangers})")
    print("    WT volume, mm3   lesions   WT survives   ET survives   Dice of WT: mean, 5th percentile")
    for name, _, _ in BINS:
        if name in rows:
            values = np.array(rows[name])
            et = np.nanmean(values[:, 1]) if np.isfinite(values[:, 1]).any() else np.nan
            low = np.percentile(values[:, 2], 5)
            print(
                f"    {name:>14}   {len(values):7d}   {values[:, 0].mean():11.3%}   {et:11.3%}"
                f"   {values[:, 2].mean():.3f}, {low:.3f}"
            )


def timed(function: Callable[..., Volume], *arguments: object) -> float:
    times = []
    for _ in range(3):
        start = time.process_time()
        function(*arguments)
        times.append(time.process_time() - start)
    return min(times)


def costs(resampling: Resampling, labels: NDArray[np.uint8], rng: np.random.Generator) -> None:
    image = np.zeros(resampling.source.shape, dtype=np.float32, order="F")
    brain = tuple(slice(int(0.15 * side), int(0.85 * side)) for side in image.shape)
    image[brain] = rng.random(image[brain].shape, dtype=np.float32)
    moved = to_network(image, resampling)
    there, back = timed(to_network, image, resampling), timed(volume_to_source, moved, resampling)
    of_labels = timed(labels_to_source, labels, resampling, BRATS_REGIONS)
    what = f"image to network {there:.3f}, volume to source {back:.3f}, labels to source {of_labels:.3f}"
    print(f"  processor seconds: {what}")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, grid in GRIDS.items():
        resampling = find_resampling(grid)
        print(f"{name}; network grid {'x'.join(map(str, resampling.network.shape))}")
        rng = np.random.default_rng(0)
        margin_mm = max(1.0, max(grid.spacing_mm) / 2)
        there_and_back: dict[str, list[list[float]]] = {}
        back_and_there: dict[str, list[list[float]]] = {}
        strangers = [0, 0]
        network_labels = np.zeros(0, dtype=np.uint8)
        for _ in range(1 if resampling.only_turns else N_MAPS):
            labels = random_labels(grid, rng)
            back = labels_to_source(labels_to_network(labels, resampling, BRATS_REGIONS), resampling, BRATS_REGIONS)
            strangers[0] += compare(grid, margin_mm, labels, back, there_and_back)
            network_labels = random_labels(resampling.network, rng)
            back = labels_to_network(
                labels_to_source(network_labels, resampling, BRATS_REGIONS), resampling, BRATS_REGIONS
            )
            strangers[1] += compare(resampling.network, margin_mm, network_labels, back, back_and_there)
        report("there and back: source -> network -> source", there_and_back, strangers[0])
        report("back and there: network -> source -> network", back_and_there, strangers[1])
        costs(resampling, network_labels, rng)


if __name__ == "__main__":
    main()
