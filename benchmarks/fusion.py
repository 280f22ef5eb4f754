"""Fusion, size rules and agreement against plain implementations, side by side in one run.

    python -m benchmarks.fusion [--members 3] [--repeats 5] [MAP ...]

The plain fusion does what the definition says with whole arrays: one label after the other, every member's vote added
over every voxel, in every iteration. The plain size rules and agreement label the whole volume with scipy. Without
MAPs (label maps of one case, one per member), the members are drawn: spheres of 1 to 25 mm in a 240x240x155 volume that
the members see larger, smaller, or not at all. Both sides must give the same labels, or the script fails.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metseg.decide.agreement import lesion_agreement
from metseg.decide.fusion import fuse_labels
from metseg.decide.size_rules import apply_size_rules
from metseg.files.read import read_label_map
from metseg.labels import LabelMap
from metseg.plan.plan import FusionPlan, PostprocessPlan

SHAPE = (240, 240, 155)
LESIONS = 20
ALL_26 = np.ones((3, 3, 3))

Result = TypeVar("Result")


def draw_members(count: int, seed: int) -> list[LabelMap]:
    """Ring-enhancing spheres in oedema, as each member sees them."""
    rng = np.random.default_rng(seed)
    members = [np.zeros(SHAPE, np.uint8) for _ in range(count)]
    for _ in range(LESIONS):
        centre, radius = rng.uniform(50, np.array(SHAPE) - 50), rng.uniform(0.5, 12.5)
        for member in members:
            if rng.random() < 0.15:
                continue
            seen = radius * rng.uniform(0.9, 1.1)
            reach = int(seen * 1.6) + 2
            low = np.maximum(np.floor(centre).astype(int) - reach, 0)
            box = tuple(slice(int(start), int(start) + 2 * reach) for start in low)
            axes = [np.arange(start, start + 2 * reach)[: member[box].shape[i]] for i, start in enumerate(low)]
            shifted = centre + rng.normal(0, 0.5, 3)
            distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.ix_(*axes), shifted, strict=True)))
            for label, limit in ((2, seen * 1.6), (3, seen), (1, seen * 0.6 if radius > 5 else 0)):
                member[box][distance <= limit] = label
    return members


def plain_vote(masks: list[NDArray[np.bool_]], weights: list[float]) -> NDArray[np.bool_]:
    votes = np.zeros(masks[0].shape)
    total = 0.0
    for mask, weight in zip(masks, weights, strict=True):
        votes[mask] += weight
        total += weight
    return votes >= total / 2


def plain_dice(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    size = int(mask.sum()) + int(other.sum())
    return 2.0 * int((mask & other).sum()) / size if size else 0.0


def plain_simple(members: list[LabelMap], plan: FusionPlan) -> LabelMap:
    fused = np.zeros_like(members[0])
    for label in sorted({int(label) for member in members for label in np.unique(member)} - {0}):
        masks = [member == label for member in members]
        estimate = plain_vote(masks, [1.0] * len(masks))
        voxels = int(estimate.sum())
        for _ in range(plan.max_iterations):
            estimate = plain_vote(masks, [(1.0 + plain_dice(mask, estimate)) ** 2 for mask in masks])
            last, voxels = voxels, int(estimate.sum())
            if abs(voxels - last) < plan.min_change_voxels:
                break
        fused[estimate] = label
    return fused


def plain_majority(members: list[LabelMap], _plan: FusionPlan) -> LabelMap:
    fused = np.zeros_like(members[0])
    for label in sorted({int(label) for member in members for label in np.unique(member)} - {0}, reverse=True):
        fused[plain_vote([member == label for member in members], [1.0] * len(members))] = label
    return fused


def plain_size_rules(labels: LabelMap, plan: PostprocessPlan) -> LabelMap:
    labels = labels.copy()
    for targets, minimum, new_label in (
        ((1, 2, 3), plan.min_wt_mm3, 0),
        ((1,), plan.min_netc_mm3, 3),
        ((2,), plan.min_snfh_mm3, 0),
        ((3,), plan.min_et_mm3, 0),
    ):
        numbers, _ = ndimage.label(np.isin(labels, targets), structure=ALL_26)
        sizes = np.bincount(numbers.ravel())
        is_small = sizes < minimum
        is_small[0] = False
        labels[is_small[numbers]] = new_label
    return labels


def plain_agreement(labels: LabelMap, members: list[LabelMap]) -> list[float]:
    numbers, count = ndimage.label(labels > 0, structure=ALL_26)
    share = np.mean([member > 0 for member in members], axis=0)
    return list(ndimage.mean(share, numbers, range(1, count + 1)))


def best_ms(function: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """The fastest of several calls: on a shared machine the others measure the neighbours."""
    fastest = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest * 1000, result


def report(name: str, ours_ms: float, plain_ms: float, *, is_equal: bool) -> None:
    verdict = "equal" if is_equal else "DIFFERENT"
    print(f"{name:14s} {ours_ms:9.1f} ms {plain_ms:9.1f} ms {plain_ms / ours_ms:8.1f} x   {verdict}")
    if not is_equal:
        raise SystemExit(f"{name}: the two results differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", nargs="*", type=Path)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.maps:
        members = [np.ascontiguousarray(read_label_map(path).labels) for path in options.maps]
    else:
        members = draw_members(options.members, options.seed)
    foreground = int(np.any(members, axis=0).sum())
    print(f"{len(members)} members, {'x'.join(map(str, members[0].shape))} voxels, {foreground} seen by some member")
    print(f"{'':14s} {'metseg':>12s} {'plain':>12s} {'ratio':>10s}")
    plain_of = {"simple": plain_simple, "majority": plain_majority}
    for method, plain in plain_of.items():
        plan = FusionPlan.model_validate({"method": method})
        ours_ms, fused = best_ms(lambda plan=plan: fuse_labels(members, plan), options.repeats)
        plain_ms, expected = best_ms(lambda plan=plan, plain=plain: plain(members, plan), options.repeats)
        report(method, ours_ms, plain_ms, is_equal=np.array_equal(fused, expected))
    fused = fuse_labels(members, FusionPlan())
    rules = PostprocessPlan()
    ours_ms, clean = best_ms(lambda: apply_size_rules(fused, rules), options.repeats)
    plain_ms, expected = best_ms(lambda: plain_size_rules(fused, rules), options.repeats)
    report("size rules", ours_ms, plain_ms, is_equal=np.array_equal(clean, expected))
    ours_ms, lesions = best_ms(lambda: lesion_agreement(clean, members), options.repeats)
    plain_ms, shares = best_ms(lambda: plain_agreement(clean, members), options.repeats)
    report("agreement", ours_ms, plain_ms, is_equal=np.allclose([lesion.vote_share for lesion in lesions], shares))
    print(f"{len(lesions)} lesions after the size rules")


if __name__ == "__main__":
    main()
