"""Two revisions of metseg over the same cases: are label maps, reports and scores the same?

    python -m benchmarks.revisions run CHECKOUT --data-path CASES --work WORK --name before
    python -m benchmarks.revisions run . --data-path CASES --work WORK --name after
    python -m benchmarks.revisions compare --work WORK before after

`run` executes the commands of `jobs` with one thread each, as a user would, and leaves a job alone that it finished
before, so that an interrupted run resumes. The first run makes the synthetic cases. `compare` says of every file
whether it is the same: label maps by their bytes, JSON key by key after `RENAMED`, tables and pages as text after
`REWORDED`.
"""

import argparse
import csv
import filecmp
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

RENAMED: Final[dict[str, str]] = {}
"""Keys of JSON files: before -> after. Stages of `stage_s` hold seconds, which are not compared: network became
predict, fuse and postprocess became decide."""

REWORDED: Final[tuple[tuple[str, str], ...]] = (
    ("network N, fuse N, postprocess N", "predict N, decide N"),  # stages, with their seconds taken out
)
"""Words of reports, tables and messages: before -> after, in this order."""

INTERNAL: Final = ("case.json",)
"""Files that only the program itself reads: their format may change."""

NOT_COMPARED: Final = frozenset({"plan_sha256"})
"""Keys whose values differ for a reason: a plan's hash covers only what differs from the defaults."""

VOLATILE: Final = re.compile(
    r"(_s$|seconds|started|finished|elapsed|revision|version|time|memory|host|argv|command|folder|_path$|report|output)"
)
"""Keys of JSON files that tell of the machine and the hour."""

WHOLE_PLANS: Final = ("", "fast", "sensitive", "fine")
"""Plans of the bundle mets that run over all cases; the empty name is its own."""

SYNTHETIC: Final = {"brats": (10, 8101, "t1n,t1c,t2w,t2f"), "radiosurgery": (3, 8201, "ct,t1c")}
"""Number, seed and modalities of the synthetic cases."""


@dataclass(frozen=True, slots=True)
class Job:
    """One command of the program.

    Attributes:
        name: of its folder of results, which the command is given as {out}.
        arguments: of `python -m`.
    """

    name: str
    arguments: tuple[str, ...]


def jobs(real: Path, work: Path) -> Iterator[Job]:
    """The commands, the cheap ones first."""
    synthetic, heads = work / "cases" / "brats", work / "cases" / "radiosurgery"
    yield _infer("srs-demo", heads, "--weights", "srs-demo")
    yield _infer("srs-demo-ct", heads, "--weights", "srs-demo", "--grid", "ct")
    for plan in WHOLE_PLANS:
        chosen = ("--plan", plan) if plan else ()
        for share in range(4):
            yield _infer(f"{plan or 'own'}-real-{share}", real, *chosen, "--shard", f"{share}/4")
        yield _infer(f"{plan or 'own'}-synthetic", synthetic, *chosen)
    yield Job("check-real", ("metseg", "check", "--data-path", str(real)))
    yield Job("check-heads", ("metseg", "check", "--data-path", str(heads), "--weights", "srs-demo"))
    yield _infer("paper-synthetic", synthetic, "--plan", "paper", "--shard", "0/10")
    for share in (1, 12):
        yield _infer(f"paper-real-{share}", real, "--plan", "paper", "--shard", f"{share}/23")


def later_jobs(work: Path) -> Iterator[Job]:
    """What is made of the label maps of `jobs`."""
    synthetic = work / "cases" / "brats"
    for protocol in ("brats2023", "brats2026", "hu2019"):
        pairs = {"synthetic": (synthetic, "own-synthetic"), "heads": (work / "cases" / "radiosurgery", "srs-demo")}
        for name, (cases, source) in pairs.items():
            yield Job(
                f"score-{protocol}-{name}",
                (
                    *("evaluation", "score", "--protocol", protocol, "--reference-path", str(cases)),
                    *("--prediction-path", f"{{results}}/{source}/labels", "--output", "{out}/scores.json"),
                    *("--csv", "{out}/scores.csv", "--lesions", "{out}/lesions.csv", "--by-size"),
                ),
            )
    yield Job(
        "fuse",
        (
            "metseg",
            "fuse",
            *(f"{{results}}/{plan}-synthetic/labels" for plan in ("own", "sensitive", "fast")),
            *("--output", "{out}/labels"),
        ),
    )
    yield Job(
        "report-synthetic",
        (
            *("metseg", "report", "--data-path", str(synthetic), "--prediction-path", "{results}/own-synthetic/labels"),
            *("--reference-path", str(synthetic), "--report-dir", "{out}/report"),
        ),
    )


def _infer(name: str, cases: Path, *options: str) -> Job:
    places = ("--data-path", str(cases), "--output-path", "{out}/labels", "--report-dir", "{out}/report")
    return Job(name, ("metseg", "infer", *places, "--device", "cpu", *options))


def run(checkout: Path, real: Path, work: Path, name: str, *, at_once: int, only: str) -> None:
    """Runs what is not there yet of the jobs whose names begin with `only`."""
    make_cases(checkout, work)
    results = work / name
    with ThreadPoolExecutor(at_once) as pool:
        for stage in (list(jobs(real, work)), list(later_jobs(work))):
            chosen = [job for job in stage if job.name.startswith(only)]
            for line in pool.map(lambda job: run_job(job, checkout, results), chosen):
                print(line, flush=True)


