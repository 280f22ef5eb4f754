"""Export to the series of an imported case, found in its study again."""

import shutil

import numpy as np
import pydicom
import pytest

from dicom_study_support import CT, T1C, write_study
from dicom_support import OBLIQUE
from metseg.__main__ import run
from metseg.errors import ExitCode
from metseg.files.image import read_image
from report_support import write_labels
from rtstruct_support import STRAIGHT, write_map, write_volume

SHAPE, SPACING = (24, 20, 12), (0.9, 0.7, 1.5)
TO_CT = np.array([[1, 0, 0, 4.0], [0, 1, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]])


@pytest.fixture
def case(tmp_path):
    """A study of MR and CT, and the case that was imported from it, with a label map on t1c."""
    from metseg.dicom.import_json import AlignmentFacts, ImageFacts, ImportJson  # noqa: PLC0415
    from metseg.dicom.pseudonyms import open_salt  # noqa: PLC0415

    mr = write_volume(tmp_path / "study/mr", OBLIQUE, SHAPE, SPACING)
    ct = write_volume(tmp_path / "study/deep/ct", STRAIGHT, (50, 50, 40), (0.8, 0.8, 1.0), modality="CT")
    (tmp_path / "study/README").write_text("not DICOM")
    folder = tmp_path / "cases/c1"
    folder.mkdir(parents=True)
    pseudonyms = open_salt(folder.parent, None)

    def describe(volume, alignment):
        uid = str(pydicom.dcmread(volume.folder / "000.dcm").SeriesInstanceUID)
        return ImageFacts(
            series=pseudonyms.of(uid), study=None, frame_of_reference=None, part=0, rule="named", reason="",
            shape=volume.shape, affine=tuple(map(tuple, volume.affine)), alignment=alignment, sha256="",
        )  # fmt: skip

    moved = AlignmentFacts(
        matrix=tuple(map(tuple, TO_CT)), is_identity=False, shift_mm=5.4, rotation_degrees=0, overlap=1, gain=1
    )
    facts = ImportJson(
        case_id="c1", system="brats", salt_check=pseudonyms.check, left_out={}, study=(), brain=None, findings=(),
        images={"t1c": describe(mr, None), "ct": describe(ct, moved)}, stage_s={},
    )  # fmt: skip
    (folder / "import.json").write_text(facts.model_dump_json())
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[3:9, 4:10, 3:8] = 3
    write_map(tmp_path / "c1.nii.gz", labels, mr)
    return tmp_path, mr, ct


def export(work, *options):
    inputs = [f"--label-map={work / 'c1.nii.gz'}", f"--import-json={work / 'cases/c1/import.json'}"]
    outputs = ["--format=rtstruct", f"--output={work / 'rt.dcm'}"]
    return run(["export-dicom", *inputs, f"--dicom-series={work / 'study'}", *outputs, *options])


def centre_of(path):
    (drawn,) = pydicom.dcmread(path).ROIContourSequence
    points = [np.array(item.ContourData, dtype=float).reshape(-1, 3).mean(axis=0) for item in drawn.ContourSequence]
    return np.mean(points, axis=0) * (-1, -1, 1)


def named_series(path):
    (frame,) = pydicom.dcmread(path).ReferencedFrameOfReferenceSequence
    return frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID


def series_of(volume):
    return pydicom.dcmread(volume.folder / "000.dcm").SeriesInstanceUID


def test_the_series_is_found_in_the_study_and_the_registration_in_the_case(case):
    work, mr, ct = case
    expected = mr.affine @ (5.5, 6.5, 5, 1)
    assert export(work) == ExitCode.DONE
    assert named_series(work / "rt.dcm") == series_of(mr)
    np.testing.assert_allclose(centre_of(work / "rt.dcm"), expected[:3], atol=1e-3)
    assert export(work, "--onto=ct") == ExitCode.DONE
    assert named_series(work / "rt.dcm") == series_of(ct)
    np.testing.assert_allclose(centre_of(work / "rt.dcm"), (TO_CT @ expected)[:3], atol=0.4)


def test_a_label_map_on_the_ct_is_not_moved(case):
    work, _, ct = case
    labels = np.zeros(ct.shape, dtype=np.uint8)
    labels[20:26, 20:24, 10:14] = 3
    write_map(work / "c1.nii.gz", labels, ct)
    assert export(work, "--onto=ct") == ExitCode.DONE
    np.testing.assert_allclose(centre_of(work / "rt.dcm"), (ct.affine @ (22.5, 21.5, 11.5, 1))[:3], atol=1e-3)


def test_another_patients_study_is_refused(case, capsys):
    work, _, _ = case
    shutil.rmtree(work / "study")
    write_volume(work / "study/mr", OBLIQUE, SHAPE, SPACING)
    assert export(work) == ExitCode.INPUT
    assert "none of its 1 series is the one that the case was made from" in capsys.readouterr().err


def test_without_the_salt_or_with_another_nothing_is_guessed(case, capsys):
    work, _, _ = case
    (work / "secret").write_text("another secret of some length")
    assert export(work, f"--salt-file={work / 'secret'}") == ExitCode.INPUT
    assert "another salt" in capsys.readouterr().err
    (work / "cases/.metseg-salt").unlink()
    assert export(work) == ExitCode.INPUT
    assert "--salt-file" in capsys.readouterr().err
    assert not (work / "cases/.metseg-salt").exists()


def test_what_contradicts_or_is_missing_is_said(case, capsys):
    work, _, _ = case
    assert export(work, "--onto=t2w") == ExitCode.INPUT
    assert "from DICOM are: t1c, ct" in capsys.readouterr().err
    assert export(work, "--onto=pet") == ExitCode.USAGE
    assert export(work, f"--registration={work / 'motion.txt'}") == ExitCode.USAGE
    paths = [f"--label-map={work / 'c1.nii.gz'}", f"--dicom-series={work / 'study/mr'}", f"--output={work / 'rt.dcm'}"]
    assert run(["export-dicom", *paths, "--onto=ct"]) == ExitCode.USAGE
    (work / "cases/c1/import.json").write_text("{}")
    assert export(work) == ExitCode.INPUT


def test_contours_of_an_imported_study_lie_on_its_planning_ct(tmp_path):
    write_study(tmp_path / "study", {"t1c": T1C, "ct": CT})
    cases = [f"--output-path={tmp_path / 'cases'}", "--case-id=c1"]
    assert run(["import-dicom", f"--dicom-path={tmp_path / 'study'}", *cases]) == ExitCode.DONE
    grid = read_image(tmp_path / "cases/c1/c1-t1c.nii.gz").grid
    centre = np.array([18.0, -22.0, 10.0])
    index = np.indices(grid.shape).reshape(3, -1)
    away = np.linalg.norm(grid.affine[:3, :3] @ index + grid.affine[:3, 3:] - centre[:, None], axis=0)
    write_labels(tmp_path / "c1.nii.gz", (away < 6).reshape(grid.shape).astype(np.uint8), grid.affine)
    assert export(tmp_path, "--onto=ct", "--system=radiosurgery") == ExitCode.DONE
    expected = CT.motion @ (*centre, 1)
    assert np.linalg.norm(centre_of(tmp_path / "rt.dcm") - expected[:3]) < 1
