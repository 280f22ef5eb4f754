"""What goes wrong around a batch: folders that vanish, files that change, clocks that jump, disks that fill, rivals."""

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import nibabel as nib
import numpy as np
import pytest

import metseg.files.atomic
import metseg.files.image
import metseg.report.run_json
from metseg.errors import InputError, OutputError
from metseg.files.discovery import discover_cases
from metseg.files.image import ImageError, read_image
from metseg.plan.bundle import open_bundle
from metseg.predict.device import Device
from metseg.predict.engine import load_engine
from metseg.report.folder_report import report_label_maps
from metseg.run.batch import Job, run_batch
from phantoms import LPS, phantom
from support import ALL, folder_bytes, names_in, write_bundle, write_case

FP32 = Device("cpu", "float32", "test", 1)
CASES = ("c0", "c1", "c2", "c3")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    folder = write_bundle(tmp_path_factory.mktemp("weights") / "b", channels=(ALL,), tta={"variant": "none"})
    return load_engine(open_bundle(folder), FP32)


@pytest.fixture
def data(tmp_path):
    for number, case_id in enumerate(CASES):
        write_case(tmp_path / "data", case_id, images=phantom(seed=number))
    return tmp_path / "data"


@pytest.fixture
def undisturbed(data, ensemble, tmp_path):
    run_batch(Job(discover_cases(data), tmp_path / "undisturbed"), ensemble)
    return folder_bytes(tmp_path / "undisturbed")


def test_two_runs_on_one_output_folder_never_show_a_torn_file(data, ensemble, undisturbed, tmp_path):
    """Both write every case; whoever looks at any moment sees a whole file or none, and always the same bytes."""
    output, seen, failed, stop = tmp_path / "out", set(), [], threading.Event()
    output.mkdir()

    def run():
        try:
            for _ in range(3):
                run_batch(Job(discover_cases(data), output), ensemble)
        except Exception as error:  # noqa: BLE001 - a thread's error would be lost
            failed.append(error)

    def look():
        while not stop.is_set():
            for path in output.glob("*.nii.gz"):
                seen.add((path.name, path.read_bytes()))

    runs = [threading.Thread(target=run) for _ in range(2)]
    observer = threading.Thread(target=look)
    for thread in (observer, *runs):
        thread.start()
    for thread in runs:
        thread.join()
    stop.set()
    observer.join()
    assert failed == []
    assert seen <= set(undisturbed.items())
    assert folder_bytes(output) == undisturbed, "nothing else is left"


WRITER = """
import sys
from pathlib import Path
from metseg.files.atomic import remove_partials, write_atomically
folder, mark = Path(sys.argv[1]), sys.argv[2].encode()
for number in range(60):
    remove_partials(folder)
    write_atomically(folder / f"f{number % 3}", mark * 50_000)
"""


def test_two_processes_that_write_the_same_names_never_mix(tmp_path):
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), mark]) for mark in "ab"]
    contents = set()
    while any(process.poll() is None for process in processes):
        contents |= {path.read_bytes() for path in tmp_path.glob("f?")}
    assert [process.returncode for process in processes] == [0, 0]
    assert contents <= {b"a" * 50_000, b"b" * 50_000}
    assert names_in(tmp_path) == ["f0", "f1", "f2"]


def after_first(action):
    """A listener that does something once, when the first case is in place."""
    pending = [action]

    def listen(*_):
        if pending:
            pending.pop()()

    return listen


def test_an_input_folder_that_vanishes(data, ensemble, undisturbed, tmp_path):
    job = Job(discover_cases(data), tmp_path / "out", on_error="skip")
    records = run_batch(job, ensemble, after_first(lambda: shutil.rmtree(data)))
    outcomes = [record.outcome for record in records]
    assert outcomes[0] == "segmented"
    assert outcomes[-1] == "failed"
    assert all(f"case {record.case_id}:" in record.error for record in records if record.error)
    assert "does not exist" in records[-1].error
    finished = folder_bytes(tmp_path / "out")
    assert finished.items() <= undisturbed.items()
    assert len(finished) == outcomes.count("segmented")


