"""What a missing image costs: each case with every set of its images that has t1c, in one run.

    python -m benchmarks.subsets FOLDER_OF_CASES [FOLDER_OF_CASES ...] [--weights weights/mets] [--plan NAME]
        [--cases N] [--results FOLDER]

The cases have a reference, `<ID>-seg.nii.gz`. Prints for every set the median Dice of each region over the whole case,
beside it the mean difference to all images, paired over cases, with its 95 % interval, the share of the reference's
cores (TC, 26-connected) that the label map touches, and the cores per case that touch none of the reference. A case
without a region in its reference does not count for that region. A plan that needs an image runs the sets that hold it.
With --results the label maps are kept, and a run with the same folder does only what is missing.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, median

import numpy as np

from benchmarks.reference_path import Overlap
from evaluation.summary import compare_paired
from metseg.errors import UsageError
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.files.read import read_label_map
from metseg.labels import LabelMap, Regions
from metseg.plan.bundle import bundle_folder, open_bundle
from metseg.plan.plan import Plan
from metseg.predict.device import choose_device
from metseg.predict.engine import Engine, load_engine
from metseg.run.pipeline import segment
from metseg.space.components import find_components
from metseg.systems import SOURCE_MODALITY, Modality


@dataclass(frozen=True, slots=True)
class Outcome:
    """A label map beside its reference.

    Attributes:
        dice: of each region that the reference has.
        cores: of the reference.
        found: those of them that the label map touches.
        invented: cores of the label map that touch no core of the reference.
    """

    dice: Mapping[str, float]
    cores: int
    found: int
    invented: int


def main() -> None:
    arguments = parse_arguments()
    engine = load_engine(open_bundle(bundle_folder(arguments.weights), arguments.plan), choose_device("auto"))
    sets = image_sets(engine.plan)
    found = (files for folder in arguments.folders for files in discover_cases(folder))
    cases = [files for files in found if set(files.images) >= set(sets[0])][: arguments.cases]
    if not cases:
        raise UsageError(f"no case of {', '.join(map(str, arguments.folders))} has {', '.join(sets[0])}")
    print(f"{engine.plan.name}, {len(cases)} cases; {engine.device.description}", flush=True)
    done: dict[tuple[Modality, ...], list[Outcome]] = {images: [] for images in sets}
    for files in cases:
        reference = read_label_map(files.folder / f"{files.case_id}-seg.nii.gz").labels
        for images in sets:
            labels = run(files, images, engine, arguments.results)
            done[images].append(judge(reference, labels, engine.plan.regions))
        print(f"{files.case_id} done", flush=True)
    for line in table(done, engine.plan.regions):
        print(line)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--plan", default=None)
    parser.add_argument("--cases", type=int, default=None, help="only the first so many")
    parser.add_argument("--results", type=Path, default=None)
    return parser.parse_args()


def image_sets(plan: Plan) -> list[tuple[Modality, ...]]:
    """Every set of the plan's images that the plan can run, all images first, t1c alone last."""
    others = sorted(plan.modalities - {SOURCE_MODALITY})
    chosen = (set(some) for count in range(len(others), -1, -1) for some in combinations(others, count))
    sets = (some | {SOURCE_MODALITY} for some in chosen)
    return [tuple(sorted(images)) for images in sets if plan.required_modalities <= images]


def run(files: CaseFiles, images: Sequence[Modality], engine: Engine, kept: Path | None) -> LabelMap:
    """The case's label map from these images alone, kept or made now."""
    part = replace(files, images={name: files.images[name] for name in images})
    path = kept / engine.plan.sha256[:12] / f"{files.case_id}-{'+'.join(images)}.npz" if kept else None
    if path is not None and path.exists():
        with np.load(path) as found:
            return np.asarray(found["labels"], np.uint8)
    labels = segment(part, engine).labels
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, labels=labels)
    return labels


def judge(reference: LabelMap, labels: LabelMap, regions: Regions) -> Outcome:
    """Dice by region, and which cores were found."""
    dice = {}
    for region, theirs, ours in zip(regions, regions.split(reference), regions.split(labels), strict=True):
        if theirs.any():
            dice[region.name] = Overlap(int((theirs & ours).sum()), int(theirs.sum()), int(ours.sum()), 0).dice
    theirs, ours = (regions.mask(one, regions.core) for one in (reference, labels))
    cores, found = touched(theirs, ours)
    own, real = touched(ours, theirs)
    return Outcome(dice, cores, found, own - real)


def touched(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Components of `mask`, and those that share a voxel with `other`."""
    components = find_components(mask)
    numbers = components.component_of[other.reshape(-1)[components.voxels]]
    return int(components.sizes.size), int(np.unique(numbers).size)


def table(done: Mapping[tuple[Modality, ...], Sequence[Outcome]], regions: Regions) -> Iterator[str]:
    """Markdown, one row per set."""
    yield (
        "| images | "
        + " | ".join(f"{name}, median | to all images" for name in regions.names)
        + " | cores found | invented per case |"
    )
    yield "|---" * (2 * len(regions) + 3) + "|"
    everything = next(iter(done.values()))
    for images, outcomes in done.items():
        columns = []
        for name in regions.names:
            pairs = [(a.dice[name], b.dice[name]) for a, b in zip(everything, outcomes, strict=True) if name in a.dice]
            if not pairs:
                columns += ["-", "-"]
                continue
            first, own = zip(*pairs, strict=True)
            paired = compare_paired(first, own)
            low, high = paired.interval.low, paired.interval.high
            columns += [f"{median(own):.3f}", f"{paired.mean_difference:+.3f} [{low:+.3f}, {high:+.3f}]"]
        found, cores = sum(one.found for one in outcomes), sum(one.cores for one in outcomes)
        columns += [f"{found} of {cores}", f"{fmean(one.invented for one in outcomes):.1f}"]
        yield f"| {' '.join(images)} | " + " | ".join(columns) + " |"


if __name__ == "__main__":
    main()
