"""How far the obvious shortcut gets: a threshold on t1c - t1n with a size filter, no network.

    python -m benchmarks.shortcut --tune COHORT --data HOLDOUT --output FOLDER

Threshold (in units of the difference's spread inside the head) and smallest component are chosen on COHORT by the
lesion-wise Dice of 2023, then HOLDOUT is segmented into FOLDER, one label map per case, to score like others:

    python -m evaluation score --protocol brats2023 --reference-path HOLDOUT --prediction-path FOLDER
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from nibabel.loadsave import save
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from evaluation import score_case
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.files.read import read_case, read_label_map
from metseg.labels import BRATS_REGIONS, ET, LabelMap
from metseg.space.components import find_components
from training.references import find_reference

THRESHOLDS = (2.0, 3.0, 4.0, 5.0, 7.0)
SIZES = (20, 50, 100, 300, 1000)
SMOOTHING_VOXELS = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=12, help="of COHORT, the first by ID")
    arguments = parser.parse_args()
    threshold, size = tuned(discover_cases(arguments.tune)[: arguments.cases])
    arguments.output.mkdir(parents=True, exist_ok=True)
    for files in discover_cases(arguments.data):
        difference, affine = enhancement(files)
        save(Nifti1Image(segment(difference, threshold, size), affine), arguments.output / f"{files.case_id}.nii.gz")
        print(files.case_id, flush=True)


def tuned(cases: tuple[CaseFiles, ...]) -> tuple[float, int]:
    """The threshold and smallest component with the highest mean lesion-wise Dice."""
    totals = dict.fromkeys(product(THRESHOLDS, SIZES), 0.0)
    for files in cases:
        difference, _ = enhancement(files)
        reference = read_label_map(find_reference(files))
        for threshold, size in totals:
            labels = segment(difference, threshold, size)
            result = score_case(reference.labels, labels, reference.grid.spacing_mm, "brats2023")
            dice = [
                item.columns()["LesionWise_Score_Dice"] for item in result.regions if item.region in BRATS_REGIONS.names
            ]
            totals[threshold, size] += float(np.mean(dice)) / len(cases)
    best = max(totals, key=lambda setting: totals[setting])
    print(
        f"threshold {best[0]:g}, {best[1]} voxels or more: mean lesion-wise Dice {totals[best]:.3f} where it was tuned"
    )
    return best


def enhancement(files: CaseFiles) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """t1c - t1n after matching the medians, over the robust spread inside the head; and the affine."""
    case = read_case(files, modalities=("t1c", "t1n"))
    t1c, t1n = (case.images[name].astype(np.float32) for name in ("t1c", "t1n"))
    head = (t1c > 0) & (t1n > 0)
    difference = t1c / np.median(t1c[head]) - t1n / np.median(t1n[head])
    inside = difference[head]
    low, middle, high = np.percentile(inside, [16, 50, 84])
    scaled = np.where(head, (difference - middle) / ((high - low) / 2), 0).astype(np.float32)
    return gaussian_filter(scaled, SMOOTHING_VOXELS), case.grid.affine


def segment(difference: NDArray[np.float32], threshold: float, size: int) -> LabelMap:
    """Components above the threshold of at least so many voxels, as enhancing tumour."""
    mask = difference > threshold
    components = find_components(mask)
    labels = np.zeros(mask.shape, dtype=np.uint8)
    kept = components.sizes >= size
    labels.reshape(-1)[components.voxels[kept[components.component_of - 1]]] = ET
    return labels


if __name__ == "__main__":
    main()
