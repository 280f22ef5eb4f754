"""From a study to a case that `infer` reads: images on t1c's grid, the brain alone, and `import.json` beside them.

t1c keeps its voxels and its grid, so that label maps go back to its series unchanged. The other sequences are brought
to it; a CT keeps its own grid, and its transform is in `import.json`.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from metseg.dicom.acquisition import KEYWORDS
from metseg.dicom.import_facts import (
    describe_brain,
    describe_file,
    describe_finding,
    describe_image,
    describe_series,
    say_problem,
)
from metseg.dicom.import_json import (
    FILE_NAME,
    AlignmentFacts,
    ImageFacts,
    ImportJson,
    SeriesFacts,
    read_import_json,
)
from metseg.dicom.pseudonyms import Pseudonyms
from metseg.dicom.recognition import Recognition, Verdict, recognise
from metseg.dicom.stripping import BrainFinder, FoundBrain, brain_by_networks
from metseg.dicom.study import read_study
from metseg.dicom.volume import read_volume
from metseg.errors import InputError, OutputError, UsageError
from metseg.files.atomic import advise_on_writing, write_atomically
from metseg.files.case import CaseFiles, Scan
from metseg.files.image import ImageError, read_image
from metseg.files.write import write_image
from metseg.findings import Finding, printable, warning
from metseg.prepare.registration import Registration, register, register_sequence
from metseg.space.rigid import resample_rigid
from metseg.systems import OWN_GRID, SOURCE_MODALITY, Modality, System, system_of_images

logger = logging.getLogger(__name__)

ALWAYS_REQUIRED: Final[frozenset[Modality]] = frozenset({SOURCE_MODALITY})


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the caller decides.

    Attributes:
        output_path: the folder of cases.
        pseudonyms: make the hashes, and the case's name where nobody gives one.
        find_brain: finds the brain on t1c.
        case_id: the case's name; None for a salted hash of its study.
        named: series that the user says, by modality.
        system: None to choose it by the images.
        required: modalities without which the case is of no use to the plan that will run; another one that can't be
            registered is left out.
        resume: whether a case that is there already is left as it is, instead of refused.
    """

    output_path: Path
    pseudonyms: Pseudonyms
    find_brain: BrainFinder = brain_by_networks
    case_id: str | None = None
    named: Mapping[Modality, str] = field(default_factory=dict)
    system: System | None = None
    required: frozenset[Modality] = ALWAYS_REQUIRED
    resume: bool = False


@dataclass(frozen=True, slots=True)
class ImportedCase:
    """A case as it lies in the output folder.

    Attributes:
        folder: of the case.
        facts: its `import.json`.
        findings: of this run; those in `facts` name no files.
        is_new: whether this run made it.
    """

    folder: Path
    facts: ImportJson
    findings: tuple[Finding, ...]
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class _Source:
    """One image, before or after it was brought to t1c."""

    scan: Scan
    facts: ImageFacts


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is to make a case of.

    Attributes:
        sources: the images read.
        lost: why others could not be read.
        series: of the study; empty for NIfTI.
        findings: so far.
    """

    sources: Mapping[Modality, _Source]
    lost: Mapping[Modality, InputError]
    series: tuple[SeriesFacts, ...]
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Stopwatch:
    """Seconds by step."""

    stage_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stage_s[name] = round(self.stage_s.get(name, 0.0) + time.perf_counter() - start, 2)


def recognise_study(path: Path, named: Mapping[Modality, str] | None = None) -> Recognition:
    """Reads a study's headers and chooses its series; no pixels are read.

    Args:
        path: the study's folder.
        named: see `ImportOptions`.

    Raises:
        InputError: see `read_study` and `recognise`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, about values that nobody asks for
        return recognise(read_study(path, KEYWORDS), named)


def import_study(recognition: Recognition, options: ImportOptions) -> ImportedCase:
    """Makes a case of a study.

    Args:
        recognition: from `recognise_study`.
        options: what the caller decides.

    Raises:
        UsageError: a brain is wanted and nothing can find it.
        InputError: the study's problem; an image can't be read, or one that is required can't be registered.
        OutputError: the case can't be written, or is there already.
    """
    if recognition.problem is not None:
        raise recognition.problem
    chosen = recognition.chosen
    _refuse_missing(chosen.keys(), options, f"study {recognition.path}")
    source_study = chosen[SOURCE_MODALITY].stack.study_uid
    case_id = options.case_id or options.pseudonyms.name_case(source_study)
    if (existing := _find_existing(case_id, options)) is not None:
        return existing
    watch = _Stopwatch()
    system = options.system or system_of_images(chosen)
    with watch.step("read"):
        sources, lost = _read_series(chosen, system, options)
    series = tuple(describe_series(item, options.pseudonyms) for item in recognition.verdicts)
    return _make_case(case_id, system, _Found(sources, lost, series, recognition.findings), options, watch)


