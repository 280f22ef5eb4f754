"""A bundle's plans and each economy apart: time, agreement and scores on the same cases, in one run.

    python -m benchmarks.plans FOLDER_OF_CASES [FOLDER_OF_CASES ...] [--weights weights/mets] [--cases N]
        [--groups plans windows passes reference] [--reference-tta none|flips|aurora] [--members N]
        [--device auto|cpu|cuda] [--clock wall|processor] [--results FOLDER]

Four groups, each compared with its own first row:

    plans      the plan `paper`, then the bundle's other plans: what a user chooses between
    windows    one pass: plain MONAI over the full volume; its windows that see brain (`volume`); over the brain's
               box (`fixed`); windows batched; cut to the box (`trimmed`); one window as large as the brain (`whole`)
    passes     the bundle's own plan with 13 passes, 4 and 1
    reference  plain MONAI over the full volume in float32 (benchmarks.reference_path) with the windows of `paper`
               and --reference-tta, then metseg with the same passes: minutes per case

Prints for every row: seconds per case, from its files to the label map on its own grid, the ratio to the group's first
row, the Dice of both rows' label maps (pooled over all cases, and of the worst case), and how many cases fall out: a
region under .95 and more than 2 differing voxels a lesion. Where `<ID>-seg.nii.gz` lies beside the images, the
lesion-wise scores of 2023 stand beside that. With --results every case's label map and seconds are kept, and a run with
the same folder does only what is missing; figures then come from several runs, so let nothing else run in any of them.
Where something does, OMP_NUM_THREADS=1 and --clock processor give the seconds that one thread really worked.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.reference_path import Overlap, overlaps, plain_engine, pooled_dice, segment_plainly
from evaluation import score_case
from metseg.errors import MetsegError
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.files.read import read_label_map
from metseg.labels import BRATS_REGIONS, LabelMap
from metseg.plan.bundle import Bundle, bundle_folder, open_bundle
from metseg.plan.plan import Plan, TtaPlan
from metseg.predict.device import Device, choose_device
from metseg.predict.engine import Engine, Execution, load_engine
from metseg.prepare.prepare import prepare
from metseg.run.pipeline import read, segment
from metseg.space.resampling import labels_to_source

GROUPS = ("plans", "windows", "passes", "reference")
LEAST_DICE = 0.95
MOST_DIFFERING_A_LESION = 2.0
BATCHES = (1, 2, 4)
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run a bundle.

    Attributes:
        group: rows are compared with the first one of their group.
        name: for people, and for the files that are kept.
        plan: the science.
        batch_voxels: see `Execution`; None for what its device gets.
        plain: by plain MONAI.
    """

    group: str
    name: str
    plan: Plan
    batch_voxels: int | None = None
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row on one case.

    Attributes:
        seconds: from the files to `labels`; loading the models is not in it.
        labels: on the case's own grid.
    """

    seconds: float
    labels: LabelMap


@dataclass(frozen=True, slots=True)
class Reference:
    """What a case's label map is scored against, on the case's own grid."""

    labels: LabelMap
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Done:
    """A case with what every row made of it, by group and name."""

    files: CaseFiles
    outcomes: Mapping[tuple[str, str], Outcome]
    reference: Reference | None

    def of(self, row: Row) -> Outcome:
        """What a row made of it."""
        return self.outcomes[row.group, row.name]


def main() -> None:
    arguments = parse_arguments()
    bundle = with_members(open_bundle(bundle_folder(arguments.weights)), arguments.members)
    cases = [files for folder in arguments.folders for files in discover_cases(folder)][: arguments.cases]
    rows = [row for group in arguments.groups for row in make_rows(group, bundle, arguments)]
    device = choose_device(arguments.device)
    print(f"{bundle.folder}, {len(cases)} cases; {device.description}, networks in {device.precision}", flush=True)
    print(f"{arguments.clock} seconds of each case, row by row: {', '.join(row.name for row in rows)}")
    runner = Runner(bundle, device, CLOCKS[arguments.clock], arguments.results)
    done = []
    for files in cases:
        outcomes = {(row.group, row.name): runner.outcome(files, row) for row in rows}
        print(f"{files.case_id}: {' '.join(f'{item.seconds:.1f}' for item in outcomes.values())} s", flush=True)
        done.append(Done(files, outcomes, read_reference(files)))
    for group in arguments.groups:
        print_group([row for row in rows if row.group == group], done)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--cases", type=int, default=None, help="only the first so many")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS[:3])
    parser.add_argument("--reference-tta", choices=["none", "flips", "aurora"], default="none")
    parser.add_argument("--members", type=int, default=None, help="only the first so many, in every row")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--results", type=Path, default=None)
    return parser.parse_args()


# ---- the rows


def with_members(bundle: Bundle, count: int | None) -> Bundle:
    return Bundle(bundle.folder, bundle.plan.model_copy(update={"members": bundle.plan.members[:count]}))


def make_rows(group: str, bundle: Bundle, arguments: argparse.Namespace) -> Iterator[Row]:
    own, paper = bundle.plan, named_plan(bundle, "paper", arguments.members)
    once = changed(paper, variant="none")
    if group == "plans":
        names = sorted(path.stem for path in (bundle.folder / "plans").glob("*.yaml") if path.stem != "paper")
        for plan in (paper, own, *(named_plan(bundle, name, arguments.members) for name in names)):
            yield Row(group, plan.name, plan)
    elif group == "windows":
        over_brain, voxels = changed(once, extent="fixed"), math.prod(once.window.size)
        yield Row(group, "plain MONAI", once, plain=True)
        yield Row(group, "full volume's that see brain", changed(once, extent="volume"))
        for count in BATCHES:
            yield Row(group, f"brain's box, {count} at once", over_brain, batch_voxels=count * voxels)
        yield Row(group, "trimmed", changed(once, extent="trimmed"))
        yield Row(group, "whole", changed(once, extent="whole"))
    elif group == "passes":
        for variant, passes in (("aurora", 13), ("flips", 4), ("none", 1)):
            yield Row(group, f"{passes} passes", changed(own, variant=variant))
    else:
        plan = changed(paper, variant=arguments.reference_tta)
        yield Row(group, f"plain MONAI, {arguments.reference_tta}", plan, plain=True)
        yield Row(group, f"paper, {arguments.reference_tta}", plan)


def named_plan(bundle: Bundle, name: str, count: int | None) -> Plan:
    """One of the bundle's plans, with the members that were asked for."""
    return with_members(open_bundle(bundle.folder, name), count).plan


