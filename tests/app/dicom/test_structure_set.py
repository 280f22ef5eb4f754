"""RT Structure Sets: what they say, on which series, and what is refused."""

import highdicom as hd
import numpy as np
import pydicom
import pytest

from dicom_support import OBLIQUE, short, write_enhanced, write_series
from metseg.__main__ import run
from metseg.errors import ExitCode
from report_support import write_labels
from rtstruct_support import DIRECTIONS, STRAIGHT, write_map, write_volume

SHAPE, SPACING = (24, 20, 12), (0.9, 0.7, 1.5)


def two_lesions(shape=SHAPE):
    """A shell around a cavity, and one voxel."""
    labels = np.zeros(shape, dtype=np.uint8)
    labels[3:9, 4:10, 3:8] = 3
    labels[5:7, 6:8, 4:7] = 4
    labels[-4, -3, -2] = 1
    return labels


@pytest.fixture
def volume(tmp_path):
    return write_volume(tmp_path / "series", OBLIQUE, SHAPE, SPACING)


def export(label_map, series, output, *options, form="rtstruct"):
    inputs = [f"--label-map={label_map}", f"--dicom-series={series}", f"--output={output}"]
    return run(["export-dicom", f"--format={form}", *inputs, "--labels=brats2025", *options])


def export_two(tmp_path, volume):
    label_map = write_map(tmp_path / "c.nii.gz", two_lesions(), volume)
    assert export(label_map, volume.folder, tmp_path / "rt.dcm") == ExitCode.DONE
    return pydicom.dcmread(tmp_path / "rt.dcm")


def contours_of(data):
    return [contour for drawn in data.ROIContourSequence for contour in drawn.get("ContourSequence", ())]


def test_it_says_what_the_standard_requires_and_who_the_patient_is(tmp_path, volume):
    data, image = export_two(tmp_path, volume), pydicom.dcmread(next(volume.folder.iterdir()))
    assert data.file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
    assert (data.SOPClassUID, data.Modality) == (pydicom.uid.RTStructureSetStorage, "RTSTRUCT")
    assert data.ApprovalStatus == "UNAPPROVED"
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID"):
        assert data[keyword].value == image[keyword].value
    assert data.SeriesInstanceUID != image.SeriesInstanceUID
    empty_or_not = (
        "PatientBirthDate", "PatientSex", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
        "SeriesNumber", "OperatorsName", "Manufacturer", "PositionReferenceIndicator",
    )  # fmt: skip
    assert all(keyword in data for keyword in empty_or_not)
    assert all(data[keyword].value for keyword in ("StructureSetLabel", "StructureSetDate", "StructureSetTime"))
    assert len(data.StructureSetLabel) <= 16
    (frame,) = data.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == image.StudyInstanceUID
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    assert len({item.ReferencedSOPInstanceUID for item in series.ContourImageSequence}) == SHAPE[2]


def test_each_structure_has_a_name_a_type_a_volume_and_a_colour(tmp_path, volume):
    data = export_two(tmp_path, volume)
    rois, drawn, observed = data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence
    numbers = [item.ROINumber for item in rois]
    assert numbers == [item.ReferencedROINumber for item in drawn] == [item.ReferencedROINumber for item in observed]
    assert [item.ROIName for item in rois] == ["GTV01 0.159cc", "GTV02 0.001cc"]
    assert float(rois[0].ROIVolume) == pytest.approx((6 * 6 * 5 - 12) * np.prod(SPACING) / 1000, rel=1e-5)
    assert {item.ROIGenerationAlgorithm for item in rois} == {"AUTOMATIC"}
    assert {item.ReferencedFrameOfReferenceUID for item in rois} == {data.FrameOfReferenceUID}
    assert [item.RTROIInterpretedType for item in observed] == ["GTV", "GTV"]
    assert len({tuple(item.ROIDisplayColor) for item in drawn}) == 2


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_contours_lie_in_the_plane_of_the_image_that_they_name(tmp_path, direction):
    volume = write_volume(tmp_path / "series", DIRECTIONS[direction], SHAPE, SPACING)
    data = export_two(tmp_path, volume)
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, volume.folder.iterdir())}
    contours = contours_of(data)
    assert len(contours) == 5 + 1
    for contour in contours:
        (named,) = contour.ContourImageSequence
        image = images[named.ReferencedSOPInstanceUID]
        across, down = np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3)
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3) - np.array(image.ImagePositionPatient)
        assert np.abs(points @ np.cross(across, down)).max() < 1e-5
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        assert contour.NumberOfContourPoints == len(points) >= 4
        assert max(len(str(number)) for number in contour.ContourData) <= 16
    assert [contour.NumberOfContourPoints for contour in contours] == [4, 12, 12, 12, 4, 4]


