"""DICOM studies in the image, from the scanner's files to label maps, report and DICOM objects."""

import shutil
from dataclasses import replace
from functools import partial

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless

from dicom_study_support import CT, T1C, T1N, T2F, T2W, write_sequence, write_study
from image_support import NOBODY, Folders, assert_label_map, names, run, truncate
from metseg.dicom.import_json import read_import_json
from metseg.plan.radiosurgery import RegistrationPlan
from radiosurgery_support import write_untrained_bundle
from support import write_bundle

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

NOTHING_WRITABLE = {"ipc_mode": "none", "shm_size": None}
"""Beside the mounted folders no place at all."""


def coarse(sequence):
    """The same head in few voxels."""
    return replace(sequence, spacing_mm=(2.6, 2.6, 2.6), shape=(88, 88, 75))


def compressed(syntax):
    """Writes images in another transfer syntax."""

    def write(image, path):
        image.compress(syntax)
        image.save_as(path, enforce_file_format=True)

    return write


def mounted(folder, place):
    folder.chmod(0o755)
    return {str(folder): {"bind": place, "mode": "ro"}}


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def series_of(folder):
    """The series of a folder by their description."""
    return {str(image.SeriesDescription): image for image in map(pydicom.dcmread, folder.iterdir())}


def assert_on_series(structure_set, image):
    (frame,) = pydicom.dcmread(structure_set).ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == image.FrameOfReferenceUID


@pytest.fixture(scope="module")
def container(engine, image):
    """Runs a command in the image; arguments as for `image_support.run`."""
    return partial(run, engine, image)


@pytest.fixture(scope="module")
def done(container, tmp_path_factory):
    """A study of four sequences, two of them compressed, through the image with its own weights."""
    folders = Folders.under(tmp_path_factory.mktemp("dicom"))
    study = pydicom.uid.generate_uid()
    ways = [(T1C, None), (T1N, compressed(RLELossless)), (T2W, compressed(JPEGLSLossless)), (T2F, None)]
    for number, (sequence, write) in enumerate(ways, 1):
        write_sequence(folders.data, coarse(sequence), study=study, number=number, write=write)
    command = ["study", "--dicom-path", "/input", "--output-path", "/output"]
    ended = container(command, volumes=folders.mounts(), **NOTHING_WRITABLE)
    assert ended.exit_code == 0, ended.log
    (case_id,) = names(folders.output / "labels")
    return folders, case_id.removesuffix(".nii.gz"), ended.log


def test_a_study_goes_all_the_way_without_any_right(done):
    folders, case_id, log = done
    images = [f"cases/{case_id}/{case_id}-{name}.nii.gz" for name in ("t1c", "t1n", "t2f", "t2w")]
    objects = [f"dicom/{case_id}/{name}.dcm" for name in ("rtstruct", "seg")]
    tables = [f"report/{name}" for name in ("cases.csv", "lesions.csv", "report.html", "run.json")]
    pages = [f"report/cases/{case_id}/{name}" for name in ("case.json", "lesions.webp", "planes.webp")]
    documented = ["cases/.metseg-salt", f"cases/{case_id}/import.json", f"labels/{case_id}.nii.gz"]
    assert files_in(folders.output) == sorted([*images, *objects, *tables, *pages, *documented])
    assert {path.stat().st_uid for path in folders.output.rglob("*")} == {NOBODY}
    assert (folders.output / "cases/.metseg-salt").stat().st_mode & 0o077 == 0
    assert "1 of 1 studies complete" in log


def test_what_it_wrote_is_on_the_study_s_t1c(done):
    folders, case_id, _ = done
    label_map, t1c = (
        folders.output / f"labels/{case_id}.nii.gz",
        folders.output / f"cases/{case_id}/{case_id}-t1c.nii.gz",
    )
    assert_label_map(label_map, t1c)
    source = series_of(folders.data)[T1C.tags["SeriesDescription"]]
    segmentation = hd.seg.segread(folders.output / f"dicom/{case_id}/seg.dcm")
    assert segmentation.StudyInstanceUID == source.StudyInstanceUID
    assert segmentation.FrameOfReferenceUID == source.FrameOfReferenceUID
    marked = segmentation.get_volume(combine_segments=True).array
    labels = np.asarray(nib.load(label_map).dataobj)
    assert labels.any()
    assert np.array_equal(np.bincount(marked.ravel())[1:], np.bincount(labels.ravel())[1:])
    assert_on_series(folders.output / f"dicom/{case_id}/rtstruct.dcm", source)


