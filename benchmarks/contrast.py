"""How many lesions are found, by contrast and volume: of a cohort with references and the label maps made of it.

    python -m benchmarks.contrast --data COHORT --predictions FOLDER

A lesion is a component of the tumour core; its contrast is what `training.cohort.measure` says: mean t1c of its
enhancing part over its surroundings, in units of their spread, noise and normal variation together. It counts as found
where the predicted core shares a voxel with it.
"""

import argparse
import itertools
from collections.abc import Sequence
from math import inf, isnan
from pathlib import Path

from training.cohort.measure import VOLUME_LIMITS_MM3, MeasuredLesion, measure_cohort

CONTRAST_LIMITS = (-inf, 1.0, 2.0, 4.0, 8.0, inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    arguments = parser.parse_args()
    lesions = [lesion for case in measure_cohort(arguments.data, arguments.predictions) for lesion in case.lesions]
    edges = (0, *VOLUME_LIMITS_MM3, inf)
    volumes = list(itertools.pairwise(edges))
    print("| contrast | " + " | ".join(f"{low:g} to {high:g} mm3" for low, high in volumes) + " | all |")
    print("|---" * (len(volumes) + 2) + "|")
    for low, high in itertools.pairwise(CONTRAST_LIMITS):
        row = [lesion for lesion in lesions if low < lesion.contrast <= high]
        print(f"| {low:g} to {high:g} | {cells(row, volumes)} |")
    print(f"| not enhancing | {cells([lesion for lesion in lesions if isnan(lesion.contrast)], volumes)} |")
    print(f"| all | {cells(lesions, volumes)} |")


def cells(lesions: Sequence[MeasuredLesion], volumes: Sequence[tuple[float, float]]) -> str:
    sizes = [[lesion for lesion in lesions if low < lesion.volume_mm3 <= high] for low, high in volumes]
    return " | ".join(share(some) for some in (*sizes, lesions))


def share(lesions: Sequence[MeasuredLesion]) -> str:
    found = sum(bool(lesion.found) for lesion in lesions)
    return f"{found / len(lesions):.0%} of {len(lesions)}" if lesions else "-"


if __name__ == "__main__":
    main()