def test_it_stops_a_batch_that_is_to_stop(data, ensemble, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        run_batch(Job(discover_cases(data), tmp_path / "out"), ensemble, after_first(lambda: shutil.rmtree(data)))
    assert "c0.nii.gz" in names_in(tmp_path / "out")


def after_the_header(monkeypatch, happen):
    """Lets something happen when an image's header is read, and its voxels are not."""
    parse_header = metseg.files.image.parse_header
    monkeypatch.setattr(metseg.files.image, "parse_header", lambda *given: (happen(), parse_header(*given))[1])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_is_cut_while_it_is_read(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"image{suffix}"
    noise = np.random.default_rng(0).standard_normal((64, 64, 96)).astype(np.float32)  # 1.5 MB, compressed or not
    nib.save(nib.Nifti1Image(noise, LPS), path)

    after_the_header(monkeypatch, lambda: os.truncate(path, 600_000))
    with pytest.raises(ImageError, match="truncated"):
        read_image(path)


def test_a_file_that_is_overwritten_while_it_is_read_is_refused_or_whole(tmp_path, monkeypatch):
    """Compressed files carry a checksum: a mixture of two does not pass."""
    path = tmp_path / "image.nii.gz"
    rng = np.random.default_rng(0)
    other = tmp_path / "other.nii.gz"
    for target in (path, other):
        nib.save(nib.Nifti1Image(rng.standard_normal((64, 64, 96)).astype(np.float32), LPS), target)

    def overwrite():
        content = other.read_bytes()
        with path.open("r+b") as file:
            file.seek(500_000)
            file.write(content[500_000:])

    after_the_header(monkeypatch, overwrite)
    with pytest.raises(ImageError, match="corrupt"):
        read_image(path)


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(tmp_path, monkeypatch):
    """`mv new old`: the file that was opened stays what it was."""
    path, new = tmp_path / "image.nii", tmp_path / "new.nii"
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), dtype=np.float32), LPS), path)
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), dtype=np.float32), LPS), new)
    after_the_header(monkeypatch, lambda: new.replace(path))
    assert read_image(path).voxels.all()


def test_the_clock_may_jump(data, ensemble, undisturbed, tmp_path, monkeypatch):
    hours = itertools.cycle([0, 30_000, -40_000, 5])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * next(hours))
    records = run_batch(Job(discover_cases(data), tmp_path / "out"), ensemble)
    assert folder_bytes(tmp_path / "out") == undisturbed
    assert all(0 < record.elapsed_s < 600 for record in records)
    assert all(seconds >= 0 for record in records for seconds in record.stage_s.values())


def test_a_report_does_not_count_by_a_clock_that_is_set_back(data, ensemble, tmp_path, monkeypatch):
    run_batch(Job(discover_cases(data), tmp_path / "out"), ensemble)
    days = iter(range(20, 0, -1))

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, next(days), tzinfo=tz)

    monkeypatch.setattr(metseg.report.run_json, "datetime", Clock)
    report_label_maps(data, tmp_path / "out", tmp_path / "report")
    run = json.loads((tmp_path / "report/run.json").read_text())
    assert 0 <= run["elapsed_s"] < 600
    started, finished = (datetime.fromisoformat(run[key]).astimezone(UTC) for key in ("started", "finished"))
    assert started <= finished


def test_a_full_disk_keeps_what_is_finished_and_resume_completes_it(data, ensemble, undisturbed, tmp_path, monkeypatch):
    output, written = tmp_path / "out", []
    real_write = os.write

    def write(file, content):
        written.append(1)
        if len(written) > 2:
            real_write(file, bytes(content[:100]))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(file, content)

    monkeypatch.setattr(metseg.files.atomic.os, "write", write)
    with pytest.raises(OutputError, match="No space left") as raised:
        run_batch(Job(discover_cases(data), output, on_error="skip"), ensemble)
    assert "--resume" in raised.value.hint
    assert folder_bytes(output) == {name: undisturbed[name] for name in ("c0.nii.gz", "c1.nii.gz")}
    monkeypatch.setattr(metseg.files.atomic.os, "write", real_write)
    run_batch(Job(discover_cases(data), output, resume=True), ensemble)
    assert folder_bytes(output) == undisturbed


def test_an_output_folder_that_vanishes(data, ensemble, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(OutputError, match="can't be written"):
        run_batch(Job(discover_cases(data), output), ensemble, after_first(lambda: output.rename(tmp_path / "gone")))
