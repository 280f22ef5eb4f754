"""Mutated NIfTI files and gzip streams: each must end in a clear error or a valid image, in bounded memory and time.

    python -m benchmarks.fuzz --inputs 100000 [--seed 0] [--keep FOLDER] [--real FOLDER_OF_CASES]

The files to start from are small and of every kind: NIfTI-1 and -2, both byte orders, several number types, extensions,
scaling. With --real the headers of real files join them. Three of four inputs are mutated below the compression (header
fields set to extremes, bytes changed, cut, inserted), the others in the gzip stream. Each is read by `read_image`,
`clean_voxels` and `find_resampling`. What is valid is resampled, and a label map is written on its grid and read again.

Findings are: any exception but ImageError, any warning, an image that contradicts its header, more than LIMIT_MIB of
memory, more than LIMIT_S per input. The bytes of a finding are kept. Exits with 1 if there is one.
"""

import argparse
import collections
import dis
import gzip
import os
import random
import resource
import struct
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

import metseg.files.header
import metseg.files.image
from metseg.files.header import MAX_VOXELS, ImageError
from metseg.files.image import Image, read_image
from metseg.files.read import read_label_map
from metseg.files.rules import clean_voxels
from metseg.files.write import write_label_map
from metseg.space.resampling import find_resampling, to_network

LIMIT_MIB = 256
LIMIT_S = 5.0
TRACED_INPUTS = 4000
MEASURED = (metseg.files.image, metseg.files.header)

EXTREMES = (0, 1, -1, 2, 7, 127, -128, 255, 32767, -32768, 2**31 - 1, -(2**31), 352, 348, 540)
EXTREME_FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 1e-3, 1e3, 3.4e38, -3.4e38)
SHAPES = ((6, 5, 4), (6, 5, 4, 1), (1, 1, 1), (3, 4, 1), (6, 5, 4, 2))


def seeds(real: Path | None) -> list[bytes]:
    """Uncompressed files to start from."""
    rng = np.random.default_rng(0)
    turn = nib.quaternions.quat2mat(nib.quaternions.fillpositive([0.1, -0.2, 0.05])).astype(np.float64)
    affines = [np.diag([-1.0, -1, 1, 1]), nib.affines.from_matvec(turn * [0.8594, 0.8594, 1.5], [80, 90, -70])]
    files = []
    for image_class in (nib.Nifti1Image, nib.Nifti2Image):
        for dtype in ("u1", "i2", "u2", "i4", "f4", "f8", "i8"):
            for order in "<>":
                header = image_class.header_class(endianness=order)
                affine = affines[len(files) % 2]
                shape = SHAPES[0] if len(files) % 3 else SHAPES[len(files) // 3 % len(SHAPES)]
                image = image_class(rng.integers(0, 100, shape).astype(np.dtype(dtype)), affine, header)
                image.set_qform(affine, 1)
                image.set_sform(affine, len(files) % 3)
                image.header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
                if len(files) % 4 == 1:
                    image.header.set_slope_inter(0.5, -3)
                if len(files) % 4 == 2:
                    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 40))
                files.append(image.to_bytes())
    for path in sorted(real.glob("*/*.nii.gz"))[::5] if real else ():
        with gzip.open(path) as stream:
            content = bytearray(stream.read(20_000))
        struct.pack_into("<3h", content, 42, 20, 20, 10)  # dim[1:4]: few enough voxels to be quick
        files.append(bytes(content))
    return files


def mutate_field(raw: bytearray, rng: random.Random) -> None:
    """Sets one element of one header field to an extreme or random value of its type."""
    is_second = raw[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
    layout = nib.nifti2.header_dtype if is_second else nib.nifti1.header_dtype
    if len(raw) < layout.itemsize:
        return
    big = raw[:4] in (b"\x00\x00\x01\x5c", b"\x00\x00\x02\x1c")
    layout = layout.newbyteorder(">" if big else "<")
    header = np.frombuffer(bytes(raw[: layout.itemsize]), layout).copy()
    name = rng.choice(("dim", "pixdim", "datatype", "srow_x", "srow_y", "srow_z", "vox_offset", *layout.names))
    field = header[name]
    kind = field.dtype.kind
    if kind == "S":
        value: object = bytes(rng.randrange(256) for _ in range(4))
    elif kind == "f":
        value = rng.choice((*EXTREME_FLOATS, rng.uniform(-500, 500)))
    else:
        info = np.iinfo(field.dtype)
        value = min(max(rng.choice((*EXTREMES, rng.randrange(300))), int(info.min)), int(info.max))
    with np.errstate(all="ignore"):
        if field.ndim > 1 and kind != "S":
            field[0, rng.randrange(field.shape[1])] = value
        else:
            field[0] = value
    raw[: layout.itemsize] = header.tobytes()


def flip(raw: bytearray, rng: random.Random) -> None:
    if raw:
        raw[rng.randrange(min(len(raw), rng.choice((16, 360, 10**9))))] = rng.randrange(256)


def cut(raw: bytearray, rng: random.Random) -> None:
    del raw[rng.randrange(len(raw) + 1) :]


def insert(raw: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(raw) + 1)
    raw[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 100))))


def remove(raw: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(raw) + 1)
    del raw[at : at + rng.choice((1, 4, 100))]


def extend(raw: bytearray, rng: random.Random) -> None:
    raw += bytes(rng.choice((1, 1000, 2**20)))