def changed(plan: Plan, variant: str | None = None, extent: str | None = None) -> Plan:
    tta = plan.tta.model_copy(update={"variant": variant}) if variant else plan.tta
    window = plan.window.model_copy(update={"extent": extent}) if extent else plan.window
    return plan.model_copy(update={"tta": TtaPlan.model_validate(tta.model_dump()), "window": window})


# ---- running them


class Runner:
    """Runs rows, keeps the loaded members, and looks first whether the result is kept already."""

    def __init__(self, bundle: Bundle, device: Device, now: Callable[[], float], kept: Path | None) -> None:
        self.bundle = bundle
        self.device = device
        self.now = now
        self.kept = kept
        self.loaded: dict[tuple[bool, tuple[str, ...]], Engine] = {}

    def outcome(self, files: CaseFiles, row: Row) -> Outcome:
        """A row on a case, kept or run now."""
        if self.kept is None:
            return self.run(files, row)
        name = f"{files.case_id}-{row.group}-{row.name}".replace(" ", "_").replace("'", "").replace(",", "")
        path = self.kept / f"{name}.npz"
        facts = {"plan": row.plan.sha256, "device": self.device.description, "precision": self.device.precision}
        facts["clock"] = getattr(self.now, "__name__", "")
        if path.exists():
            with np.load(path) as found:
                if json.loads(str(found["facts"])) == facts:
                    return Outcome(float(found["seconds"]), found["labels"])
        outcome = self.run(files, row)
        self.kept.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, facts=json.dumps(facts), seconds=outcome.seconds, labels=outcome.labels)
        return outcome

    def run(self, files: CaseFiles, row: Row) -> Outcome:
        """A row on a case, run now."""
        engine = self.engine(row)
        plan = engine.plan
        if row.plain:  # it reads and scales by itself
            resampling = prepare(read(files, plan), plan).resampling
            start = self.now()
            labels = labels_to_source(segment_plainly(files.folder, engine), resampling, plan.regions)
        else:
            start = self.now()
            labels = segment(files, engine).labels
        return Outcome(self.now() - start, labels)

    def engine(self, row: Row) -> Engine:
        """The row's members, loaded once, with its plan."""
        key = row.plain, tuple(member.name for member in row.plan.members)
        if key not in self.loaded:
            bundle = Bundle(self.bundle.folder, row.plan)
            plain = replace(self.device, precision="float32")
            self.loaded[key] = plain_engine(bundle, plain) if row.plain else load_engine(bundle, self.device)
        engine = replace(self.loaded[key], plan=row.plan)
        return engine if row.batch_voxels is None else replace(engine, execution=Execution(row.batch_voxels))


