"""A case that does not fit into memory is tried again in smaller steps; none of them changes what comes out."""

import logging
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typing_extensions import override

import metseg.predict.engine
import metseg.predict.fallback
import metseg.run.pipeline
from metseg.errors import DeviceError, ExitCode, NotFiniteError
from metseg.files.case import Case
from metseg.files.discovery import discover_cases
from metseg.plan.bundle import open_bundle
from metseg.plan.plan import IntensityPlan, TtaPlan
from metseg.predict.device import Device
from metseg.predict.engine import CPU_VOXELS_PER_THREAD, GPU_BATCH_VOXELS, Execution, load_engine
from metseg.predict.fallback import is_out_of_memory, predict
from metseg.predict.inputs import make_inputs
from metseg.predict.members import predict_members
from metseg.prepare.prepare import prepare_case
from metseg.run.batch import Job, run_batch
from metseg.space.grid import Grid
from phantoms import phantom
from support import ALL, names_in, write_bundle, write_case

SHAPE = (24, 32, 20)
AMPLE = 10**9
FP32 = Device("cpu", "float32", "test", 1)
CPU_MESSAGE = (
    "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 7"
)


class Limited(nn.Module):
    """A network that runs out of memory with more than so many windows at once."""

    def __init__(self, network, limit):
        super().__init__()
        self.network, self.limit, self.calls = network, limit, []

    @override
    def forward(self, batch):
        self.calls.append(len(batch))
        if len(batch) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\n" + 50 * "GPU 0 has ... ")
        return self.network(batch)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = write_bundle(tmp_path_factory.mktemp("weights") / "b", channels=(ALL,))
    return load_engine(open_bundle(folder), FP32)


@pytest.fixture(scope="module")
def case():
    return prepare_case(Case("c0", Grid(SHAPE, np.eye(4)), phantom(SHAPE), b""), IntensityPlan())


def limited(engine, limit, **changes):
    members = tuple(replace(member, network=Limited(member.network, limit)) for member in engine.members)
    return replace(engine, members=members, **changes)


def probabilities(predictions):
    return np.stack([member.probabilities for member in predictions.members])


def predicted(prepared, engine):
    return predict_members(make_inputs(prepared, engine.plan), engine)


def test_sums_on_the_host_and_batches_are_the_same_to_the_bit(engine, case):
    layout = make_inputs(case, engine.plan).layout
    plain = probabilities(predicted(case, engine))
    on_host = probabilities(predicted(case, replace(engine, execution=Execution(sums_on_host=True))))
    np.testing.assert_array_equal(on_host, plain)
    for at_once in (3, 1000):
        ample = replace(engine, execution=Execution(at_once * math.prod(layout.window)))
        batched = probabilities(predicted(case, ample))
        np.testing.assert_array_equal(batched, plain)


def test_a_batch_has_no_more_voxels_than_it_may_and_one_window_at_least(engine, case):
    layout = make_inputs(case, engine.plan).layout
    for windows, most in ((2.5, 2), (0.5, 1)):
        watched = limited(engine, 9, execution=Execution(int(windows * math.prod(layout.window))))
        predicted(case, watched)
        assert max(watched.members[0].network.calls) == most


def test_a_gpu_takes_several_windows_at_once_and_a_cpu_a_small_one_on_each_thread(monkeypatch, tmp_path):
    bundle = open_bundle(write_bundle(tmp_path / "b", channels=(ALL,)))
    monkeypatch.setattr(metseg.predict.engine, "_place_module", lambda module, _device: module)
    assert load_engine(bundle, Device("cuda:0", "float16", "a GPU", 1)).execution.batch_voxels == GPU_BATCH_VOXELS
    for threads in (1, 4):
        cpu = load_engine(bundle, replace(FP32, threads=threads))
        assert cpu.execution.batch_voxels == threads * CPU_VOXELS_PER_THREAD < GPU_BATCH_VOXELS