def test_export_dicom_writes_the_same_contours(container, done, tmp_path):
    folders, case_id, _ = done
    target = Folders.under(tmp_path)
    before = {str(folders.output): {"bind": "/done", "mode": "ro"}}  # the salt is readable to this user alone
    command = [
        "export-dicom", f"--label-map=/done/labels/{case_id}.nii.gz", "--dicom-series=/study", "--format=both",
        f"--import-json=/done/cases/{case_id}/import.json", "--output=/output",
    ]  # fmt: skip
    volumes = {**before, **mounted(folders.data, "/study"), str(target.output): {"bind": "/output", "mode": "rw"}}
    ended = container(command, volumes=volumes, **NOTHING_WRITABLE)
    assert ended.exit_code == 0, ended.log
    assert names(target.output) == ["rtstruct.dcm", "seg.dcm"]
    again, first = (
        pydicom.dcmread(folder / "rtstruct.dcm") for folder in (target.output, folders.output / "dicom" / case_id)
    )
    assert again.ROIContourSequence == first.ROIContourSequence


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A study of t1c alone, and a bundle that reads nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    write_study(folder / "good", {"t1c": coarse(T1C)})
    one_pass = {"window": {"size": (64, 64, 64), "overlap": 0.25}, "tta": {"variant": "none"}}
    write_bundle(folder / "bundle", channels=[("t1c",)], **one_pass)
    return folder


def test_import_dicom(container, alone, tmp_path):
    folders = Folders.under(tmp_path)
    shutil.copytree(alone / "good", folders.data, dirs_exist_ok=True)
    command = ["import-dicom", "--dicom-path=/input", "--output-path=/output", "--case-id=A"]
    ended = container(command, volumes=folders.mounts(), **NOTHING_WRITABLE)
    assert ended.exit_code == 0, ended.log
    assert files_in(folders.output) == [".metseg-salt", "A/A-t1c.nii.gz", "A/import.json"]
    facts = read_import_json(folders.output / "A/import.json")
    assert 800 < facts.brain.volume_ml < 2000


@pytest.mark.parametrize("ended_by", [([], 3, []), (["--on-error=skip"], 10, ["good"])], ids=["stop", "skip"])
def test_a_broken_study_costs_no_blank_map(container, alone, tmp_path, ended_by):
    """The image's METSEG_ON_ERROR=blank is for label maps of a challenge: a planning system would believe them."""
    options, exit_code, finished = ended_by
    folders = Folders.under(tmp_path)
    shutil.copytree(alone / "good", folders.data / "good")
    broken = shutil.copytree(alone / "good", folders.data / "broken")
    truncate(sorted(broken.iterdir())[20])
    volumes = {**folders.mounts(), **mounted(alone / "bundle", "/bundle")}
    command = ["study", "--dicom-path", "broken", "good", "--weights=/bundle", "--output-path=/output"]
    command += ["--case-id=broken", "--case-id=good", *options]
    ended = container(command, volumes=volumes, working_dir="/input")
    assert ended.exit_code == exit_code, ended.log
    errors = [line for line in ended.log.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "study broken" in errors[0]
    assert "Traceback" not in ended.log
    assert names(folders.output / "labels") == [f"{name}.nii.gz" for name in finished]
    assert names(folders.output / "dicom") == finished


def test_a_planning_ct_gets_contours_of_its_own(container, tmp_path):
    folders = Folders.under(tmp_path)
    ct = replace(CT, spacing_mm=(2.5, 2.5, 3), shape=(92, 96, 60))
    write_study(folders.data, {"t1c": coarse(T1C), "ct": ct})
    bundle = write_untrained_bundle(
        tmp_path / "bundle", {"one": ("ct", "t1c")}, registration=RegistrationPlan().model_dump()
    )
    volumes = {**folders.mounts(), **mounted(bundle, "/bundle")}
    command = ["study", "--dicom-path=/input", "--output-path=/output", "--case-id=A", "--weights=/bundle"]
    ended = container(command, volumes=volumes)
    assert ended.exit_code == 0, ended.log
    assert names(folders.output / "dicom/A") == ["rtstruct-ct.dcm", "rtstruct.dcm", "seg.dcm"]
    assert (folders.output / "report/radiosurgery/report.html").is_file()
    sources = series_of(folders.data)
    assert_on_series(folders.output / "dicom/A/rtstruct-ct.dcm", sources[CT.tags["SeriesDescription"]])
    assert_on_series(folders.output / "dicom/A/rtstruct.dcm", sources[T1C.tags["SeriesDescription"]])