# ---- what is printed


def read_reference(files: CaseFiles) -> Reference | None:
    path = files.folder / f"{files.case_id}-seg.nii.gz"
    if not path.exists():
        return None
    try:
        image = read_label_map(path)
    except MetsegError as error:
        print(f"{path.name} is not used: {error}")
        return None
    return Reference(image.labels, image.grid.spacing_mm)


def print_group(rows: Sequence[Row], done: Sequence[Done]) -> None:
    first = rows[0]
    width = max(len(row.name) for row in rows) + 2
    regions = " / ".join(BRATS_REGIONS.names)
    print(f"\n{first.group}: agreement with {first.name!r}, Dice of {regions}")
    print(f"{'':{width}}{'s per case':>11}{'faster':>8}   {'pooled':26} {'worst case':24} cases out")
    first_s = fmean(case.of(first).seconds for case in done)
    for row in rows:
        shared = [overlaps(case.of(first).labels, case.of(row).labels) for case in done]
        pooled = " / ".join(f"{dice:.4f}" for dice in pooled_dice(shared).values())
        worst = " / ".join(f"{min(case[region].dice for case in shared):.3f}" for region in BRATS_REGIONS.names)
        seconds = fmean(case.of(row).seconds for case in done)
        out = [case.files.case_id for case, regions in zip(done, shared, strict=True) if falls_out(regions)]
        print(f"{row.name:{width}}{seconds:11.1f}{first_s / seconds:8.2f}   {pooled:26} {worst:24} {len(out)}")
        if out:
            print(f"{'':{width}}out: {', '.join(out)}")
    print_scores(rows, done, width)


def falls_out(regions: Mapping[str, Overlap]) -> bool:
    return any(
        overlap.dice < LEAST_DICE and overlap.differing_a_lesion > MOST_DIFFERING_A_LESION
        for overlap in regions.values()
    )


def print_scores(rows: Sequence[Row], done: Sequence[Done], width: int) -> None:
    """Means over the cases that have a reference."""
    known = [(case, case.reference) for case in done if case.reference is not None]
    if not known:
        return
    regions = " / ".join(BRATS_REGIONS.names)
    print(f"scores of 2023 over the {len(known)} of {len(done)} cases that have a reference, {regions}:")
    for row in rows:
        found = [
            score_case(reference.labels, case.of(row).labels, reference.spacing_mm, "brats2023")
            for case, reference in known
        ]
        columns = []
        for attribute in ("lesion_wise_dice", "legacy_dice", "fp", "fn"):
            means = (
                fmean(float(getattr(scores.region(name), attribute)) for scores in found)
                for name in BRATS_REGIONS.names
            )
            columns.append(f"{attribute} " + " / ".join(f"{mean:.3f}" for mean in means))
        print(f"{row.name:{width}}{'   '.join(columns)}")


if __name__ == "__main__":
    main()
