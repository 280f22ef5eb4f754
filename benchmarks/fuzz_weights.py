"""Mutated plans, safetensors files and weights folders: each must end in a clear error or a bundle that loads.

    python -m benchmarks.fuzz_weights --inputs 10000 [--seed 0] [--keep FOLDER]

A small bundle is mutated in one of three ways:

    plan      values set to extremes, tags, anchors, depth, bytes
    weights   a member's header fields, lengths, offsets, types and bytes; the plan's hash follows, or nothing behind
              the check of the hash would be reached
    folder    pipes, loops, directories and sparse files of a terabyte in place of files

Then `open_bundle`, `load_member` and `read_parameters` read it. Findings are: any exception but WeightsError and
UsageError, any warning, a message of over MESSAGE_LIMIT characters, more than LIMIT_MIB of memory, more than LIMIT_S of
processor per input, a wait for a pipe. The input of a finding is kept. Exits with 1 if there is one.
"""

import argparse
import collections
import hashlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch
import yaml
from safetensors.torch import save

from metseg.cli.settings import find_bundle, read_parameters
from metseg.errors import UsageError, WeightsError
from metseg.network import build_network
from metseg.plan.bundle import describe_member, open_bundle
from metseg.plan.networks import SegResNetPlan
from metseg.plan.plan import MemberPlan
from metseg.predict.weights import load_member

LIMIT_MIB = 512
LIMIT_S = 5.0
WAIT_S = 300
"""Of real time: only a pipe without a writer takes so long, also on a busy machine."""
MESSAGE_LIMIT = 20_000

BOMB = "[" * 30 + "x" + "]" * 30
ALIASES = "[&a [l, l], &b [*a, *a, *a, *a], &c [*b, *b, *b, *b], &d [*c, *c, *c, *c], [*d, *d, *d, *d]]"
VALUES = (
    "", "null", "~", "true", "-1", "0", "1", "1e400", ".nan", ".inf", "-.inf", "'x'", "[]", "{}", "[1, 2]", "{a: b}",
    "1:1:1", "2001-13-45", "2001-02-30 25:61:61", "!!int ''", "!!int 'x'", "!!float 'x'", "!!bool x", "!!timestamp x",
    "!!binary '*'", "!!set {a}", "!!omap [a]", "!!python/object/apply:os.system [true]", "!!python/name:os.system",
    "&a [*a]", "*unknown", "9" * 5000, "0x" + "f" * 5000, "9" * 300, "1_000_000_000_000", "8000000000000", "-8",
    "[8, 8, 8]", "[8000000, 8000000, 8000000]", "[0, 0, 0]", "[1000000000]", BOMB, ALIASES, "x" * 70_000, "'\\0'",
    "../../etc/passwd", "a.safetensors", "segresnet", "unet3d", "deepmedic", "{<<: {a: 1}}", "? [a]", "%YAML 9.9",
    "0.9999999", "1e-300", "\u2028", "\U0001f9e0", "[et]", "[WT]", "[WT, TC, ET, WT]", "aurora", "mean",
)  # fmt: skip
TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I8", "U8", "BOOL", "C64", "X99", "", 7, None)
NUMBERS = (0, 1, -1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 1.5, "1", None, [], 3, 8)


