"""A folder of cases in, a folder of label maps out."""

import gc
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

import metseg.predict.inputs
import metseg.predict.passes
from metseg.errors import ExitCode, InputError, OutputError
from metseg.files.discovery import discover_cases
from metseg.files.write import write_label_map
from metseg.plan.bundle import open_bundle
from metseg.predict import gpu
from metseg.predict.device import Device
from metseg.predict.engine import load_engine
from metseg.predict.inputs import LEFT_FREE_BYTES, lay_inputs
from metseg.predict.members import predict_members
from metseg.predict.memory import Memory, MemoryNeed
from metseg.prepare.prepare import prepare
from metseg.run import batch, pipeline
from metseg.run.batch import Job, choose_exit_code, run_batch
from metseg.run.pipeline import STAGES, read
from metseg.run.record import CaseRecord
from phantoms import phantom
from support import ALL, SUB, folder_bytes, names_in, write_bundle, write_case

FP32 = Device("cpu", "float32", "test", 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Two members, with noise: so that determinism is worth testing."""
    sections = {"window": {"size": (24, 32, 16)}, "tta": {"variant": "aurora"}}
    return write_bundle(tmp_path_factory.mktemp("weights") / "b", channels=(ALL, SUB), **sections)


@pytest.fixture(scope="module")
def engine(bundle):
    return load_engine(open_bundle(bundle), FP32)


def run(data, output, engine, **job):
    return run_batch(Job(discover_cases(data), output, **job), engine)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Four good cases, the second without t2w."""
    data = tmp_path_factory.mktemp("data")
    for number in range(4):
        folder = write_case(data, f"case {number}", images=phantom(seed=number))
        if number == 1:
            (folder / "case 1-t2w.nii.gz").unlink()
    return data


@pytest.fixture(scope="module")
def undisturbed(cases, engine, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    run(cases, output, engine)
    return output


def test_every_case_gets_one_file_on_its_own_grid_and_nothing_else(cases, undisturbed):
    assert names_in(undisturbed) == [f"case {number}.nii.gz" for number in range(4)]
    found = set()
    for number in range(4):
        written = nib.load(undisturbed / f"case {number}.nii.gz")
        source = nib.load(cases / f"case {number}" / f"case {number}-t1c.nii.gz")
        labels = np.asanyarray(written.dataobj)
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {0, 1, 2, 3}
        found |= set(np.unique(labels))
        for field in source.header:
            if field not in {"datatype", "bitpix", "scl_slope", "scl_inter"}:
                assert written.header[field].tobytes() == source.header[field].tobytes(), field
    assert len(found) > 1, "empty maps would prove nothing"


def test_files_are_readable_by_the_callers_user(undisturbed):
    for path in undisturbed.iterdir():
        assert path.stat().st_mode & stat.S_IRUSR
        assert path.stat().st_mode & stat.S_IRGRP


def test_a_case_without_t2w_is_segmented_by_the_others_and_says_so(cases, engine, tmp_path):
    records = run(cases, tmp_path / "out", engine)
    assert [record.outcome for record in records] == ["segmented"] * 4
    assert records[1].members == ("m1",)
    assert records[1].notes[0].sentence == "missing t2w: segmented by m1 alone (1 of 2 members)"
    assert records[0].members == ("m0", "m1")


def test_a_case_gives_the_same_bytes_alone_in_a_batch_renamed_and_on_a_shard(cases, engine, undisturbed, tmp_path):
    expected = folder_bytes(undisturbed)
    write_case(tmp_path / "alone", "zz", images=phantom(seed=2))
    run(tmp_path / "alone", tmp_path / "out", engine)
    assert (tmp_path / "out" / "zz.nii.gz").read_bytes() == expected["case 2.nii.gz"]
    found = discover_cases(cases)
    for index in range(3):
        run_batch(Job(found[index::3], tmp_path / "shards"), engine)
    assert folder_bytes(tmp_path / "shards") == expected


def test_resume_does_only_what_is_missing(cases, engine, undisturbed, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    shutil.copy(undisturbed / "case 0.nii.gz", output)
    before = (output / "case 0.nii.gz").stat().st_mtime_ns
    records = run(cases, output, engine, resume=True)
    assert [record.outcome for record in records] == ["present", "segmented", "segmented", "segmented"]
    assert (output / "case 0.nii.gz").stat().st_mtime_ns == before
    assert (output / "case 3.nii.gz").read_bytes() == (undisturbed / "case 3.nii.gz").read_bytes()


def test_resume_does_blank_maps_again(with_broken, engine, tmp_path):
    output = tmp_path / "out"
    records = run(with_broken, output, engine, on_error="blank")
    assert [record.outcome for record in records] == ["segmented", "blank", "segmented"]
    records = run(with_broken, output, engine, on_error="blank", resume=True)
    assert [record.outcome for record in records] == ["present", "blank", "present"], "still broken, still said"
    shutil.rmtree(with_broken / "c1")
    write_case(with_broken, "c1", images=phantom(seed=1))
    records = run(with_broken, output, engine, on_error="blank", resume=True)
    assert [record.outcome for record in records] == ["present", "segmented", "present"]
    assert nib.load(output / "c1.nii.gz").get_fdata().any()


def edited(source, target, change, affine=None, dtype=np.uint8):
    """Writes another program's version of a label map."""
    image = nib.load(source)
    labels = change(np.asanyarray(image.dataobj).astype(np.float64)).astype(dtype)
    nib.save(nib.Nifti1Image(labels, image.affine if affine is None else affine), target)


def moved(labels):
    return np.roll(labels, 1, axis=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_resume_leaves_alone_what_somebody_edited(cases, engine, undisturbed, tmp_path, dtype):
    shutil.copytree(undisturbed, tmp_path / "out")
    edited(undisturbed / "case 0.nii.gz", tmp_path / "out/case 0.nii.gz", moved, dtype=dtype)
    content = (tmp_path / "out" / "case 0.nii.gz").read_bytes()
    assert [record.outcome for record in run(cases, tmp_path / "out", engine, resume=True)] == ["present"] * 4
    assert (tmp_path / "out" / "case 0.nii.gz").read_bytes() == content


SHIFTED = np.diag([1.0, 1, 1, 1])
SHIFTED[0, 3] = 1
DAMAGES = {
    "empty": (lambda _, path: path.write_bytes(b""), "empty"),
    "text": (lambda _, path: path.write_text("no image"), "not a NIfTI file"),
    "truncated": (lambda good, path: path.write_bytes(good.read_bytes()[:-40]), "truncated"),
    "wrong checksum": (lambda good, path: path.write_bytes(good.read_bytes()[:-8] + bytes(8)), "crc"),
    "half a label": (lambda good, path: edited(good, path, lambda v: v / 2, dtype=np.float32), r"0\.5"),
    "label 7": (lambda good, path: edited(good, path, lambda v: np.where(v > 0, 7, 0)), "holds 7"),
    "label 4 without RC": (lambda good, path: edited(good, path, lambda v: np.where(v > 0, 4, 0)), "holds 4"),
    "another shape": (lambda good, path: edited(good, path, lambda v: v[1:]), "expected 24x32x16"),
    "another place": (lambda good, path: edited(good, path, moved, affine=SHIFTED), "mm apart"),
    "no label": (lambda good, path: edited(good, path, lambda v: 0 * v), "no label"),
    "a link to nothing useful": (lambda _, path: path.symlink_to("/dev/null"), "not a regular file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_resume_does_again_and_names_what_is_no_finished_work(cases, engine, undisturbed, caplog, damage, tmp_path):  # noqa: PLR0917 - fixtures
    make, reason = DAMAGES[damage]
    shutil.copytree(undisturbed, tmp_path / "out")
    path = tmp_path / "out/case 2.nii.gz"
    path.unlink()
    make(undisturbed / "case 2.nii.gz", path)
    with caplog.at_level("INFO"):
        records = run(cases, tmp_path / "out", engine, resume=True)
    assert [record.outcome for record in records] == ["present", "present", "segmented", "present"]
    assert folder_bytes(tmp_path / "out") == folder_bytes(undisturbed)
    assert not path.is_symlink()
    (said,) = [text for text in caplog.messages if "segmented again" in text]
    assert "case case 2" in said
    assert re.search(reason, said)


def test_resume_does_again_what_lies_on_a_grid_that_t1c_had_before(cases, engine, undisturbed, tmp_path):
    shutil.copytree(cases, tmp_path / "data")
    shutil.copytree(undisturbed, tmp_path / "out")
    for path in (tmp_path / "data/case 2").iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine @ SHIFTED), path)
    records = run(tmp_path / "data", tmp_path / "out", engine, resume=True)
    assert [record.outcome for record in records] == ["present", "present", "segmented", "present"]
    t1c = nib.load(tmp_path / "data/case 2/case 2-t1c.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "out/case 2.nii.gz").affine, t1c.affine)


def test_resume_keeps_a_label_map_whose_case_can_not_be_read_any_more(cases, engine, undisturbed, tmp_path):
    shutil.copytree(cases, tmp_path / "data")
    shutil.copytree(undisturbed, tmp_path / "out")
    (tmp_path / "data/case 2/case 2-t1c.nii.gz").write_bytes(b"gone")
    records = run(tmp_path / "data", tmp_path / "out", engine, resume=True, on_error="blank")
    assert [record.outcome for record in records] == ["present"] * 4
    assert folder_bytes(tmp_path / "out") == folder_bytes(undisturbed)


def test_what_is_done_again_and_fails_leaves_the_file_as_it_was(cases, engine, undisturbed, tmp_path):
    shutil.copytree(cases, tmp_path / "data")
    shutil.copytree(undisturbed, tmp_path / "out")
    (tmp_path / "data/case 2/case 2-t1n.nii.gz").write_bytes(b"gone")
    (tmp_path / "out/case 2.nii.gz").write_bytes(b"damaged")
    records = run(tmp_path / "data", tmp_path / "out", engine, resume=True, on_error="skip")
    assert [record.outcome for record in records] == ["present", "present", "failed", "present"]
    assert (tmp_path / "out/case 2.nii.gz").read_bytes() == b"damaged"


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_in_a_label_maps_place_is_said_before_the_first_case(cases, engine, tmp_path, resume):
    (tmp_path / "out/case 2.nii.gz").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"case 2\.nii\.gz is a folder") as raised:
        run(cases, tmp_path / "out", engine, resume=resume)
    assert raised.value.hint
    assert names_in(tmp_path / "out") == ["case 2.nii.gz"]


GB = 10**9


@pytest.fixture
def seen(monkeypatch):
    """What happens to which case, in order."""
    events, real = [], {name: getattr(pipeline, name) for name in ("read", "predict")}

    def read(files, *rest):
        events.append(("read", files.case_id))
        return real["read"](files, *rest)

    def predict_(inputs, engine):
        events.append(("predict", inputs.prepared.case_id))
        time.sleep(0.05)  # time enough for the next case to be read, if it is
        return real["predict"](inputs, engine)

    def write(path, *rest):
        write_label_map(path, *rest)
        events.append(("write", path.name.removesuffix(".nii.gz")))

    monkeypatch.setattr(pipeline, "read", read)
    monkeypatch.setattr(pipeline, "predict", predict_)
    monkeypatch.setattr(batch, "write_label_map", write)
    return events


@pytest.fixture
def run_within(cases, engine, undisturbed, tmp_path, monkeypatch):
    """Runs all cases, each with its need, within a memory: gives the records, and what the listener was told."""

    def run_them(needs, available):
        memory = Memory({f"case {number}": MemoryNeed(*need) for number, need in enumerate(needs)}, available)
        monkeypatch.setattr(batch, "weigh_cases", lambda *_: memory)
        told = []
        records = run_batch(Job(discover_cases(cases), tmp_path / "out"), engine, lambda record, _: told.append(record))
        assert folder_bytes(tmp_path / "out") == folder_bytes(undisturbed)
        return records, told

    return run_them


ONE_DOES_NOT_FIT = ((GB, GB), (GB, 99 * GB), (GB, GB), (GB, GB))


def test_a_case_that_does_not_fit_is_tried_last_and_alone(run_within, seen, caplog):
    records, told = run_within(ONE_DOES_NOT_FIT, 10 * GB)
    assert [record.case_id for record in records] == [f"case {number}" for number in range(4)]
    assert [record.case_id for record in told] == ["case 0", "case 2", "case 3", "case 1"]
    assert seen[-3:] == [(what, "case 1") for what in ("read", "predict", "write")]
    assert seen.index(("read", "case 2")) < seen.index(("write", "case 0")), "the others overlap as ever"
    (warned,) = [text for text in caplog.messages if "GB of memory" in text]
    assert warned.startswith("case case 1: needs about 100.4 GB of memory on the CPU, 10.0 GB are free")


def test_cases_that_fit_but_not_together_are_done_one_after_the_other(run_within, seen):
    run_within([(2 * GB, GB)] * 4, 4 * GB)
    assert seen == [(what, f"case {number}") for number in range(4) for what in ("read", "predict", "write")]


def test_when_a_case_is_tried_alone_nothing_is_left_of_the_others(run_within, monkeypatch):
    made, alive, real = [], [], pipeline.restore

    def restore(*given):
        segmented = real(*given)
        made.append(weakref.ref(segmented.labels))
        return segmented

    monkeypatch.setattr(pipeline, "restore", restore)
    monkeypatch.setattr(batch, "give_back_memory", lambda: alive.append([labels() is not None for labels in made]))
    run_within(ONE_DOES_NOT_FIT, 10 * GB)
    assert alive[-2] == [False] * 3, "before the last case begins"


def test_two_files_of_one_modality_are_named_not_called_missing(engine, tmp_path):
    folder = write_case(tmp_path / "data", "c0")
    (folder / "c0-t1c.nii").write_bytes(b"")
    with pytest.raises(InputError, match=r"c0-t1c\.nii"):
        run(tmp_path / "data", tmp_path / "out", engine)


@pytest.fixture
def with_broken(tmp_path):
    """A good case, a truncated one, another good one."""
    data = tmp_path / "data"
    for number in range(3):
        folder = write_case(data, f"c{number}", images=phantom(seed=number))
        if number == 1:
            content = (folder / "c1-t1c.nii.gz").read_bytes()
            (folder / "c1-t1c.nii.gz").write_bytes(content[: len(content) // 2])
    return data


def test_stop_keeps_what_was_finished(with_broken, engine, tmp_path):
    with pytest.raises(InputError, match="c1"):
        run(with_broken, tmp_path / "out", engine)
    assert names_in(tmp_path / "out") == ["c0.nii.gz"]


def test_skip_leaves_the_case_out(with_broken, engine, tmp_path):
    records = run(with_broken, tmp_path / "out", engine, on_error="skip")
    assert [record.outcome for record in records] == ["segmented", "failed", "segmented"]
    assert names_in(tmp_path / "out") == ["c0.nii.gz", "c2.nii.gz"]
    assert "truncated" in records[1].error


def test_blank_writes_an_empty_map_on_the_cases_grid_and_says_what_it_is(with_broken, engine, tmp_path):
    records = run(with_broken, tmp_path / "out", engine, on_error="blank")
    assert [record.outcome for record in records] == ["segmented", "blank", "segmented"]
    assert "does not mean that there is no tumour" in records[1].notes[0].sentence
    blank, good = (nib.load(tmp_path / "out" / f"c{number}.nii.gz") for number in (1, 0))
    assert not np.asanyarray(blank.dataobj).any()
    assert blank.shape == good.shape
    np.testing.assert_array_equal(blank.affine, good.affine)


def test_a_case_without_any_readable_header_gets_a_blank_on_the_atlas_grid(engine, tmp_path):
    folder = write_case(tmp_path / "data", "c0")
    for path in folder.iterdir():
        path.write_bytes(b"not an image")
    run(tmp_path / "data", tmp_path / "out", engine, on_error="blank")
    blank = nib.load(tmp_path / "out" / "c0.nii.gz")
    assert blank.shape == (240, 240, 155)
    np.testing.assert_array_equal(blank.affine[:3, 3], [0, 239, 0])


@pytest.fixture
def by_a_gpu(monkeypatch):
    """Cases are read as for a GPU; what it would be sent stays here. Gives what is sent, and when."""
    seen = []

    @contextmanager
    def beside_computing(_device):
        seen.append("begin")
        yield
        seen.append("end")

    def send(array, device):
        seen.append(array.shape)
        return gpu.send(array, device)

    monkeypatch.setattr(Device, "is_cuda", property(lambda device: device.precision == "float16"))
    monkeypatch.setattr(metseg.predict.inputs, "beside_computing", beside_computing)
    monkeypatch.setattr(metseg.predict.inputs, "free_bytes", lambda _device: 2**40)
    monkeypatch.setattr(metseg.predict.inputs, "send", send)
    monkeypatch.setattr(metseg.predict.passes, "send", send)
    return seen


def inputs_for(files, engine):
    return lay_inputs(prepare(read(files, engine.plan), engine.plan), engine)


def test_what_a_gpu_would_wait_for_is_drawn_and_sent_while_the_case_is_read(cases, engine, by_a_gpu):
    files = discover_cases(cases)[0]
    ahead = inputs_for(files, replace(engine, device=Device("cpu", "float16", "a GPU", 1)))
    box = ahead.layout.shape
    assert by_a_gpu == ["begin", *[box] * len({*ALL, *SUB}), *[(4, *box)] * 4, "end"]
    by_a_gpu.clear()
    later = inputs_for(files, engine)
    assert not by_a_gpu
    assert not later.noise.drawn
    first = predict_members(ahead, engine).members
    assert not by_a_gpu, "sent again"
    second = predict_members(later, engine).members
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
    ahead.forget()
    assert not ahead.sent
    assert not ahead.noise.drawn
    assert not ahead.noise.sent


def test_nothing_is_sent_ahead_to_a_gpu_with_little_free_memory(cases, engine, by_a_gpu, monkeypatch):
    monkeypatch.setattr(metseg.predict.inputs, "free_bytes", lambda _device: LEFT_FREE_BYTES - 1)
    inputs = inputs_for(discover_cases(cases)[0], replace(engine, device=Device("cpu", "float16", "a GPU", 1)))
    assert not by_a_gpu
    assert inputs.noise.drawn


def test_a_case_that_failed_leaves_nothing_of_its_work_in_memory(cases, engine, monkeypatch, tmp_path):
    work = []

    def fail(*_):
        tensor = torch.zeros(10)
        work.append(weakref.ref(tensor))
        raise InputError("a reason")

    monkeypatch.setattr(pipeline, "predict", fail)
    gc.disable()
    try:
        run(cases, tmp_path / "out", engine, on_error="skip")
        assert [tensor() for tensor in work] == [None] * 4
    finally:
        gc.enable()


def test_what_does_not_fit_on_a_gpu_beside_the_other_case_is_sent_in_its_turn(
    cases, engine, by_a_gpu, monkeypatch, tmp_path
):
    run(cases, tmp_path / "undisturbed", engine)

    def full(array, device):
        if threading.current_thread() is not threading.main_thread():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gpu.send(array, device)

    monkeypatch.setattr(metseg.predict.inputs, "send", full)
    monkeypatch.setattr(Device, "is_cuda", property(lambda _device: True))
    run(cases, tmp_path / "out", engine)
    assert by_a_gpu.count("begin") == 4
    assert "end" not in by_a_gpu
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "undisturbed")


@pytest.fixture(params=[STAGES[2:3], STAGES[2:]], ids=["beside", "in turn"])
def stages_here(request, monkeypatch):
    """Which stages the batch's thread runs: the networks alone, as for a GPU, or those behind them too."""
    monkeypatch.setattr(batch, "stages_here", lambda _engine: request.param)


def test_freed_memory_goes_back_after_every_case(cases, engine, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(batch, "give_back_memory", lambda: given.append(1))
    run(cases, tmp_path / "out", engine)
    assert len(given) == 4


@pytest.mark.usefixtures("stages_here")
def test_concluded_in_turn_or_beside_the_next_case_files_are_the_same(cases, engine, undisturbed, tmp_path):
    seen = []
    run_batch(Job(discover_cases(cases), tmp_path / "out"), engine, lambda record, *_: seen.append(record.case_id))
    assert folder_bytes(tmp_path / "out") == folder_bytes(undisturbed)
    assert seen == [f"case {number}" for number in range(4)]


@pytest.mark.usefixtures("stages_here")
@pytest.mark.parametrize("part", ["prepare", "predict", "decide", "restore"])
def test_an_unexpected_error_in_one_case_does_not_cost_the_others(part, cases, engine, tmp_path, monkeypatch):
    original, begun = getattr(pipeline, part), []

    def sometimes(*arguments):
        begun.append(part)
        if len(begun) == 3:
            raise ArithmeticError("a bug")
        return original(*arguments)

    monkeypatch.setattr(pipeline, part, sometimes)
    records = run(cases, tmp_path / "out", engine, on_error="blank")
    assert [record.outcome for record in records] == ["segmented", "segmented", "blank", "segmented"]
    begun.clear()
    with pytest.raises(ArithmeticError):
        run(cases, tmp_path / "out2", engine, on_error="stop")


@pytest.mark.parametrize(
    ("outcomes", "on_error", "code"),
    [
        (["segmented", "present"], "stop", ExitCode.DONE),
        (["segmented", "failed"], "skip", ExitCode.SOME_FAILED),
        (["segmented", "blank"], "blank", ExitCode.DONE),
        (["blank", "blank"], "blank", ExitCode.SOME_FAILED),
        (["failed"], "skip", ExitCode.SOME_FAILED),
    ],
)
def test_exit_codes(outcomes, on_error, code):
    assert choose_exit_code([CaseRecord("c", outcome) for outcome in outcomes], on_error) == code


def test_a_file_in_the_way_of_the_output_folder_is_an_output_error(cases, engine, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="can't be made"):
        run(cases, tmp_path / "out", engine)


def start_program(bundle, data, output, *options):
    command = [sys.executable, "-m", "metseg", "infer", "--device", "cpu", "--weights", bundle]
    command += ["--data-path", data, "--output-path", output, *options]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)


def wait_for_first(output, process):
    deadline = time.monotonic() + 120
    while not (output.exists() and any(path.suffix == ".gz" for path in output.iterdir())):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def ctrl_c_heeded():
    """A shell starts what runs in its background with SIGINT ignored, and a program's children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_heeded")
@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGINT, ExitCode.INTERRUPTED)],
)
def test_a_killed_batch_loses_no_finished_case_and_leaves_no_half_file(tmp_path, sent, code):
    data, output = tmp_path / "data", tmp_path / "out"
    bundle = write_bundle(tmp_path / "bundle", channels=(ALL,), tta={"variant": "none"})
    for number in range(30):
        write_case(data, f"c{number:02d}", images=phantom(seed=number % 3))
    with start_program(bundle, data, output) as process:
        wait_for_first(output, process)
        process.send_signal(sent)
        process.wait(timeout=60)
    assert process.returncode == code
    finished = [path for path in output.iterdir() if path.suffix == ".gz"]
    assert 0 < len(finished) < 30
    for path in finished:
        assert np.asanyarray(nib.load(path).dataobj).shape == (24, 32, 16)
    before = {path.name: path.stat().st_mtime_ns for path in finished}
    with start_program(bundle, data, output, "--resume") as again:
        assert again.wait(timeout=120) == 0, again.stderr.read()
    assert names_in(output) == [f"c{number:02d}.nii.gz" for number in range(30)]
    assert all((output / name).stat().st_mtime_ns == at for name, at in before.items())