def make_cases(checkout: Path, work: Path) -> None:
    """The synthetic cases, from the checkout that comes first."""
    for system, (count, seed, modalities) in SYNTHETIC.items():
        cases = work / "cases" / system
        if not (cases.with_suffix(".done")).exists():
            options = ("--cases", str(count), "--seed", str(seed), "--modalities", modalities, "--jobs", "2")
            _call(checkout, ("training", "cohort", *options, "--output", str(cases)), work / f"cohort-{system}.log")
            cases.with_suffix(".done").touch()


def run_job(job: Job, checkout: Path, results: Path) -> str:
    """Runs one command, unless it is done; its output goes to log.txt and its exit code to exit.txt."""
    out = results / job.name
    if (out / "exit.txt").exists():
        return f"{job.name}: there already"
    out.mkdir(parents=True, exist_ok=True)
    arguments = tuple(part.replace("{out}", str(out)).replace("{results}", str(results)) for part in job.arguments)
    began = time.perf_counter()
    code = _call(checkout, (*arguments, *(("--resume",) if "infer" in arguments else ())), out / "log.txt")
    (out / "exit.txt").write_text(f"{code}\n")
    return f"{job.name}: exit {code}, {time.perf_counter() - began:.0f} s"


def _call(checkout: Path, arguments: tuple[str, ...], log: Path) -> int:
    environment = os.environ | {
        "PYTHONPATH": f"{checkout.resolve() / 'app'}:{checkout.resolve()}",
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "160",
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        return subprocess.run(
            [sys.executable, "-m", *arguments], cwd=checkout, env=environment, stdout=stream, stderr=stream, check=False
        ).returncode


def compare(before: Path, after: Path) -> bool:
    """Prints what differs and counts what is the same."""
    found = {path.relative_to(root) for root in (before, after) for path in root.rglob("*") if path.is_file()}
    files = sorted(path for path in found if path.name not in INTERNAL)
    same: dict[str, int] = {}
    different = 0
    for file in files:
        kind = "label maps" if file.name.endswith(".nii.gz") else file.suffix
        odd = list(differences(before / file, after / file))
        if odd:
            different += 1
            print(f"{file}: " + "; ".join(odd[:4]) + (f"; and {len(odd) - 4} more" if len(odd) > 4 else ""))
        else:
            same[kind] = same.get(kind, 0) + 1
    print(f"the same: {', '.join(f'{count} {kind}' for kind, count in sorted(same.items()))}; different: {different}")
    return not different


def differences(before: Path, after: Path) -> Iterator[str]:
    """What differs between two files, in words."""
    if not (before.exists() and after.exists()):
        yield "only " + ("before" if before.exists() else "after")
    elif before.suffix == ".json":
        yield from _values(_renamed(json.loads(before.read_text())), json.loads(after.read_text()), "")
    elif before.suffix == ".csv":
        tables = [list(csv.DictReader(io.StringIO(_plain(path.read_text(), root=path)))) for path in (before, after)]
        yield from _values(_renamed(tables[0]), tables[1], "")
    elif before.suffix in {".html", ".txt", ".md"}:
        texts = [_plain(path.read_text(), root=path) for path in (before, after)]
        lines = [text.splitlines() for text in (_reworded(texts[0]), texts[1])]
        if before.name == "log.txt":  # the report's thread speaks when it can
            lines = [sorted(text) for text in lines]
        if len(lines[0]) != len(lines[1]):
            yield f"{len(lines[0])} lines and {len(lines[1])}"
        yield from (f"{a!r:.120} and {b!r:.120}" for a, b in zip(*lines, strict=False) if a != b)
    elif not filecmp.cmp(before, after, shallow=False):
        yield "other bytes"


def _values(before: Any, after: Any, key: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            if VOLATILE.search(name) or name in NOT_COMPARED:
                continue
            if name in before and name in after:
                yield from _values(before[name], after[name], f"{key}.{name}")
            else:
                yield f"{key}.{name} only {'before' if name in before else 'after'}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from _values(*pair, f"{key}[{number}]")
    elif before != after and not (before != before and after != after):  # noqa: PLR0124 - not a number
        yield f"{key}: {before!r:.60} and {after!r:.60}"


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {RENAMED.get(key, key): _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return _reworded(value) if isinstance(value, str) else value


def _reworded(text: str) -> str:
    for old, new in REWORDED:
        text = text.replace(old, new)
    return text


def _plain(text: str, root: Path) -> str:
    """Without seconds, dates and the run's own folder."""
    text = re.sub(re.escape(str(root.parents[0])) + r"|/[^ \"'<>]*/(before|after)/|of /[^ ]*(?=/weights)", "", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?[^ <\"]*", "DATE", text)
    text = re.sub(r"\d+:\d\d(:\d\d)?", "TIME", text)
    text = re.sub(r"\(([0-9a-f]{12})\)|[0-9a-f]{64}", "HASH", text)
    text = re.sub(r'(?m)^<td class="number">\d+\.\d</td>$', "N", text)  # a page's column of seconds
    text = re.sub(r"\d+(\.\d+)? ?(s|min|MB|GB|MiB|GiB|h)\b", "N", text)
    return re.sub(r"\bN( N)+\b", "N", text)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("checkout", type=Path)
    running.add_argument("--data-path", type=Path, required=True)
    running.add_argument("--name", required=True)
    running.add_argument("--jobs", type=int, default=2)
    running.add_argument("--only", default="", help="beginning of the names of the jobs to run")
    comparing = commands.add_parser("compare")
    comparing.add_argument("names", nargs=2)
    for command in (running, comparing):
        command.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "run":
        run(
            given.checkout,
            given.data_path.resolve(),
            given.work.resolve(),
            given.name,
            at_once=given.jobs,
            only=given.only,
        )
    elif not compare(*(given.work / name for name in given.names)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