def make_bundle(folder: Path) -> None:
    """One member of a small network, and a plan that spells out every section."""
    folder.mkdir()
    network = SegResNetPlan(init_filters=8, blocks_down=(1, 1), blocks_up=(1,))
    member = MemberPlan(name="m", weights="m.safetensors", sha256="0" * 64, network=network)
    torch.manual_seed(0)
    content = save(build_network(network, in_channels=4, out_channels=3).state_dict(), describe_member(member))
    (folder / member.weights).write_bytes(content)
    written = member.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    plan = {
        "name": "fuzz",
        "spacing_mm": 1.0,
        "intensity": {"lower_percentile": 0.1, "upper_percentile": 99.9},
        "window": {"size": [96, 96, 32], "overlap": 0.5, "extent": "fixed"},
        "tta": {"variant": "flips", "noise_std_max": 0.001, "seed": 1},
        "threshold": 0.5,
        "fusion": {"method": "simple", "max_iterations": 25, "added_by_maximum": []},
        "postprocess": {"min_wt_mm3": 25},
        "members": [written.model_dump(mode="json")],
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")


def mutate_plan(folder: Path, rng: random.Random) -> None:
    path = folder / "plan.yaml"
    lines = path.read_text(encoding="utf-8").split("\n")
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        way = rng.random()
        if way < 0.6:
            head, colon, _ = lines[at].partition(":")
            lines[at] = f"{head}{colon} {rng.choice(VALUES)}" if colon else f"{lines[at][:2]}{rng.choice(VALUES)}"
        elif way < 0.7:
            lines[at] = " " * rng.randrange(5) + lines[at].strip()
        elif way < 0.8:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif way < 0.9:
            del lines[at]
        else:
            lines.insert(at, f"{rng.choice(VALUES)[:60]}: {rng.choice(VALUES)}")
        lines = lines or [""]
    raw = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    if rng.random() < 0.3:
        mutate_bytes(raw, rng, len(raw))
    path.write_bytes(raw)


def mutate_bytes(raw: bytearray, rng: random.Random, within: int) -> None:
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(max(1, min(within, len(raw))))
        way = rng.random()
        if way < 0.6 and raw:
            raw[at % len(raw)] = rng.randrange(256)
        elif way < 0.8:
            del raw[at : at + rng.choice((1, 4, 50))]
        else:
            raw[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 50))))


