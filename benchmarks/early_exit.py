"""How many windows the last member could skip because the others have decided them: the most that an early exit saves.

    python benchmarks/early_exit.py FOLDER_OF_CASES [FOLDER_OF_CASES ...] [--weights weights/mets] [--plan paper]
        [--run-plan fine] [--cases N] [--device auto|cpu|cuda]

The members run with --run-plan (one pass will do: where lesions lie hardly depends on the passes); windows are those of
--plan. For each member in the last place, prints the share of windows in which the others

    agree       give every voxel the same label: with three members a majority there is decided
    background  see nothing at all: then the members' agreement by lesion does not need the last one either
    mean        have probabilities whose mean no third one in [0, 1] can move across the threshold

and what skipping them would save of all network calls. Whether the result would stay the same: docs/decisions.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from metseg.decide.fusion import member_labels
from metseg.files.case import CaseFiles
from metseg.files.discovery import discover_cases
from metseg.labels import BACKGROUND, LabelMap
from metseg.plan.bundle import bundle_folder, open_bundle
from metseg.plan.plan import Plan
from metseg.predict.device import choose_device
from metseg.predict.ensemble import Ensemble, MemberPrediction, load_ensemble, plan_layout, predict_case
from metseg.predict.windows import lay_windows
from metseg.run.pipeline import load_case

RULES = ("agree", "background", "mean")


@dataclass(frozen=True, slots=True)
class Shares:
    """Of one case with one member in the last place: windows, and how many of them each rule lets it skip."""

    windows: int
    skipped: dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--plan", default="paper")
    parser.add_argument("--run-plan", default="fine")
    parser.add_argument("--cases", type=int, default=None)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    arguments = parser.parse_args()
    folder = bundle_folder(arguments.weights)
    windows_of = open_bundle(folder, arguments.plan).plan
    ensemble = load_ensemble(open_bundle(folder, arguments.run_plan), choose_device(arguments.device))
    cases = [files for data in arguments.folders for files in discover_cases(data)][: arguments.cases]
    names = [member.plan.name for member in ensemble.members]
    print(f"windows of {windows_of.name}; last member: {', '.join(names)}; shares of windows {', '.join(RULES)}")
    found = []
    for files in cases:
        found.append(shares_of(files, ensemble, windows_of))
        text = "   ".join(" ".join(f"{share:5.0%}" for share in _shares([one])) for one in found[-1])
        print(f"{files.case_id} ({found[-1][0].windows} windows): {text}", flush=True)
    for name, *shares in zip(names, *found, strict=True):
        means = _shares(shares)
        saved = ", ".join(f"{rule} {share / len(names):.1%}" for rule, share in zip(RULES, means, strict=True))
        print(f"{name} last, mean of {len(cases)} cases: network calls saved at most: {saved}")


def _shares(cases: Sequence[Shares]) -> list[float]:
    return [fmean(case.skipped[rule] / case.windows for case in cases) for rule in RULES]


def shares_of(files: CaseFiles, ensemble: Ensemble, windows_of: Plan) -> list[Shares]:
    """One entry a member that might come last."""
    prepared = load_case(files, ensemble).prepared
    own = plan_layout(prepared, ensemble.plan)
    predictions = predict_case(prepared, ensemble, own)
    volume_shape = prepared.resampling.network.shape
    layout = lay_windows(volume_shape, prepared.brain, windows_of.window, windows_of.side_multiples)
    votes = [own.paste(member_labels(item.probabilities, windows_of.threshold), volume_shape) for item in predictions]
    found = []
    for last in range(len(predictions)):
        others = [number for number in range(len(predictions)) if number != last]
        undecided = {
            "agree": differing([votes[number] for number in others]),
            "background": np.any([votes[number] != BACKGROUND for number in others], axis=0),
            "mean": open_means([predictions[number] for number in others], windows_of.threshold),
        }
        undecided["mean"] = own.paste(undecided["mean"].astype(np.uint8), volume_shape) > 0
        skipped = dict.fromkeys(RULES, 0)
        for origin in layout.origins:
            place = tuple(
                slice(max(start + first, 0), max(start + first + side, 0))
                for start, first, side in zip(layout.start, origin, layout.window, strict=True)
            )
            for rule in RULES:
                skipped[rule] += not undecided[rule][place].any()
        found.append(Shares(len(layout.origins), skipped))
    return found


def differing(votes: Sequence[LabelMap]) -> NDArray[np.bool_]:
    """Where members' label maps are not all the same."""
    return np.any([vote != votes[0] for vote in votes[1:]], axis=0)


def open_means(predictions: Sequence[MemberPrediction], threshold: float) -> NDArray[np.bool_]:
    """Where one more probability in [0, 1] decides whether the mean reaches the threshold, in some region."""
    total = np.sum([item.probabilities for item in predictions], axis=0)
    needed = threshold * (len(predictions) + 1)
    return ((total < needed) & (total + 1 >= needed)).any(axis=0)


if __name__ == "__main__":
    main()
