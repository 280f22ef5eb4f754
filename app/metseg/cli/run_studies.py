"""What `metseg study` does once its options are known: all studies are imported, then each bundle runs."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

from metseg.cli.export_dicom import say_written
from metseg.cli.run import segment_cases
from metseg.cli.settings import Settings, resolve_settings
from metseg.cli.studies import attempt, fit_to_plan, recognise_and_print, say_imported
from metseg.dicom.export import ObjectKind, export_dicom
from metseg.dicom.import_case import ImportedCase, ImportOptions, import_study
from metseg.dicom.import_json import FILE_NAME
from metseg.dicom.imported import find_destination
from metseg.errors import ExitCode, InputError, OutputError
from metseg.labels import LabelConvention
from metseg.plan.bundle import bundle_for
from metseg.run.output_folder import prepare_output
from metseg.systems import DEFAULT_SYSTEM, OWN_GRID, SOURCE_MODALITY, Modality, System, system_of_images

logger = logging.getLogger(__name__)

Chooser = Callable[[Collection[Modality]], Settings]
"""Which bundle runs a study of these images, and how."""

Objects = Mapping[Path, tuple[Modality, ObjectKind]]
"""The DICOM objects of a case: on the series of which image, and what they are."""

OWN_CONVENTION: Final[LabelConvention] = "brats2025"
"""Of the label maps that `infer` writes."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where everything goes.

    Attributes:
        output: holds all the others.
    """

    output: Path

    @property
    def cases(self) -> Path:
        """As `import-dicom` writes them."""
        return self.output / "cases"

    @property
    def labels(self) -> Path:
        """As `infer` writes them."""
        return self.output / "labels"

    @property
    def dicom(self) -> Path:
        """One folder per case."""
        return self.output / "dicom"

    def report(self, system: System) -> Path:
        """Tables of one system each: another than the default has a folder of its own."""
        report = self.output / "report"
        return report if system.name == DEFAULT_SYSTEM.name else report / system.name

    def label_map(self, case_id: str) -> Path:
        """Of a case."""
        return self.labels / f"{case_id}.nii.gz"

    def objects(self, case: ImportedCase) -> Objects:
        """What is exported of a case: both objects on the source image's series, contours on the CT's, too."""
        folder = self.dicom / case.facts.case_id
        scans = sorted(OWN_GRID & case.facts.images.keys())
        return {
            folder / "seg.dcm": (SOURCE_MODALITY, "seg"),
            folder / "rtstruct.dcm": (SOURCE_MODALITY, "rtstruct"),
            **{folder / f"rtstruct-{scan}.dcm": (scan, "rtstruct") for scan in scans},
        }


@dataclass(frozen=True, slots=True)
class Work:
    """A study that was imported.

    Attributes:
        study: its folder.
        case: made of it.
        settings: of its bundle.
    """

    study: Path
    case: ImportedCase
    settings: Settings

    @property
    def case_id(self) -> str:
        """Of the case."""
        return self.case.facts.case_id

    @property
    def import_json(self) -> Path:
        """Of the case."""
        return self.case.folder / FILE_NAME


@dataclass(frozen=True, slots=True)
class Ways:
    """What holds for all studies.

    Attributes:
        folders: where everything goes; they exist.
        choose: the bundle of each study.
        salt_file: the caller's secret of the hashes.
        stops: whether a study that fails ends the command.
        resume: whether what is complete is left as it is.
    """

    folders: Folders
    choose: Chooser
    salt_file: Path | None
    stops: bool
    resume: bool


def choose_settings(*, weights: Path | None, plan: str | None, device: str | None, on_error: str) -> Chooser:
    """How a study's bundle is chosen: the caller's for all, else by the images.

    Args:
        weights: the caller's bundle.
        plan: as of `infer`; each bundle that runs must have it.
        device: as of `infer`.
        on_error: likewise.

    Raises:
        UsageError: the caller's bundle has no such plan, or an option has a value that does not exist.
        WeightsError: the caller's bundle is none.
    """

    @cache
    def resolve(folder: Path | None) -> Settings:
        return resolve_settings(
            weights=folder, plan=plan, device=device, on_error=on_error, parameters_file=None, additional_files=None
        )

    if weights is not None:
        resolve(weights)
    return lambda found: resolve(bundle_for(system_of_images(found)) if weights is None else weights)


def run_studies(studies: Sequence[tuple[Path, ImportOptions]], ways: Ways) -> int:
    """Takes every study all the way and returns the exit code.

    Args:
        studies: each one's folder, and how it is imported.
        ways: what holds for all of them.

    Raises:
        MetsegError: under `stop` a study fails; under `skip` what concerns no single study, such as weights.
    """
    works: list[Work] = []
    for study, options in studies:
        name = f"study {study}"
        work = attempt(name, partial(_import, study, options, ways), is_last_word=ways.stops)
        if work is not None:
            say_imported(name, work.case)
            works.append(work)
    complete: set[str] = set()
    for settings in {work.settings.bundle.folder: work.settings for work in works}.values():
        group = {work.case_id: work for work in works if work.settings.bundle.folder == settings.bundle.folder}
        complete |= _segment_and_export(group, settings, ways)
    done = sum(work.case_id in complete for work in works)
    logger.info("%s: %d of %d studies complete", ways.folders.output, done, len(studies))
    return int(ExitCode.DONE if done == len(studies) else ExitCode.SOME_FAILED)


def _import(study: Path, options: ImportOptions, ways: Ways) -> Work:
    """Makes a case of a study, or finds it there.

    Raises:
        MetsegError: see `import_study`; or the case that is there is none for the bundle.
    """
    recognition = recognise_and_print(study, options)
    settings = ways.choose(recognition.chosen.keys())
    plan = settings.bundle.plan
    case = import_study(recognition, fit_to_plan(options, plan))
    if case.facts.system != plan.system.name:
        raise InputError(
            f"case {case.facts.case_id} was imported for {case.facts.system}, "
            f"but {settings.bundle.folder} is a {plan.system.name} bundle",
            hint=f"Remove {case.folder}, or name a bundle of its kind: --weights.",
        )
    work = Work(study, case, settings)
    _remove_older(work, ways.folders)
    return work


def _remove_older(work: Work, folders: Folders) -> None:
    """Removes what is older than the case: it would pass for results of it.

    Raises:
        OutputError: it can't be removed.
    """
    for path in (folders.label_map(work.case_id), *folders.objects(work.case)):
        if path.is_file() and _is_older(path, work.import_json):
            try:
                path.unlink()
            except OSError as error:
                raise OutputError(f"{path}: can't be removed: {error.strerror or error}") from error
            logger.warning("%s: removed, as it is older than the case", path)


def _is_older(path: Path, other: Path) -> bool:
    return path.stat().st_mtime_ns < other.stat().st_mtime_ns


def _segment_and_export(group: Mapping[str, Work], settings: Settings, ways: Ways) -> set[str]:
    """Runs one bundle over its cases; returns the IDs of those that are complete."""
    records = segment_cases(
        settings,
        data_path=ways.folders.cases,
        output_path=ways.folders.labels,
        report_dir=ways.folders.report(settings.bundle.plan.system),
        resume=ways.resume,
        only=group.keys(),
    )
    complete = set()
    for work in (group[record.case_id] for record in records if record.succeeded):
        if attempt(f"study {work.study}", partial(_export, work, ways), is_last_word=ways.stops):
            complete.add(work.case_id)
    return complete


def _export(work: Work, ways: Ways) -> bool:
    """Writes a case's DICOM objects where they are not there already; True, for `attempt`.

    Raises:
        InputError: see `find_destination` and `export_dicom`.
        OutputError: likewise.
    """
    label_map, objects = ways.folders.label_map(work.case_id), ways.folders.objects(work.case)
    if all(path.is_file() and not _is_older(path, label_map) for path in objects):
        logger.info("case %s: DICOM objects are there already", work.case_id)
        return True
    prepare_output(ways.folders.dicom / work.case_id)
    for modality in dict.fromkeys(modality for modality, _ in objects.values()):
        destination = find_destination(work.study, work.import_json, modality, ways.salt_file)
        outputs = {kind: path for path, (onto, kind) in objects.items() if onto == modality}
        system = work.settings.bundle.plan.system
        say_written(export_dicom(label_map, destination, outputs, system, convention=OWN_CONVENTION))
    return True