def mutate_weights(folder: Path, rng: random.Random) -> None:
    path = folder / "m.safetensors"
    raw = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", raw)
    way = rng.random()
    if way < 0.6:
        header = json.loads(bytes(raw[8 : 8 + length]))
        for _ in range(rng.choice((1, 1, 2, 4))):
            mutate_header(header, rng)
        text = json.dumps(header).encode()
        if rng.random() < 0.1:
            text = b"[" * 20_000 + text
        raw = bytearray(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    elif way < 0.75:
        struct.pack_into("<Q", raw, 0, rng.choice((0, 1, length - 1, length + 1, len(raw), 2**31, 2**63, 2**64 - 1)))
    elif way < 0.9:
        mutate_bytes(raw, rng, 8 + length)
    else:
        del raw[rng.randrange(len(raw)) :]
    path.write_bytes(raw)
    if rng.random() < 0.95:  # else the hash stops it
        plan = folder / "plan.yaml"
        found = yaml.safe_load(plan.read_text(encoding="utf-8"))
        found["members"][0]["sha256"] = hashlib.sha256(raw).hexdigest()
        plan.write_text(yaml.safe_dump(found), encoding="utf-8")


def mutate_header(header: dict[str, object], rng: random.Random) -> None:
    name = rng.choice(list(header))
    entry = header[name]
    if name == "__metadata__" or not isinstance(entry, dict):
        other = rng.choice((None, [], "x", {"format": rng.choice(NUMBERS)}, {"format": "y" * 100_000}, {}))
        header[name] = other
    elif rng.random() < 0.15:
        header[rng.choice(("", "x" * 100_000, "\u2028", "conv_init.conv.weight", "__metadata__"))] = header.pop(name)
    else:
        key = rng.choice(("dtype", "shape", "data_offsets", "data_offsets", "other"))
        if key == "dtype":
            entry[key] = rng.choice(TYPES)
        else:
            numbers = [rng.choice(NUMBERS) for _ in range(rng.randrange(6))]
            entry[key] = rng.choice((numbers, rng.choice(NUMBERS)))


def mutate_folder(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(("plan.yaml", "m.safetensors"))
    way = rng.randrange(8)
    if way == 7:
        os.truncate(path, 2**40)
        return
    path.unlink()
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.mkdir()
    elif way == 2:
        path.symlink_to(path.name)
    elif way == 3:
        path.symlink_to("/nowhere/at/all")
    elif way == 4:
        path.write_bytes(b"")
    elif way == 5:
        path.symlink_to("/dev/zero")


MUTATIONS: tuple[tuple[str, Callable[[Path, random.Random], None], float], ...] = (
    ("plan", mutate_plan, 0.5),
    ("weights", mutate_weights, 0.45),
    ("folder", mutate_folder, 0.05),
)


def check_one(folder: Path) -> str:
    """What became of one input.

    Raises:
        AssertionError: an error without a message, or with one that nobody can read.
    """
    outcome = "loads"
    try:
        bundle = open_bundle(folder)
        if not bundle.plan.sha256 or not bundle.plan.modalities:
            raise AssertionError("no hash or no modality")
        outcome = "plan valid, weights refused"
        for member in bundle.plan.members:
            load_member(folder, member)
        outcome = "loads"
    except (UsageError, WeightsError) as error:
        if not str(error) or len(str(error)) > MESSAGE_LIMIT:
            raise AssertionError(f"a message of {len(str(error))} characters") from error
        outcome = outcome if outcome != "loads" else "plan refused"
    for reader in (read_parameters, find_bundle):
        try:
            reader(folder / "plan.yaml" if reader is read_parameters else folder)
        except (UsageError, WeightsError) as error:
            if len(str(error)) > MESSAGE_LIMIT:
                raise AssertionError("a message too long") from error
    return outcome


def _too_long(_signal: int, _frame: types.FrameType | None) -> NoReturn:
    raise AssertionError("too slow, or waits for a pipe")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    signal.signal(signal.SIGPROF, _too_long)
    signal.signal(signal.SIGALRM, _too_long)

    outcomes: collections.Counter[str] = collections.Counter()
    slowest, findings, start = 0.0, 0, time.perf_counter()
    shared = Path("/dev/shm")  # noqa: S108 - thousands of small files need no disk
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        pristine = Path(name) / "pristine"
        make_bundle(pristine)
        if check_one(pristine) != "loads":
            raise AssertionError("the bundle to start from does not load")
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_MIB * 2**20,) * 2)
        for number in range(arguments.inputs):
            rng = random.Random(f"{arguments.seed}-{number}")  # noqa: S311 - repeatable is what it must be
            kind, mutate, _ = rng.choices(MUTATIONS, weights=[share for _, _, share in MUTATIONS])[0]
            folder = Path(name) / "mutated"
            shutil.copytree(pristine, folder)
            mutate(folder, rng)
            begun = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
            signal.alarm(WAIT_S)
            try:
                outcome = f"{kind}: {check_one(folder)}"
            except BaseException as error:  # finding them is the purpose
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcome = f"FINDING {kind}: {type(error).__name__}: {error}"[:140]
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            slowest = max(slowest, time.process_time() - begun)
            if outcome.startswith("FINDING"):
                findings += 1
                shutil.copytree(folder, arguments.keep / f"weights-{arguments.seed}-{number}", symlinks=True,
                                ignore=shutil.ignore_patterns(*_unkept(folder)), dirs_exist_ok=True)  # fmt: skip
                print(f"{number}: {outcome}", flush=True)
            outcomes[outcome] += 1
            shutil.rmtree(folder)
    total = sum(outcomes.values())
    for outcome, count in outcomes.most_common():
        print(f"{count:8d}  {count / total:6.1%}  {outcome}")
    print(f"{total} inputs in {time.perf_counter() - start:.0f} s, seed {arguments.seed}: {findings} findings")
    print(f"slowest input {slowest:.2f} s of processor; memory limit {LIMIT_MIB} MiB more than at the start")
    return 1 if findings else 0


def _unkept(folder: Path) -> list[str]:
    """Pipes can't be copied, and a sparse terabyte shouldn't be."""
    return [
        path.name for path in folder.iterdir() if path.is_fifo() or (path.is_file() and path.stat().st_size > 2**24)
    ]


if __name__ == "__main__":
    sys.exit(main())
