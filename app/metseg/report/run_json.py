"""`run.json`: what ran, on what, with what, and what became of each case. Versioned; described in docs/run-json.md."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

import metseg
from metseg.findings import FindingCode
from metseg.plan.bundle import Bundle
from metseg.report.case_report import CaseReport
from metseg.report.peak_memory import measure_gpu_peak_memory_mib, measure_peak_memory_mib
from metseg.run.record import CaseRecord, Outcome
from metseg.run.versions import package_versions, platform_name, python_version
from metseg.systems import Modality, common_system

SCHEMA_VERSION: Final = "1.2"
"""The first number changes when a reader of the old schema would break, the second when keys join it.

1.1: `labels`, and `registration` of a case.
1.2: `required_modalities` and `modalities` of the bundle, `modalities` of a case.
"""

Command = Literal["infer", "report"]


class Part(BaseModel):
    """Base of every part of `run.json`: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Program(Part):
    """The program that ran."""

    name: Literal["metseg"] = "metseg"
    version: str
    python: str
    platform: str
    packages: Mapping[str, str | None]


class MemberFacts(Part):
    """One model of the ensemble."""

    name: str
    weights: str
    sha256: str


class BundleFacts(Part):
    """The frozen ensemble and the plan it ran by."""

    folder: str
    plan: str
    plan_sha256: str
    members: tuple[MemberFacts, ...]
    required_modalities: tuple[Modality, ...] = ()
    modalities: tuple[Modality, ...] = ()


class DeviceFacts(Part):
    """Where the networks ran: the attributes of metseg.predict.device.Device."""

    name: str
    description: str
    precision: Literal["float32", "bfloat16", "float16"]
    threads: int
    driver: str | None
    cuda: str | None


class FlagFacts(Part):
    """One thing a reader should know; see metseg.findings."""

    code: FindingCode
    words: str
    detail: str


class RegistrationFacts(Part):
    """Where a planning CT lies with regard to the MR; see metseg.prepare.registration."""

    mr_to_ct: tuple[tuple[float, float, float, float], ...]
    is_identity: bool
    shift_mm: float
    rotation_degrees: float
    overlap: float
    gain: float


class CaseFacts(Part):
    """What became of one case."""

    case_id: str
    outcome: Outcome
    lesions: int | None
    flags: tuple[FlagFacts, ...]
    warnings: tuple[str, ...]
    error: str
    members: tuple[str, ...]
    input_sha256: Mapping[str, str]
    label_map_sha256: str
    stage_s: Mapping[str, float]
    elapsed_s: float
    peak_memory_mib: float | None
    gpu_peak_memory_mib: float | None
    registration: RegistrationFacts | None = None
    modalities: tuple[Modality, ...] = ()


class RunJson(Part):
    """The whole of `run.json`."""

    schema_version: Literal["1.0", "1.1", "1.2"] = SCHEMA_VERSION
    program: Program
    command: Command
    options: Mapping[str, str]
    started: datetime
    finished: datetime
    elapsed_s: float
    exit_code: int | None
    bundle: BundleFacts | None
    device: DeviceFacts | None
    peak_memory_mib: float | None
    gpu_peak_memory_mib: float | None
    labels: Mapping[str, str] = Field(default_factory=dict)
    cases: tuple[CaseFacts, ...]


class RunFacts(Part):
    """What is known of a run before its cases: the caller's part of `RunJson`."""

    command: Command
    options: Mapping[str, str]
    started: datetime
    bundle: BundleFacts | None = None
    device: DeviceFacts | None = None
    exit_code: int | None = None
    started_s: float = Field(default_factory=time.monotonic)
    """By the clock that nobody sets."""


def describe_run(
    command: Command, options: Mapping[str, str], *, bundle: Bundle | None = None, device: DeviceFacts | None = None
) -> RunFacts:
    """What is known when a run starts."""
    return RunFacts(
        command=command,
        options=options,
        started=datetime.now(UTC),
        bundle=_tell_bundle(bundle) if bundle else None,
        device=device,
    )


def make_run_json(run: RunFacts, cases: Sequence[CaseReport]) -> RunJson:
    """Puts a finished run and its cases together."""
    elapsed_s = time.monotonic() - run.started_s  # the wall clock may have been set meanwhile
    return RunJson(
        program=Program(
            version=metseg.__version__,
            python=python_version(),
            platform=platform_name(),
            packages=package_versions(),
        ),
        command=run.command,
        options=run.options,
        started=run.started,
        finished=run.started + timedelta(seconds=elapsed_s),
        elapsed_s=elapsed_s,
        exit_code=run.exit_code,
        bundle=run.bundle,
        device=run.device,
        peak_memory_mib=measure_peak_memory_mib(),
        gpu_peak_memory_mib=measure_gpu_peak_memory_mib(),
        labels={str(number): name for number, name in common_system(case.system for case in cases).label_names.items()},
        cases=tuple(_tell_case(case) for case in cases),
    )


def _tell_case(case: CaseReport) -> CaseFacts:
    record = case.record
    return CaseFacts(
        case_id=case.case_id,
        outcome=record.outcome,
        lesions=len(case.lesions) if case.shape is not None and record.outcome != "blank" else None,
        flags=tuple(FlagFacts(code=flag.code, words=flag.words, detail=flag.what) for flag in record.notes),
        warnings=tuple(warning.what for warning in record.warnings),
        error=record.error,
        members=record.members,
        input_sha256=case.input_sha256,
        label_map_sha256=case.label_map_sha256,
        stage_s=record.stage_s,
        elapsed_s=record.elapsed_s,
        peak_memory_mib=case.peak_memory_mib,
        gpu_peak_memory_mib=case.gpu_peak_memory_mib,
        registration=_tell_registration(record),
        modalities=record.modalities,
    )


def _tell_registration(record: CaseRecord) -> RegistrationFacts | None:
    found = record.registration
    if found is None:
        return None
    return RegistrationFacts(
        mr_to_ct=found.matrix,
        is_identity=found.is_identity,
        shift_mm=found.shift_mm,
        rotation_degrees=found.rotation_degrees,
        overlap=found.overlap,
        gain=found.gain,
    )


def _tell_bundle(bundle: Bundle) -> BundleFacts:
    plan = bundle.plan
    members = tuple(MemberFacts(name=item.name, weights=item.weights, sha256=item.sha256) for item in plan.members)
    return BundleFacts(
        folder=str(bundle.folder),
        plan=plan.name,
        plan_sha256=plan.sha256,
        members=members,
        required_modalities=tuple(sorted(plan.required_modalities)),
        modalities=tuple(sorted(plan.modalities)),
    )