def test_an_empty_label_map_gives_a_valid_set_that_says_so(tmp_path, volume):
    label_map = write_map(tmp_path / "c.nii.gz", np.zeros(SHAPE, dtype=np.uint8), volume)
    assert export(label_map, volume.folder, tmp_path / "rt.dcm") == ExitCode.DONE
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    assert [item.ROIName for item in data.StructureSetROISequence] == ["no lesion found"]
    assert [item.RTROIInterpretedType for item in data.RTROIObservationsSequence] == [""]
    assert contours_of(data) == []


def test_both_formats_are_written_into_a_folder(tmp_path, volume, capsys):
    label_map = write_map(tmp_path / "c.nii.gz", two_lesions(), volume)
    assert export(label_map, volume.folder, tmp_path / "new/out", form="both") == ExitCode.DONE
    found = {path.name: pydicom.dcmread(path).Modality for path in (tmp_path / "new/out").iterdir()}
    assert found == {"seg.dcm": "SEG", "rtstruct.dcm": "RTSTRUCT"}
    assert "rtstruct.dcm: GTV01 0.159cc; GTV02 0.001cc" in capsys.readouterr().err


def test_a_multi_frame_image_is_referred_to_by_its_frames(tmp_path, capsys):
    order = [3, 0, 5, 1, 4, 2]
    affine = write_enhanced(tmp_path / "series/all.dcm", OBLIQUE, order)
    labels = np.zeros((14, 10, 6), dtype=np.uint8)
    labels[3:6, 2:5, 1:4] = 3
    write_labels(tmp_path / "c.nii.gz", labels, affine)
    assert export(tmp_path / "c.nii.gz", tmp_path / "series", tmp_path / "rt.dcm") == ExitCode.DONE
    assert "few planning systems" in capsys.readouterr().err
    contours = contours_of(pydicom.dcmread(tmp_path / "rt.dcm"))
    frames = [contour.ContourImageSequence[0].ReferencedFrameNumber for contour in contours]
    assert frames == [order.index(number) + 1 for number in (1, 2, 3)]


def test_contours_of_a_tilted_gantry_lie_on_its_own_slices(tmp_path):
    volume = write_volume(tmp_path / "series", STRAIGHT, SHAPE, SPACING, modality="CT")
    sheared = volume.affine.copy()
    for path in volume.folder.iterdir():
        image = pydicom.dcmread(path)
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, short(float(y) + 0.3 * int(image.InstanceNumber)), z]
        image.save_as(path)
    sheared[1, 2], sheared[1, 3] = -0.3, sheared[1, 3] - 0.3
    write_labels(tmp_path / "c.nii.gz", two_lesions(), sheared)
    assert export(tmp_path / "c.nii.gz", volume.folder, tmp_path / "rt.dcm") == ExitCode.DONE
    first, *_, last = contours_of(pydicom.dcmread(tmp_path / "rt.dcm"))[:5]
    rows = [np.array(contour.ContourData, dtype=float).reshape(-1, 3)[:, 1].min() for contour in (first, last)]
    assert rows[1] - rows[0] == pytest.approx(4 * 0.3, abs=1e-4)


# ---- another series, behind a registration


def write_motion(path, matrix):
    np.savetxt(path, matrix)
    return f"--registration={path}"


def test_a_segmentation_goes_to_another_series_too(tmp_path, volume):
    ct = write_volume(tmp_path / "ct", STRAIGHT, (40, 40, 30), (0.8, 0.8, 1.0), modality="CT")
    label_map = write_map(tmp_path / "c.nii.gz", two_lesions(), volume)
    motion = write_motion(tmp_path / "motion.txt", np.eye(4))
    assert export(label_map, ct.folder, tmp_path / "both", motion, form="both") == ExitCode.DONE
    found = hd.seg.segread(tmp_path / "both/seg.dcm")
    assert found.FrameOfReferenceUID == pydicom.dcmread(ct.folder / "000.dcm").FrameOfReferenceUID
    enhancing = found.get_volume(segment_numbers=[3]).array.sum() * 0.8 * 0.8
    assert enhancing == pytest.approx((6 * 6 * 5 - 12) * np.prod(SPACING), rel=0.1)


