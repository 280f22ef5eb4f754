"""Studies as cases: the layout, the places, what is left out, and that no identifier is written."""

import json
import re
import stat
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest

from dicom_study_support import (
    CT,
    T1C,
    T1N,
    T2F,
    USUAL,
    acquire,
    make_head,
    small,
    write_sequence,
    write_study,
)
from metseg.__main__ import run
from metseg.dicom.import_json import read_import_json
from metseg.dicom.pseudonyms import SALT_FILE, Pseudonyms, open_salt
from metseg.errors import ExitCode, InputError
from metseg.files.discovery import discover_cases
from metseg.files.header import make_header
from metseg.files.read import read_case
from metseg.files.write import write_image, write_label_map
from metseg.systems import RADIOSURGERY


def write_mask(path):
    head = make_head()
    write_label_map(path, head.brain.astype(np.uint8), make_header(head.grid))
    return path


def import_it(folder, *options):
    return run(["import-dicom", f"--output-path={folder / 'cases'}", *options])


def facts_of(folder, case_id):
    return read_import_json(folder / "cases" / case_id / "import.json")


def errors_over_brain(matrix, motion):
    head = make_head()
    voxels = np.argwhere(head.brain[::4, ::4, ::4]) * 4
    points = head.grid.affine @ np.column_stack([voxels, np.ones(len(voxels))]).T
    return np.linalg.norm(((np.array(matrix) - motion) @ points)[:3], axis=0)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The usual study as a case; registration takes half a minute."""
    folder = tmp_path_factory.mktemp("import")
    uids = write_study(folder / "study")
    mask = write_mask(folder / "mask.nii.gz")
    options = [f"--dicom-path={folder / 'study'}", f"--brain-mask={mask}", "--case-id=A1"]
    assert import_it(folder, *options) == ExitCode.DONE
    return folder, uids


def test_every_sequence_is_registered_within_a_millimetre(imported):
    folder, _ = imported
    facts = facts_of(folder, "A1")
    assert facts.images.keys() == USUAL.keys()
    assert facts.images["t1c"].alignment is None
    for modality in ("t1n", "t2w", "t2f", "ct"):
        errors = errors_over_brain(facts.images[modality].alignment.matrix, USUAL[modality].motion)
        assert errors.mean() < 1, modality


def test_t1c_keeps_its_grid_and_its_voxels(imported):
    folder, _ = imported
    voxels, affine = acquire(T1C, make_head())
    image = nibabel.load(folder / "cases/A1/A1-t1c.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    found = np.asarray(image.dataobj)
    inside = found > 0
    np.testing.assert_array_equal(found[inside], np.rint(voxels).clip(0, 4095)[inside])
    for modality in ("t1n", "t2w", "t2f"):
        other = nibabel.load(folder / f"cases/A1/A1-{modality}.nii.gz")
        assert other.header["dim"].tolist() == image.header["dim"].tolist()
        np.testing.assert_array_equal(other.affine, image.affine)


def test_the_planning_ct_keeps_its_own_grid_whole(imported):
    folder, _ = imported
    voxels, affine = acquire(CT, make_head())
    image = nibabel.load(folder / "cases/A1/A1-ct.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.rint(voxels + 1024).clip(0, 4095) - 1024)


def test_the_case_can_be_read_as_infer_reads_it(imported):
    folder, _ = imported
    (files,) = discover_cases(folder / "cases")
    case = read_case(files, modalities=("t1n", "t1c", "t2w", "t2f"))
    assert not [finding for finding in case.warnings if finding.severity == "error"]
    brain = case.images["t1c"] > 0
    for image in case.images.values():
        assert not image[~brain].any() or np.mean(image[~brain] > 0) < 0.01


def test_nothing_written_identifies_the_patient(imported):
    folder, uids = imported
    text = (folder / "cases/A1/import.json").read_text()
    study = pydicom.dcmread(next((folder / "study").iterdir()), stop_before_pixels=True)
    secrets = [*uids.values(), study.StudyInstanceUID, study.FrameOfReferenceUID, "Phantom", "P1", "2024", str(folder)]
    assert not [secret for secret in secrets if secret in text]
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", text)
    salt = (folder / "cases" / SALT_FILE).read_text()
    assert salt not in text
    for path in (folder / "cases/A1").glob("*.nii.gz"):
        header = nibabel.load(path).header
        assert not bytes(header["descrip"]).strip(b"\0")
        assert not header.extensions


def test_series_are_found_again_by_their_hash(imported):
    folder, uids = imported
    pseudonyms = open_salt(folder / "cases", None)
    facts = facts_of(folder, "A1")
    assert facts.salt_check == pseudonyms.check
    assert {name: image.series for name, image in facts.images.items()} == {
        name: pseudonyms.of(uid) for name, uid in uids.items()
    }
    assert {item.series for item in facts.study if item.is_chosen} == {pseudonyms.of(uid) for uid in uids.values()}


def test_a_case_that_is_there_is_refused_or_left(imported):
    folder, _ = imported
    options = [f"--dicom-path={folder / 'study'}", f"--brain-mask={folder / 'mask.nii.gz'}", "--case-id=A1"]
    before = (folder / "cases/A1/import.json").read_bytes()
    assert import_it(folder, *options) == ExitCode.OUTPUT
    assert import_it(folder, *options, "--resume") == ExitCode.DONE
    assert (folder / "cases/A1/import.json").read_bytes() == before
    assert {path.name for path in (folder / "cases").iterdir()} == {"A1", SALT_FILE}


def test_another_patients_sequence_is_left_out_and_said(tmp_path, capsys):
    study = tmp_path / "study"
    uid = pydicom.uid.generate_uid()
    write_sequence(study / "a", T1C, study=uid)
    write_sequence(study / "b", T2F, study=uid, number=2, head=make_head(4))
    mask = write_mask(tmp_path / "mask.nii.gz")
    options = [f"--dicom-path={study}", f"--brain-mask={mask}", "--case-id=B"]
    assert import_it(tmp_path, *options) == ExitCode.DONE
    facts = facts_of(tmp_path, "B")
    assert facts.images.keys() == {"t1c"}
    assert "could not be registered" in facts.left_out["t2f"]
    assert [finding.code for finding in facts.findings] == ["left-out"]
    assert "warning: B: t2f is left out" in capsys.readouterr().err


def test_a_sequence_that_cannot_be_read_is_left_out_and_said(tmp_path, capsys):
    write_study(tmp_path / "study", {"t1c": small(T1C), "t2f": small(T2F)})
    broken = max((tmp_path / "study").iterdir())
    broken.write_bytes(broken.read_bytes()[:-40])
    mask = write_mask(tmp_path / "mask.nii.gz")
    options = [f"--dicom-path={tmp_path / 'study'}", f"--brain-mask={mask}", "--case-id=B"]
    assert import_it(tmp_path, *options) == ExitCode.DONE
    facts = facts_of(tmp_path, "B")
    assert facts.left_out["t2f"] == "its pixels can't be read"
    assert broken.name in capsys.readouterr().err
    assert broken.name not in facts.model_dump_json()


def test_ct_and_t1c_alone_are_a_radiosurgery_case(tmp_path):
    write_study(tmp_path / "study", {"t1c": T1C, "ct": CT})
    assert import_it(tmp_path, f"--dicom-path={tmp_path / 'study'}") == ExitCode.DONE
    (folder,) = (path for path in (tmp_path / "cases").iterdir() if path.is_dir())
    assert re.fullmatch(r"case-[0-9a-f]{10}", folder.name)
    facts = facts_of(tmp_path, folder.name)
    assert (facts.system, facts.brain) == ("radiosurgery", None)
    assert errors_over_brain(facts.images["ct"].alignment.matrix, CT.motion).mean() < 1
    (files,) = discover_cases(tmp_path / "cases", modalities=RADIOSURGERY.modalities)
    read_case(files, modalities=RADIOSURGERY.modalities, is_stripped=False)


def test_raw_nifti_becomes_a_case_too(tmp_path):
    for modality, sequence in {"t1c": T1C, "t2f": T2F}.items():
        folder = tmp_path / "raw/C7"
        folder.mkdir(parents=True, exist_ok=True)
        voxels, affine = acquire(sequence, make_head())
        grid = replace(make_head().grid, shape=sequence.shape, affine=affine)
        write_image(folder / f"C7-{modality}.nii.gz", np.rint(voxels).astype(np.float32), make_header(grid))
    mask = write_mask(tmp_path / "mask.nii.gz")
    assert import_it(tmp_path, f"--nifti={tmp_path / 'raw'}", f"--brain-mask={mask}") == ExitCode.DONE
    facts = facts_of(tmp_path, "C7")
    assert errors_over_brain(facts.images["t2f"].alignment.matrix, T2F.motion).mean() < 1
    assert facts.images["t1c"].series is None


def test_a_bundle_says_what_must_be_there(tmp_path, capsys):
    write_study(tmp_path / "study", {"t1c": small(T1C), "t1n": small(T1N)})
    options = [f"--dicom-path={tmp_path / 'study'}", "--case-id=E"]
    assert import_it(tmp_path, *options, "--weights=mets") == ExitCode.INPUT
    assert "no t2f, which the plan needs" in capsys.readouterr().err
    assert import_it(tmp_path, *options, "--weights=srs-demo") == ExitCode.INPUT
    assert "no ct, which the plan needs" in capsys.readouterr().err


def test_one_study_that_fails_does_not_stop_the_others(tmp_path, capsys):
    write_study(tmp_path / "a", {"t1n": small(T1N)})
    write_study(tmp_path / "b", {"t1c": small(T1C), "t1n": small(T1N)})
    folders = [f"--dicom-path={tmp_path / name}" for name in "ab"]
    options = [*folders, "--case-id=a", "--case-id=b", "--on-error=skip"]
    assert import_it(tmp_path, *options) == ExitCode.SOME_FAILED
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2  # b holds no brain
    assert "no t1c" in errors[0]
    assert "--brain-mask" in errors[1]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--dicom-path=a", "--nifti=b"],
        ["--dicom-path=a", "--dicom-path=b", "--case-id=one"],
        ["--dicom-path=a", "b", "--series=t1c=1.2"],
        ["--dicom-path=a", "--series=t1x=1.2"],
        ["--dicom-path=a", "--series=t1c=1.2", "--series=t1c=1.3"],
        ["--dicom-path=a", "--case-id=../x"],
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "a", {"t1c": small(T1C)})
    assert import_it(tmp_path, *options) == ExitCode.USAGE


def test_a_salt_is_drawn_once_and_its_owners_alone(tmp_path):
    first, second = open_salt(tmp_path, None), open_salt(tmp_path, None)
    assert first.of("1.2.3") == second.of("1.2.3")
    assert stat.S_IMODE((tmp_path / SALT_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [SALT_FILE]
    assert first.of("1.2.3") != Pseudonyms(b"another salt of sixteen bytes").of("1.2.3")
    assert "salt" not in repr(first) or str(first.salt) not in repr(first)


def test_a_salt_that_can_be_guessed_is_refused(tmp_path):
    (tmp_path / "salt").write_bytes(b"pepper\n")
    with pytest.raises(InputError, match="6 bytes, expected 16 at least"):
        open_salt(tmp_path, tmp_path / "salt")


@pytest.mark.parametrize("turned", [False, True])
def test_a_brain_mask_of_another_converter_lies_right(tmp_path, turned):
    """As dcm2niix writes it, rows flipped."""
    write_study(tmp_path / "study", {"t1c": small(T1C)})
    _, affine = acquire(small(T1C), make_head())
    mask = np.zeros(small(T1C).shape, dtype=np.uint8)
    mask[3:8, 2:9, 10:31] = 1
    grid = replace(make_head().grid, shape=mask.shape, affine=affine)
    if turned:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, 1] * (mask.shape[1] - 1)
        affine[:3, 1] *= -1
        write_label_map(tmp_path / "mask.nii", mask[:, ::-1], make_header(replace(grid, affine=affine)))
    else:
        write_label_map(tmp_path / "mask.nii", mask, make_header(grid))
    options = [f"--dicom-path={tmp_path / 'study'}", f"--brain-mask={tmp_path / 'mask.nii'}", "--case-id=D"]
    assert import_it(tmp_path, *options) == ExitCode.DONE
    voxels = np.asarray(nibabel.load(tmp_path / "cases/D/D-t1c.nii.gz").dataobj)
    whole = np.rint(acquire(small(T1C), make_head())[0]).clip(0, 4095)
    np.testing.assert_array_equal(voxels, np.where(mask, whole, 0))


def test_import_json_is_valid_for_programs(imported):
    folder, _ = imported
    content = json.loads((folder / "cases/A1/import.json").read_text())
    assert content["schema_version"] == "1.0"
    assert content["stage_s"].keys() == {"read", "brain", "register", "write"}