def import_images(files: CaseFiles, options: ImportOptions) -> ImportedCase:
    """Makes a case of raw NIfTI images: whole heads, each on a grid of its own.

    Args:
        files: of one case, found by their names.
        options: what the caller decides; the series play no part.

    Raises:
        UsageError: as `import_study`.
        InputError: likewise.
        OutputError: likewise.
    """
    case_id = options.case_id or files.case_id
    if (existing := _find_existing(case_id, options)) is not None:
        return existing
    name = printable(files.case_id)
    for modality, both in files.rivals.items():
        raise InputError(f"case {name}: {len(both)} files of {modality}", hint="Leave one of them.")
    _refuse_missing(files.images.keys(), options, f"case {name}")
    watch = _Stopwatch()
    system = options.system or system_of_images(files.images)
    with watch.step("read"):
        sources: dict[Modality, _Source] = {
            modality: _read_file(modality, path, name)
            for modality, path in files.images.items()
            if modality in _wanted(system)
        }
    return _make_case(case_id, system, _Found(sources, {}, (), files.findings), options, watch)


def _read_series(
    chosen: Mapping[Modality, Verdict], system: System, options: ImportOptions
) -> tuple[dict[Modality, _Source], dict[Modality, InputError]]:
    """The images, and why others can't be read.

    Raises:
        InputError: one that is needed can't be read.
    """
    sources, lost = {}, {}
    for modality, item in chosen.items():
        if modality not in _wanted(system):
            lost[modality] = InputError(f"the {system.name} system does not read it")
            continue
        try:
            sources[modality] = _Source(read_volume(item.stack), describe_image(item, options.pseudonyms))
        except InputError as error:
            if _is_needed(modality, system, options):
                raise InputError(f"{modality}: {error}", hint=error.hint) from error
            lost[modality] = error
    return sources, lost


def _is_needed(modality: Modality, system: System, options: ImportOptions) -> bool:
    """Whether a case without this image is of no use."""
    return modality in options.required or (system.is_registered and modality in system.modalities)


def _refuse_missing(found: Iterable[Modality], options: ImportOptions, where: str) -> None:
    """Raises InputError where an image is not there without which the case is of no use."""
    missing = sorted((options.required | ALWAYS_REQUIRED) - set(found))
    if missing:
        raise InputError(
            f"{where}: no {', '.join(missing)}, which the plan needs",
            hint=f"If a series is one, name it: --series {missing[0]}=UID; or give --weights a bundle without it.",
        )


def _wanted(system: System) -> frozenset[Modality]:
    """A CT is kept beside the challenge's sequences: contours may go to it."""
    return frozenset(system.modalities) | OWN_GRID


def _find_existing(case_id: str, options: ImportOptions) -> ImportedCase | None:
    """A case that is there already.

    Raises:
        OutputError: it is, and nobody wants to resume.
        UsageError: this is no name for a case.
    """
    if not case_id or case_id.startswith(".") or "/" in case_id or not case_id.isprintable():
        raise UsageError(f"case ID {printable(case_id)!r}: not a folder's name", hint="Give letters, digits, - and _.")
    folder = options.output_path / case_id
    if not folder.exists():
        return None
    if options.resume and (folder / FILE_NAME).exists():
        return ImportedCase(folder, read_import_json(folder / FILE_NAME), (), is_new=False)
    raise OutputError(
        f"case folder {folder} exists", hint="Remove it, give another --case-id, or leave it as it is: --resume."
    )


def _make_case(case_id: str, system: System, found: _Found, options: ImportOptions, watch: _Stopwatch) -> ImportedCase:
    source = found.sources[SOURCE_MODALITY].scan
    with watch.step("brain"):
        brain = _find_brain(source, system, options)
    with watch.step("register"):
        aligned, failed = _align_all(found.sources, brain)
    for modality, error in failed.items():
        if _is_needed(modality, system, options):
            raise InputError(f"case {printable(case_id)}: {error}", hint=error.hint) from error
    lost = {**found.lost, **failed}
    findings = (
        *found.findings,
        *(brain.findings if brain is not None else ()),
        *(warning("left-out", f"{name} is left out: {error}", error.hint) for name, error in lost.items()),
    )
    own = found.sources[SOURCE_MODALITY]
    images = {SOURCE_MODALITY: _Source(_strip(own.scan, brain), own.facts), **aligned}
    facts = ImportJson(
        case_id=case_id,
        system=system.name,
        salt_check=options.pseudonyms.check,
        images={},
        left_out={name: say_problem(error) for name, error in lost.items()},
        study=found.series,
        brain=None if brain is None else describe_brain(brain, source),
        findings=tuple(describe_finding(item) for item in findings),
        stage_s={},
    )
    return _write_case(options.output_path / case_id, facts, images, findings, watch)