def test_a_smaller_batch_is_tried_and_said(engine, case, caplog):
    layout = make_inputs(case, engine.plan).layout
    narrow = limited(engine, 1, execution=Execution(4 * math.prod(layout.window)))
    with caplog.at_level(logging.WARNING):
        found = predict(make_inputs(case, engine.plan), narrow)
    np.testing.assert_array_equal(probabilities(found), probabilities(predicted(case, engine)))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("case c0: out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert line.endswith("; trying again with one window at a time")
    assert len(line) < 250
    assert narrow.members[0].network.calls[:2] == [4, 1]


def test_every_case_begins_at_the_top(engine, case):
    layout = make_inputs(case, engine.plan).layout
    narrow = limited(engine, 1, execution=Execution(4 * math.prod(layout.window)))
    for _ in range(2):
        predict(make_inputs(case, engine.plan), narrow)
    calls = narrow.members[0].network.calls
    assert [number for number, size in enumerate(calls) if size == 4] == [0, len(calls) // 2]


def test_the_cpu_comes_last_and_only_where_it_may(engine, case, caplog):
    given = []

    def fallback():
        given.append(True)
        return engine

    found = predict(make_inputs(case, engine.plan), limited(engine, 0, execution=Execution(AMPLE), fallback=fallback))
    np.testing.assert_array_equal(probabilities(found), probabilities(predicted(case, engine)))
    assert given == [True]
    assert caplog.messages[-1].endswith("trying again on the CPU")
    with pytest.raises(DeviceError, match=r"case c0: out of memory on test \(CUDA out of memory") as raised:
        predict(make_inputs(case, engine.plan), limited(engine, 0))
    assert "metseg check" in raised.value.hint


def test_the_steps_of_a_gpu_in_order(monkeypatch, engine, case):
    seen, alive = [], []

    def fail(_case, attempt, *_rest):
        assert not [kept for kept in alive if kept() is not None], "the failed attempt's tensors are still there"
        filling = torch.zeros(10)
        alive.append(weakref.ref(filling))
        seen.append((attempt.device.name, attempt.execution.batch_voxels, attempt.execution.sums_on_host))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(metseg.predict.fallback, "predict_members", fail)
    gpu = replace(engine, device=Device("cuda:0", "float16", "a GPU", 1), execution=Execution(AMPLE))
    with pytest.raises(DeviceError):
        predict(make_inputs(case, engine.plan), replace(gpu, fallback=lambda: engine))
    cpu = [("cpu", CPU_VOXELS_PER_THREAD, False), ("cpu", 0, False)]
    assert seen == [("cuda:0", AMPLE, False), ("cuda:0", 0, False), ("cuda:0", 0, True), *cpu]


class Overflowing(nn.Module):
    """A network whose numbers leave the range of its arithmetic."""

    @override
    def forward(self, batch):
        return torch.full((len(batch), 3, *batch.shape[2:]), 1e38) * 10


def test_numbers_that_are_not_finite_are_no_empty_label_map(engine, case, caplog):
    members = tuple(replace(member, network=Overflowing()) for member in engine.members)
    broken = replace(engine, members=members, device=Device("cpu", "float16", "a GPU", 1))
    with pytest.raises(DeviceError, match=r"case c0: member m0 .*not finite, in float16 on a GPU") as raised:
        predict(make_inputs(case, engine.plan), broken)
    assert "--device cpu" in raised.value.hint
    found = predict(make_inputs(case, engine.plan), replace(broken, fallback=lambda: engine))
    np.testing.assert_array_equal(probabilities(found), probabilities(predicted(case, engine)))
    assert caplog.messages[-1].endswith("in float16 on a GPU; trying again on the CPU")
    with pytest.raises(DeviceError, match="not finite"):
        predict(make_inputs(case, engine.plan), replace(broken, fallback=lambda: broken))


def test_a_gpu_that_fails_hands_over_to_the_cpu(monkeypatch, engine, case, caplog):
    """At once, without the steps of the fallback; and without a second go where the CPU was reached already."""
    seen = []

    def fail(_case, attempt, *_rest):
        seen.append(attempt.device.name)
        if attempt.device.is_cuda:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nadvice")
        raise NotFiniteError("case c0: not finite")

    monkeypatch.setattr(metseg.predict.fallback, "predict_members", fail)
    gpu = replace(engine, device=Device("cuda:0", "float16", "a GPU", 1), execution=Execution(AMPLE))
    with pytest.raises(torch.AcceleratorError):
        predict(make_inputs(case, engine.plan), gpu)
    seen.clear()
    with pytest.raises(NotFiniteError):
        predict(make_inputs(case, engine.plan), replace(gpu, fallback=lambda: engine))
    assert seen == ["cuda:0", "cpu"]
    assert caplog.messages[-1].startswith("case c0: failed on a GPU (CUDA error: an illegal memory access")
    assert caplog.messages[-1].endswith("trying again on the CPU")


def test_a_retry_does_not_keep_what_was_sent_on_the_device(engine, case):
    plan = engine.plan.model_copy(update={"tta": TtaPlan(variant="aurora")})
    noisy = replace(engine, plan=plan)
    inputs, sent = make_inputs(case, plan), []

    class Full(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        @override
        def forward(self, batch):
            sent.append((len(inputs.sent), len(inputs.noise.sent)))
            if len(sent) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.network(batch)

    members = tuple(replace(member, network=Full(member.network)) for member in noisy.members)
    predict(inputs, replace(noisy, members=members, execution=Execution(AMPLE)))
    first = len(plan.members[0].channels)
    expected = [(first, 0), (first, 1), (first, 0)]
    assert sent[:3] == expected, "the plain pass, the first noise, and the plain pass again"


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("x")])
def test_other_errors_are_not_tried_again(monkeypatch, engine, case, error):
    calls = []

    def fail(*_):
        calls.append(1)
        raise error

    monkeypatch.setattr(metseg.predict.fallback, "predict_members", fail)
    with pytest.raises(type(error)):
        predict(make_inputs(case, engine.plan), replace(engine, execution=Execution(AMPLE)))
    assert calls == [1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("x"),
        RuntimeError(CPU_MESSAGE),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
        RuntimeError("Exception from src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc\n"),
        RuntimeError("Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 350355456 bytes of memory\n"),
    ],
)
def test_what_counts_as_out_of_memory(error):
    assert is_out_of_memory(error)


def test_numpy_and_torch_say_what_is_expected():
    with pytest.raises(MemoryError):
        np.empty(2**60, dtype=np.uint8)
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_a_case_that_never_fits_costs_the_others_nothing(monkeypatch, engine, tmp_path):
    for case_id in ("c0", "c1", "c2"):
        write_case(tmp_path / "data", case_id)
    real = metseg.run.pipeline.prepare

    def prepare(case, *args, **options):
        if case.case_id == "c1":
            raise MemoryError("Unable to allocate 7 GiB")
        return real(case, *args, **options)

    monkeypatch.setattr(metseg.run.pipeline, "prepare", prepare)
    cases = discover_cases(tmp_path / "data")
    records = run_batch(Job(cases, tmp_path / "out", on_error="skip"), engine)
    assert [record.outcome for record in records] == ["segmented", "failed", "segmented"]
    assert "out of memory" in records[1].error
    assert names_in(tmp_path / "out") == ["c0.nii.gz", "c2.nii.gz"]
    with pytest.raises(DeviceError, match="case c1: out of memory") as raised:
        run_batch(Job(cases, tmp_path / "out2"), engine)
    assert raised.value.exit_code == ExitCode.DEVICE
