"""CPU seconds per case of both scoring protocols against the number of lesions, beside a plain implementation.

    python -m benchmarks.scores [--peer-lesions 25] [--repeats 3]

The peer follows the protocols' description literally: one full volume per lesion, SciPy for everything. It is written
independently of `evaluation`, and the tests compare the two on small maps.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from surface_distance.lookup_tables import ENCODE_NEIGHBOURHOOD_3D_KERNEL, create_table_neighbour_code_to_surface_area

from evaluation import score_case

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Row = tuple[float, ...]

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
ROLES = ("ref", "pred")
SHAPE = (240, 240, 155)
LESIONS = (0, 1, 5, 25, 100)
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
TOUCHING = np.ones((3, 3, 3))
STRUCTURE_18 = ndimage.generate_binary_structure(3, 2)
CROSS = ndimage.generate_binary_structure(3, 1)


def plain_brats2023(
    reference: Labels, prediction: Labels, spacing: Spacing, dilation: int = 1, ignored_mm3: float = 2.0
) -> dict[str, Row]:
    """Region to (tp, fp, fn, lesion-wise Dice, lesion-wise HD95), one full volume per lesion."""
    return {
        region: _plain_2023_region(_mask(reference, labels), _mask(prediction, labels), spacing, dilation, ignored_mm3)
        for region, labels in REGIONS.items()
    }


def _mask(labels: Labels, wanted: Sequence[int]) -> Mask:
    return np.isin(np.arange(256), wanted)[labels]


def _plain_2023_region(reference: Mask, prediction: Mask, spacing: Spacing, dilation: int, ignored_mm3: float) -> Row:
    groups, group_count = ndimage.label(ndimage.binary_dilation(reference, STRUCTURE_18, dilation), TOUCHING)
    components, component_count = ndimage.label(prediction, TOUCHING)
    matched, tp, fn, dice_sum, hd95_sum = set(), 0, 0, 0.0, 0.0
    for number in range(1, group_count + 1):
        lesion = reference & (groups == number)
        touched = np.unique(components[ndimage.binary_dilation(lesion, STRUCTURE_18, dilation)])
        touched = touched[touched > 0]
        matched |= set(touched.tolist())
        if lesion.sum() * np.prod(spacing) <= ignored_mm3:
            continue
        found = np.isin(components, touched)
        tp, fn = tp + (len(touched) > 0), fn + (len(touched) == 0)
        dice_sum += 2 * (lesion & found).sum() / (lesion.sum() + found.sum())
        hd95_sum += plain_surfel_hd95(lesion, found, spacing) if found.any() else 374.0
    fp = component_count - len(matched)
    entries = tp + fn + fp
    if entries == 0:
        return 0, 0, 0, 1.0, 0.0
    return tp, fp, fn, dice_sum / entries, (hd95_sum + 374.0 * fp) / entries


def plain_surfel_hd95(first: Mask, second: Mask, spacing: Spacing) -> float:
    """Area-weighted HD95 of two masks that are not empty."""
    box = ndimage.find_objects((first | second).astype(np.uint8))[0]
    areas = create_table_neighbour_code_to_surface_area(spacing)
    codes = [
        ndimage.correlate(np.pad(mask[box], 1).astype(np.uint8), ENCODE_NEIGHBOURHOOD_3D_KERNEL, mode="constant")
        for mask in (first, second)
    ]
    borders = [(code > 0) & (code < 255) for code in codes]
    percentiles = []
    for here, there in ((0, 1), (1, 0)):
        distances = ndimage.distance_transform_edt(~borders[there], sampling=spacing)[borders[here]]
        weights = areas[codes[here][borders[here]]]
        order = np.lexsort((weights, distances))
        reached = np.searchsorted(np.cumsum(weights[order]) / weights[order].sum(), 0.95)
        percentiles.append(distances[order][min(reached, len(order) - 1)])
    return float(max(percentiles))


def plain_brats2026(reference: Labels, prediction: Labels, spacing: Spacing) -> dict[str, Row]:
    """Region to (tp, fp, fn, mean DSC, mean HD95, mean NSD) in true millimetres, one full volume per instance."""
    regions = {"ET": REGIONS["ET"], "RC": (4,), "TC": REGIONS["TC"], "WT": REGIONS["WT"]}
    return {
        region: _plain_2026_region(_mask(reference, labels), _mask(prediction, labels), spacing)
        for region, labels in regions.items()
    }


def _plain_2026_region(reference: Mask, prediction: Mask, spacing: Spacing) -> Row:
    # Transposed: the numbers of the components, and with them the ties, follow (z, y, x).
    first, first_count = ndimage.label(reference.T, TOUCHING)
    second, second_count = ndimage.label(prediction.T, TOUCHING)
    dice = np.zeros((first_count, second_count))
    for row in range(first_count):
        instance = first == row + 1
        for other in np.unique(second[instance]):
            if other:
                candidate = second == other
                dice[row, other - 1] = 2 * (instance & candidate).sum() / (instance.sum() + candidate.sum())
    rows, columns = linear_sum_assignment(np.where(dice > 1e-6, 1 - dice, 1 + 1e-6)) if dice.size else ((), ())
    partner = {row: column for row, column in zip(rows, columns, strict=True) if dice[row, column] > 1e-6}
    values = []
    for row in range(first_count):
        instance = first == row + 1
        if instance.sum() * np.prod(spacing) < 27:
            continue
        if row not in partner:
            values.append((0.0, 373.0, 0.0))
            continue
        agreement = _plain_agreement(instance, second == partner[row] + 1, spacing[::-1])
        values.append((dice[row, partner[row]], *agreement))
    fp = second_count - len(partner)
    means = np.mean(values + [(0.0, 373.0, 0.0)] * fp, axis=0) if values else [np.nan] * 3
    return len(partner), fp, first_count - len(partner), *map(float, means)


def _plain_agreement(first: Mask, second: Mask, spacing: Spacing) -> tuple[float, float]:
    box = ndimage.find_objects((first | second).astype(np.uint8))[0]
    masks = [np.pad(mask[box], 1) for mask in (first, second)]
    surfaces = [mask & ~ndimage.binary_erosion(mask, CROSS) for mask in masks]
    maps = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    distances = [maps[1][surfaces[0]], maps[0][surfaces[1]]]
    shares = [(part <= min(spacing)).mean() for part in distances]
    return float(np.percentile(np.concatenate(distances), 95)), float(np.mean(shares))


def build_phantom(lesions: int, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> tuple[Labels, Labels]:
    """A reference with this many nested balls and a prediction that shifts, misses and invents some."""
    generator = np.random.default_rng(seed)
    reference, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for _ in range(lesions):
        centre = [int(generator.integers(20, side - 20)) for side in shape]
        radius = float(generator.uniform(2, 7))
        _draw(reference, centre, radius)
        if generator.random() < 0.85:
            _draw(prediction, [side + int(generator.integers(-1, 2)) for side in centre], radius * 0.9)
        if generator.random() < 0.2:
            _draw(prediction, [int(generator.integers(20, side - 20)) for side in shape], 2.0)
    return reference, prediction


def _draw(labels: Labels, centre: Sequence[int], radius: float) -> None:
    reach = int(np.ceil(2 * radius))
    box = tuple(slice(max(0, side - reach), side + reach + 1) for side in centre)
    grid = np.ogrid[
        tuple(slice(part.start, min(part.stop, size)) for part, size in zip(box, labels.shape, strict=True))
    ]
    distance = np.sqrt(sum((axis - side) ** 2 for axis, side in zip(grid, centre, strict=True)))
    view = labels[box]
    view[(distance <= 1.6 * radius) & (view == 0)] = 2
    view[distance <= radius] = 3
    view[distance <= 0.4 * radius] = 1


def fastest(function: Callable[[], object], repeats: int) -> float:
    """CPU seconds of the fastest of some runs: this process's own, whatever else the machine does."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def time_golden_case(repeats: int) -> None:
    """The golden case `large`, reading included, beside what the official 2023 script took when it was recorded."""
    official = json.loads((GOLDEN / "scores.json").read_text())["seconds_of_the_official_2023_script"]["large"]
    header = nib.load(GOLDEN / "labelmaps" / "large-ref.nii.gz").header
    for protocol in ("brats2023", "brats2026"):

        def read_and_score(name: str = protocol) -> None:
            maps = [np.asanyarray(nib.load(GOLDEN / "labelmaps" / f"large-{role}.nii.gz").dataobj) for role in ROLES]
            score_case(*maps, header.get_zooms(), name)

        seconds = fastest(read_and_score, repeats)
        beside = f", the official script took {official:.0f} s on a busy machine" if protocol == "brats2023" else ""
        print(f"golden case large, {protocol}: {seconds:.3f} s with reading{beside}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-lesions", type=int, default=25, help="run the peer up to this many lesions")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours, of which the fastest counts")
    arguments = parser.parse_args()
    phantoms = {lesions: build_phantom(lesions) for lesions in LESIONS}
    score_case(*phantoms[1], (1, 1, 1), "brats2023")  # imports and tables
    print(f"grid {SHAPE}, 1 mm, one thread; CPU seconds per case; ours: fastest of {arguments.repeats}, peer: one run")
    print(f"{'protocol':10} {'lesions':>7} {'components':>10} {'ours':>8} {'peer':>8} {'ratio':>7}")
    memory = 0
    rows = []
    for protocol, peer in (("brats2023", plain_brats2023), ("brats2026", plain_brats2026)):
        for lesions, (reference, prediction) in phantoms.items():
            ours = fastest(
                lambda r=reference, p=prediction, n=protocol: score_case(r, p, (1, 1, 1), n), arguments.repeats
            )
            rows.append((protocol, peer, lesions, ours))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # before the peer: ours alone
    for protocol, peer, lesions, ours in rows:
        reference, prediction = phantoms[lesions]
        components = ndimage.label(reference, TOUCHING)[1]
        line = f"{protocol:10} {lesions:7} {components:10} {ours:8.3f}"
        if lesions <= arguments.peer_lesions:
            theirs = fastest(lambda r=reference, p=prediction, f=peer: f(r, p, (1.0, 1.0, 1.0)), 1)
            line += f" {theirs:8.2f} {theirs / ours:7.0f}"
        print(line, flush=True)
    time_golden_case(arguments.repeats)
    print(f"peak memory of the process while ours ran: {memory:.2f} GiB")


if __name__ == "__main__":
    main()