def _find_brain(source: Scan, system: System, options: ImportOptions) -> FoundBrain | None:
    return options.find_brain(source) if system.is_stripped else None


def _align_all(
    sources: Mapping[Modality, _Source], brain: FoundBrain | None
) -> tuple[dict[Modality, _Source], dict[Modality, InputError]]:
    """Registers every image to t1c, several at a time: SimpleITK works outside Python's lock.

    Returns:
        The images as they are written, and why others could not be registered.
    """
    source = sources[SOURCE_MODALITY].scan
    others = [modality for modality in sources if modality != SOURCE_MODALITY]
    aligned: dict[Modality, _Source] = {}
    failed: dict[Modality, InputError] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(others))) as pool:
        jobs = {modality: pool.submit(_align, modality, sources[modality], source, brain) for modality in others}
        for modality, job in jobs.items():
            try:
                aligned[modality] = job.result()
            except InputError as error:
                failed[modality] = error
    return aligned, failed


def _align(modality: Modality, item: _Source, source: Scan, brain: FoundBrain | None) -> _Source:
    """Registers one image; one of a grid of its own stays on it.

    Raises:
        InputError: the check does not believe the result.
    """
    if modality in OWN_GRID:
        found = register(item.scan, source.voxels, source.grid)
        scan = item.scan
    else:
        inside = brain.mask if brain is not None else np.ones(source.grid.shape, dtype=np.bool_)
        found = register_sequence(item.scan, source.voxels, source.grid, inside, name=modality)
        scan = _bring(item.scan, source, found, brain)
    return _Source(scan, item.facts.model_copy(update={"alignment": AlignmentFacts.model_validate(found)}))


def _bring(moving: Scan, source: Scan, found: Registration, brain: FoundBrain | None) -> Scan:
    """A sequence on t1c's grid, linear between voxel centres."""
    moved = resample_rigid(moving.voxels, moving.grid, source.grid, found.mr_to_ct, outside=0.0)
    return _strip(Scan(moved, source.grid, source.header), brain)


def _strip(scan: Scan, brain: FoundBrain | None) -> Scan:
    return scan if brain is None else replace(scan, voxels=np.where(brain.mask, scan.voxels, np.float32(0)))


def _read_file(modality: Modality, path: Path, name: str) -> _Source:
    try:
        image = read_image(path)
    except ImageError as error:
        raise InputError(f"case {name}: {modality}: {error}", hint=error.hint) from None
    if not image.is_oriented:
        raise InputError(
            f"case {name}: {modality}: the header does not say where the image lies",
            hint="Convert it from DICOM again.",
        )
    if not np.isfinite(image.voxels).all():
        raise InputError(f"case {name}: {modality}: holds values that are not finite", hint="Convert it again.")
    return _Source(Scan(image.voxels, image.grid, image.header), describe_file(image.grid))


# ---- writing


def _write_case(
    folder: Path,
    facts: ImportJson,
    images: Mapping[Modality, _Source],
    findings: tuple[Finding, ...],
    watch: _Stopwatch,
) -> ImportedCase:
    """Writes the case into a hidden folder, which gets its name when it is complete."""
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        try:
            written = {}
            with watch.step("write"):
                for modality, item in images.items():
                    path = partial / f"{folder.name}-{modality}.nii.gz"
                    write_image(path, item.scan.voxels, item.scan.header)
                    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                    written[modality] = item.facts.model_copy(update={"sha256": sha256})
            facts = facts.model_copy(update={"images": written, "stage_s": dict(watch.stage_s)})
            write_atomically(partial / FILE_NAME, (facts.model_dump_json(indent=2) + "\n").encode())
            partial.chmod(0o777 & ~_umask())
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        hint = advise_on_writing(folder, error.errno)
        raise OutputError(f"case folder {folder}: {error.strerror or error}", hint=hint) from error
    return ImportedCase(folder, facts, findings)


def _umask() -> int:
    """The caller's, which `mkdtemp` ignores."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
