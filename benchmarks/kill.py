"""Kills a batch at random moments, also in the middle of a write: no finished label map may be lost or torn.

    python -m benchmarks.kill [--kills 50] [--in-write 20] [--cases 8] [--seed 0]

Each attempt is `metseg infer --resume` in a process forked from this one, ended by SIGKILL after a random time. In
--in-write of the attempts writing is slow, and the signal comes while a file is half written. Half of these imitate
file systems on which a file can't be without a name, so that `.partial` files are used.

After every kill each label map in the folder equals that of an undisturbed run, byte for byte, none has gone, and there
is nothing else but `.partial` files. A complete folder is emptied, and the next round begins. At the end `--resume`
completes the folder to the undisturbed bytes.
"""

import argparse
import errno
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from metseg.__main__ import run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # whose modules import each other by their bare names

from phantoms import phantom
from support import ALL, folder_bytes, write_bundle, write_case

SLICE_BYTES = 16
SLOW_S = 0.005
"""Pause after each slice of a slowed write."""


def attempt(arguments: list[str], *, slow: bool, named: bool, told: int) -> None:
    """The child: runs the batch; the system calls below it are slow, or those of another file system."""
    logging.disable(logging.CRITICAL)
    if named:
        refuse_unnamed()
    if slow:
        write_slowly(told)
    os._exit(int(run(arguments)))


def refuse_unnamed() -> None:
    """Files without a name can't be made, as on file systems that have none."""
    original = os.open

    def open_named(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return original(path, flags, mode, dir_fd=dir_fd)

    os.open = open_named  # type: ignore[assignment]


def write_slowly(told: int) -> None:
    """Every write takes a slice and pauses; each is told through a pipe."""
    original = os.write

    def write_slice(file: int, content: bytes) -> int:
        written = original(file, content[:SLICE_BYTES])
        original(told, b".")
        time.sleep(SLOW_S)
        return written

    os.write = write_slice  # type: ignore[assignment]


def kill_one(arguments: list[str], rng: random.Random, longest_s: float, *, in_write: bool) -> int | None:
    """Starts an attempt and kills it; None when killed, else its exit code."""
    heard, told = os.pipe()
    named = in_write and rng.random() < 0.5
    child = os.fork()
    if child == 0:
        os.close(heard)
        attempt(arguments, slow=in_write, named=named, told=told)
    os.close(told)
    if in_write:
        for _ in range(rng.randrange(1, 25)):
            if not os.read(heard, 1):  # the child is done
                break
        time.sleep(rng.uniform(0, SLOW_S))
    else:
        time.sleep(rng.uniform(0, longest_s))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(heard)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def look(output: Path, expected: Mapping[str, bytes], before: Mapping[str, bytes]) -> tuple[dict[str, bytes], int]:
    """What is there now, and how many leftovers.

    Raises:
        AssertionError: a file is torn, foreign, or gone.
    """
    found = folder_bytes(output) if output.is_dir() else {}
    leftovers = [name for name in found if name.startswith(".") and name.endswith(".partial")]
    maps = {name: content for name, content in found.items() if name not in leftovers}
    wrong = sorted(set(maps.items()) - set(expected.items()))
    if wrong or not before.items() <= maps.items():
        raise AssertionError(f"torn or foreign: {[name for name, _ in wrong]}; gone: {sorted(set(before) - set(maps))}")
    return maps, len(leftovers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--in-write", type=int, default=20)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)  # noqa: S311 - repeatable is what it must be
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(given.cases):
            write_case(folder / "data", f"c{number}", images=phantom(seed=number))
        bundle = write_bundle(folder / "bundle", channels=(ALL,), tta={"variant": "none"})
        common = ["infer", "--device=cpu", f"--data-path={folder / 'data'}", f"--weights={bundle}"]
        start = time.perf_counter()
        if os.fork() == 0:  # torch's threads must not exist before the forks that follow
            attempt([*common, f"--output-path={folder / 'undisturbed'}"], slow=False, named=False, told=-1)
        os.wait()
        longest_s = time.perf_counter() - start
        expected, output = folder_bytes(folder / "undisturbed"), folder / "out"
        arguments = [*common, f"--output-path={output}", "--resume"]
        kinds = [True] * given.in_write + [False] * (given.kills - given.in_write)
        rng.shuffle(kinds)
        killed, in_writes, ended, leftovers, rounds, before = 0, 0, 0, 0, 1, {}
        while kinds:
            in_write = kinds.pop()
            code = kill_one(arguments, rng, longest_s, in_write=in_write)
            before, left = look(output, expected, before)
            leftovers += left
            if code is None:
                killed += 1
                in_writes += in_write
            else:
                kinds.append(in_write)  # it was done before the signal came: again
                ended += 1
                if code != 0:
                    raise AssertionError(f"exit code {code}")
            if len(before) == len(expected):
                for path in output.iterdir():
                    path.unlink()
                before, rounds = {}, rounds + 1
        if os.fork() == 0:
            attempt(arguments, slow=False, named=False, told=-1)
        os.wait()
        if folder_bytes(output) != expected:
            raise AssertionError("--resume did not complete the folder to the undisturbed bytes")
    print(f"{killed} kills, {in_writes} of them inside a write, in {rounds} rounds of {given.cases} cases, seed "
          f"{given.seed}: nothing finished was lost, nothing half was visible; {leftovers} .partial files were left, "
          f"which the next start removes; {ended} attempts ended before their signal; --resume completed to the "
          "undisturbed bytes")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