BELOW: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *[mutate_field] * 8,
    *[flip] * 3,
    cut,
    insert,
    remove,
    extend,
)
WITHIN = (*[flip] * 4, cut, insert, remove)


def inputs(count: int, seed: int, files: list[bytes]) -> Iterator[bytes]:
    """The mutated files, three of four below the compression."""
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")  # noqa: S311 - repeatable is what it must be
        raw = bytearray(rng.choice(files))
        if rng.random() < 0.75:
            for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
                rng.choice(BELOW)(raw, rng)
            yield gzip.compress(raw, 1) if rng.random() < 0.5 else bytes(raw)
        else:
            packed = bytearray(gzip.compress(raw, rng.choice((0, 1, 9))))
            if rng.random() < 0.2:
                packed += gzip.compress(rng.choice(files), 1)
            for _ in range(rng.choice((1, 1, 2, 4))):
                rng.choice(WITHIN)(packed, rng)
            yield bytes(packed)


def check_one(path: Path, folder: Path) -> str:
    """What became of one input.

    Raises:
        AssertionError: a result that contradicts itself.
    """
    try:
        image = read_image(path)
    except ImageError as error:
        if not str(error) or not error.hint:
            raise AssertionError("an error without message or hint") from error
        return f"refused: {error.code}"
    use(image, folder)
    return "valid"


def use(image: Image, folder: Path) -> None:
    shape = image.grid.shape
    assert image.voxels.shape == shape, "shape of the voxels"  # noqa: S101
    assert image.voxels.dtype == np.float32, "type of the voxels"  # noqa: S101
    assert np.isfinite(image.grid.affine).all(), "affine"  # noqa: S101
    voxels, _ = clean_voxels(image.voxels)
    assert np.isfinite(voxels).all(), "cleaned voxels"  # noqa: S101
    resampling = find_resampling(image.grid)
    network_voxels = np.prod(resampling.network.shape, dtype=float)
    assert network_voxels <= 8 * MAX_VOXELS, "size of the network grid"  # noqa: S101
    if network_voxels <= 10**6:
        assert np.isfinite(to_network(voxels, resampling)).all(), "resampled voxels"  # noqa: S101
    target = folder / "labels.nii.gz"
    labels = np.ones(shape, dtype=np.uint8)
    write_label_map(target, labels, image.header)
    written = read_label_map(target)
    assert np.array_equal(written.labels, labels), "written labels"  # noqa: S101
    assert np.array_equal(written.grid.affine, image.grid.affine), "grid of the written labels"  # noqa: S101


class LineCoverage:
    """Which lines of the reading modules run; tracing is slow, so for the first inputs only."""

    def __init__(self) -> None:
        self.files = {str(module.__file__) for module in MEASURED}
        self.seen: set[tuple[str, int]] = set()

    def trace(self, frame: types.FrameType, event: str, _: object) -> Callable[..., object] | None:
        """For sys.settrace."""
        if frame.f_code.co_filename not in self.files:
            return None
        if event == "line":
            self.seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self.trace

    def share(self) -> float:
        """Lines that ran, of all lines within functions."""
        lines = set()
        for module in MEASURED:
            file = str(module.__file__)
            for value in vars(module).values():
                code = getattr(value, "__wrapped__", value)
                code = getattr(code, "__code__", None)
                if code is not None and code.co_filename == file:
                    starts = [line for _, line in dis.findlinestarts(code) if line is not None]
                    lines |= {(file, line) for line in starts if line != code.co_firstlineno}
        return len(lines & self.seen) / len(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--real", type=Path)
    arguments = parser.parse_args()
    files = seeds(arguments.real)

    warnings.simplefilter("error")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_MIB * 2**20,) * 2)

    outcomes: collections.Counter[str] = collections.Counter()
    findings, slowest, start = 0, 0.0, time.perf_counter()
    coverage = LineCoverage()
    memory_folder = Path("/dev/shm")  # noqa: S108 - a hundred thousand small files need no disk
    with tempfile.TemporaryDirectory(dir=memory_folder if memory_folder.is_dir() else None) as name:
        folder = Path(name)
        for number, content in enumerate(inputs(arguments.inputs, arguments.seed, files)):
            path = folder / "input.nii.gz"
            path.write_bytes(content)
            sys.settrace(coverage.trace if number < TRACED_INPUTS else None)
            begun = time.process_time()
            try:
                outcome = check_one(path, folder)
            except Exception as error:  # noqa: BLE001 - finding them is the purpose
                outcome = f"FINDING {type(error).__name__}: {error}"[:100]
            sys.settrace(None)
            took = time.process_time() - begun
            slowest = max(slowest, took)
            if took > LIMIT_S:
                outcome = "FINDING too slow"
            if outcome.startswith("FINDING"):
                findings += 1
                arguments.keep.mkdir(exist_ok=True)
                (arguments.keep / f"{arguments.seed}-{number}.bin").write_bytes(content)
            outcomes[outcome] += 1
    total = sum(outcomes.values())
    for outcome, count in outcomes.most_common():
        print(f"{count:8d}  {count / total:6.1%}  {outcome}")
    print(f"{total} inputs in {time.perf_counter() - start:.0f} s, seed {arguments.seed}: {findings} findings")
    print(f"slowest input {slowest:.2f} s of processor; memory limit {LIMIT_MIB} MiB more than at the start")
    names = " and ".join(module.__name__ for module in MEASURED)
    print(f"lines of {names} reached by the first {TRACED_INPUTS} inputs: {coverage.share():.1%}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