def test_lesions_beyond_the_series_are_named_and_a_series_without_any_is_refused(tmp_path, volume, capsys):
    label_map = write_map(tmp_path / "c.nii.gz", two_lesions(), volume)
    for shift, form, said, code in (
        (np.array([-8.0, -5, 5]), "rtstruct", "outside the series, left out: GTV02", ExitCode.DONE),
        (np.array([-8.0, -5, 5]), "seg", "1 of 2 lesions outside it", ExitCode.DONE),
        (np.array([400.0, 0, 0]), "rtstruct", "none of the label map's 2 lesions lies on it", ExitCode.INPUT),
        (np.array([400.0, 0, 0]), "seg", "none of the label map's 2 lesions lies on it", ExitCode.INPUT),
    ):
        matrix = np.eye(4)
        matrix[:3, 3] = shift
        motion = write_motion(tmp_path / "motion.txt", matrix)
        (tmp_path / "rt.dcm").unlink(missing_ok=True)
        assert export(label_map, volume.folder, tmp_path / "rt.dcm", motion, form=form) == code
        assert said in capsys.readouterr().err
        assert (tmp_path / "rt.dcm").exists() == (code == ExitCode.DONE)


REGISTRATIONS = {
    "no file": (None, "can't be read"),
    "words": ("one two", "no numbers alone"),
    "fifteen numbers": ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0", "15 numbers"),
    "infinite": ("inf 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "finite"),
    "last row": ("1 0 0 0\n0 1 0 0\n0 0 1 0\n5 0 0 1", "last row"),
    "scaled": ("1.1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "not rigid"),
    "mirrored": ("-1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "not rigid"),
}


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_what_is_no_rigid_registration_is_refused(tmp_path, volume, capsys, name):
    text, said = REGISTRATIONS[name]
    label_map = write_map(tmp_path / "c.nii.gz", two_lesions(), volume)
    if text is not None:
        (tmp_path / "motion.txt").write_text(text)
    options = f"--registration={tmp_path / 'motion.txt'}"
    assert export(label_map, volume.folder, tmp_path / "rt.dcm", options) == ExitCode.INPUT
    assert said in capsys.readouterr().err
    assert not (tmp_path / "rt.dcm").exists()


def test_commas_and_one_line_are_read_as_well(tmp_path, volume):
    label_map = write_map(tmp_path / "c.nii.gz", two_lesions(), volume)
    (tmp_path / "motion.csv").write_text("1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1")
    options = f"--registration={tmp_path / 'motion.csv'}"
    assert export(label_map, volume.folder, tmp_path / "rt.dcm", options) == ExitCode.DONE
    assert len(contours_of(pydicom.dcmread(tmp_path / "rt.dcm"))) == 6


def test_another_series_needs_a_registration(tmp_path, volume, capsys):
    ct = write_volume(tmp_path / "ct", STRAIGHT, (40, 40, 30), (0.8, 0.8, 1.0), modality="CT")
    label_map = write_map(tmp_path / "c.nii.gz", two_lesions(), volume)
    assert export(label_map, ct.folder, tmp_path / "rt.dcm") == ExitCode.INPUT
    assert "--registration" in capsys.readouterr().err


def test_slices_at_unequal_steps_are_refused(tmp_path, capsys):
    affine = write_series(tmp_path / "series", slices=[0, 1, 3])
    write_labels(tmp_path / "c.nii.gz", np.zeros((14, 10, 3), dtype=np.uint8), affine)
    assert export(tmp_path / "c.nii.gz", tmp_path / "series", tmp_path / "rt.dcm") == ExitCode.INPUT
    assert "expected equal steps" in capsys.readouterr().err


def test_a_label_map_that_lies_nowhere_can_not_be_moved(tmp_path, volume, capsys):
    import nibabel as nib  # noqa: PLC0415

    nib.save(nib.Nifti1Image(two_lesions(), None), tmp_path / "c.nii.gz")
    motion = write_motion(tmp_path / "motion.txt", np.eye(4))
    assert export(tmp_path / "c.nii.gz", volume.folder, tmp_path / "rt.dcm", motion) == ExitCode.INPUT
    assert "does not say where it lies" in capsys.readouterr().err


def test_a_set_that_does_not_read_back_is_not_written(tmp_path, volume, monkeypatch):
    label_map = write_map(tmp_path / "c.nii.gz", two_lesions(), volume)
    monkeypatch.setattr("metseg.dicom.export.decode_structure_set", lambda *_: ())
    assert export(label_map, volume.folder, tmp_path / "out", form="both") == ExitCode.OUTPUT
    assert not list((tmp_path / "out").iterdir())
