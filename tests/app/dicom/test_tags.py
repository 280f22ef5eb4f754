"""Series that anonymisers and other programs leave incomplete, and multi-frame series."""

import io
import shutil

import numpy as np
import pydicom
import pytest

from dicom_support import COLUMNS, OBLIQUE, ROWS, SLICES, SPACING, STRAIGHT, volume, write_enhanced, write_series
from metseg.__main__ import run
from metseg.dicom.placing import Placed
from metseg.dicom.seg import arrange_frames, decode_segmentation, encode_segmentation
from metseg.dicom.series import read_series
from metseg.dicom.structure_set import Structure, decode_structure_set, encode_structure_set
from metseg.dicom.tags import name_tag
from metseg.dicom.targets import GTV
from metseg.errors import ExitCode, InputError
from metseg.space.grid import Grid
from metseg.systems import BRATS
from report_support import write_labels

SHAPE = (COLUMNS, ROWS, SLICES)
NOT_TO_INVENT = {"StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns"}
PLACE = {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"}
GROUPS = {
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
}  # fmt: skip


def lay_out(points):
    return sorted(map(tuple, np.round(points, 3).tolist()))


def read_points(content):
    """Of each label the places of its voxels in RAS millimetres, as pydicom alone reads them from a Segmentation."""
    data = pydicom.dcmread(io.BytesIO(content))
    shared = data.SharedFunctionalGroupsSequence[0]
    across, down = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    assert float(shared.PixelMeasuresSequence[0].SliceThickness) == pytest.approx(SPACING[2])
    pixels = data.pixel_array.reshape(-1, ROWS, COLUMNS)
    points = {}
    for image, frame in zip(pixels, data.PerFrameFunctionalGroupsSequence, strict=True):
        label = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        rows, columns = np.nonzero(image)
        found = corner + np.outer(columns * column_mm, across) + np.outer(rows * row_mm, down)
        points.setdefault(label, []).extend((found * [-1, -1, 1]).tolist())
    return {label: lay_out(found) for label, found in points.items()}


def check_export(folder, labels, affine):
    """Exports both objects, and expects the labels where they lie; returns the Segmentation."""
    series = read_series(folder)
    frames = arrange_frames(labels, Grid(SHAPE, affine), series)
    content = encode_segmentation(frames, series, BRATS)
    np.testing.assert_array_equal(decode_segmentation(content, series), frames)
    found = read_points(content)
    for label in (1, 2, 3):
        expected = np.argwhere(labels == label) @ affine[:3, :3].T + affine[:3, 3]
        np.testing.assert_allclose(found[label], lay_out(expected), atol=2e-3)
    box = tuple(slice(1, side - 1) for side in SHAPE)
    structure = Structure("GTV01", "", GTV, 1.0, Placed(box, labels[box] == 1))
    assert decode_structure_set(encode_structure_set([structure], series), series) == (structure.list_voxels(),)
    return pydicom.dcmread(io.BytesIO(content)), series


def change_all(folder, change):
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)


def remove(data, keyword):
    del data[keyword]


def empty(data, keyword):
    data[keyword].value = [] if data[keyword].VR == "SQ" else None


def find_holders(data, keyword):
    """The datasets, at any depth, that hold a tag."""
    for element in data:
        if element.keyword == keyword:
            yield data
        if element.VR == "SQ":
            for item in element.value:
                yield from find_holders(item, keyword)


def write_kind(kind, folder):
    if kind == "classic":
        return write_series(folder, OBLIQUE)
    return write_enhanced(folder / "all.dcm", OBLIQUE, [3, 0, 5, 1, 4, 2])


def list_keywords(folder):
    found = set()
    for path in folder.iterdir():
        found.update(element.keyword for element in pydicom.dcmread(path).iterall())
    return sorted(found)


@pytest.mark.parametrize("change", [remove, empty])
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_without_any_one_tag_there_is_a_segmentation_or_the_tags_name(tmp_path, kind, change):
    affine, labels = write_kind(kind, tmp_path / "whole"), volume()
    keywords = list_keywords(tmp_path / "whole")
    assert len(keywords) > 30
    refused = {}
    for keyword in keywords:
        folder = tmp_path / keyword
        shutil.copytree(tmp_path / "whole", folder)

        def leave_out(data, keyword=keyword):
            for holder in list(find_holders(data, keyword)):
                change(holder, keyword)

        change_all(folder, leave_out)
        try:
            check_export(folder, labels, affine)
        except InputError as error:
            refused[keyword] = str(error)
    for keyword, message in refused.items():
        assert name_tag(keyword) in message
        assert str(tmp_path / keyword) in message
    assert refused.keys() == NOT_TO_INVENT | PLACE | (GROUPS if kind == "enhanced" else set())


def test_an_image_that_nothing_identifies_is_refused(tmp_path):
    write_series(tmp_path)
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        del data.SOPInstanceUID
        del data.file_meta.MediaStorageSOPInstanceUID
        data.save_as(path)
    with pytest.raises(InputError, match=r"SOPInstanceUID \(0008,0018\)"):
        read_series(tmp_path)


LAWFUL = {"StudyID", "PatientName", "AccessionNumber", "SpecificCharacterSet", "SeriesNumber"}


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("PatientSex", "unknown", ""),
        ("PatientBirthDate", "000000", ""),
        ("StudyDate", "anon", ""),
        ("StudyTime", "x", ""),
        ("StudyID", ["a", "b"], "a"),
        ("PatientName", ["A^B", "C^D"], "A^B"),
        ("AccessionNumber", "A" * 40, "A" * 40),
        ("SpecificCharacterSet", ["", "ISO 2022 IR 87"], "ISO_IR 192"),
        ("SpecificCharacterSet", "nonsense", "ISO_IR 192"),
        ("SpecificCharacterSet", "ISO 2022 IR 100", "ISO_IR 192"),
        ("SeriesNumber", -5, 1000),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's, of values that break the standard
def test_odd_values_do_no_harm(tmp_path, keyword, value, kept):
    affine = write_series(tmp_path)
    change_all(tmp_path, lambda data: setattr(data, keyword, value))
    data, series = check_export(tmp_path, volume(), affine)
    assert data[keyword].value == kept
    assert bool(series.remarks) == (keyword not in LAWFUL)


@pytest.mark.parametrize(("keyword", "value"), [("SliceThickness", 0), ("SOPClassUID", ""), ("SOPInstanceUID", "")])
def test_what_stands_elsewhere_is_taken_from_there_and_said(tmp_path, keyword, value):
    affine = write_series(tmp_path)
    change_all(tmp_path, lambda data: setattr(data, keyword, value))
    _, series = check_export(tmp_path, volume(), affine)
    (remark,) = series.remarks
    assert remark.startswith(name_tag(keyword))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [1, 0, 0]),
        ("ImagePositionPatient", [1, 0]),
        ("PixelSpacing", [0, 1]),
        ("PixelSpacing", 1),
        ("Rows", 0),
        ("StudyInstanceUID", ["1.2.3", "1.2.4"]),
        ("SOPInstanceUID", "1.2.3"),
    ],
)
def test_unusable_values_are_named(tmp_path, keyword, value):
    write_series(tmp_path)
    change_all(tmp_path, lambda data: setattr(data, keyword, value))
    with pytest.raises(InputError) as caught:
        read_series(tmp_path)
    assert name_tag(keyword) in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_series_without_frame_of_reference_gets_one_that_its_segmentations_share(tmp_path, capsys):
    affine = write_series(tmp_path / "series")
    change_all(tmp_path / "series", lambda data: remove(data, "FrameOfReferenceUID"))
    write_labels(tmp_path / "c.nii.gz", volume(), affine)
    options = [f"--label-map={tmp_path / 'c.nii.gz'}", f"--dicom-series={tmp_path / 'series'}"]
    found = []
    for name in ("one.dcm", "two.dcm"):
        assert run(["export-dicom", *options, f"--output={tmp_path / name}"]) == ExitCode.DONE
        assert "FrameOfReferenceUID (0020,0052)" in capsys.readouterr().err
        found.append(pydicom.dcmread(tmp_path / name))
    assert found[0].FrameOfReferenceUID == found[1].FrameOfReferenceUID
    assert found[0].SOPInstanceUID != found[1].SOPInstanceUID


def test_one_slice_that_lacks_a_tag_is_named_or_follows_the_others(tmp_path):
    affine = write_series(tmp_path)
    path = tmp_path / "07.dcm"
    whole = path.read_bytes()
    for keyword in ("ImagePositionPatient", "SeriesInstanceUID", "PixelSpacing"):
        data = pydicom.dcmread(io.BytesIO(whole))
        remove(data, keyword)
        data.save_as(path)
        with pytest.raises(InputError) as caught:
            read_series(tmp_path)
        assert f"{path}: {name_tag(keyword)}" in str(caught.value)
    data = pydicom.dcmread(io.BytesIO(whole))
    frame = data.FrameOfReferenceUID
    remove(data, "FrameOfReferenceUID")
    data.save_as(path)
    assert check_export(tmp_path, volume(), affine)[0].FrameOfReferenceUID == frame


def test_the_users_files_stay_as_they_are(tmp_path):
    write_series(tmp_path)
    change_all(tmp_path, lambda data: [remove(data, name) for name in ("StudyDate", "SliceThickness", "PatientSex")])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    series = read_series(tmp_path)
    encode_segmentation(np.zeros((SLICES, ROWS, COLUMNS), np.uint8), series, BRATS)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_patient_and_study_are_the_sources(tmp_path):
    affine = write_series(tmp_path)

    def change(data):
        data.SpecificCharacterSet = "ISO_IR 100"
        data.PatientAge, data.StudyDescription, data.PatientName = "061Y", "Brain", "Müller^Jörg"

    change_all(tmp_path, change)
    data, _ = check_export(tmp_path, volume(), affine)
    assert (data.PatientAge, data.StudyDescription, data.StudyDate) == ("061Y", "Brain", "20240101")
    assert (str(data.PatientName), data.SpecificCharacterSet) == ("Müller^Jörg", "ISO_IR 100")
    assert data.SeriesNumber == 1003


# ---- multi-frame


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("order", [range(SLICES), range(SLICES)[::-1], [3, 0, 5, 1, 4, 2]])
@pytest.mark.parametrize("shared", [(), ("PlaneOrientation", "PixelMeasures")], ids=["per frame", "shared"])
def test_a_multi_frame_series_takes_its_geometry_from_its_frames(tmp_path, direction, order, shared):
    affine = write_enhanced(tmp_path / "all.dcm", direction, order, shared=shared)
    data, series = check_export(tmp_path, volume(), affine)
    np.testing.assert_allclose(series.grid.affine, affine, atol=1e-6)
    assert series.remarks == ()
    source = pydicom.dcmread(tmp_path / "all.dcm")
    for frame in data.PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        filed = source.PerFrameFunctionalGroupsSequence[int(reference.ReferencedFrameNumber) - 1]
        np.testing.assert_allclose(
            np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float),
            np.array(filed.PlanePositionSequence[0].ImagePositionPatient, dtype=float),
        )


def test_the_file_of_a_multi_frame_image_may_be_named_itself(tmp_path):
    affine = write_enhanced(tmp_path / "all.dcm")
    write_labels(tmp_path / "c.nii.gz", volume(), affine)
    options = [f"--label-map={tmp_path / 'c.nii.gz'}", f"--dicom-series={tmp_path / 'all.dcm'}"]
    assert run(["export-dicom", *options, f"--output={tmp_path / 'seg.dcm'}"]) == ExitCode.DONE
    # A second time with the first segmentation beside it: that is passed over.
    options[1] = f"--dicom-series={tmp_path}"
    assert run(["export-dicom", *options, f"--output={tmp_path / 'seg.dcm'}"]) == ExitCode.DONE


def test_multi_frame_images_that_make_no_volume_are_refused(tmp_path):
    write_enhanced(tmp_path / "twice" / "a.dcm", order=[0, 1, 2, 0, 1, 2])
    write_enhanced(tmp_path / "count" / "a.dcm")
    change_all(tmp_path / "count", lambda data: setattr(data, "NumberOfFrames", 4))
    write_enhanced(tmp_path / "two" / "a.dcm", order=[0, 1, 2])
    uid = pydicom.dcmread(tmp_path / "two" / "a.dcm").SeriesInstanceUID
    write_enhanced(tmp_path / "two" / "b.dcm", order=[3, 4, 5])
    change_all(tmp_path / "two", lambda data: setattr(data, "SeriesInstanceUID", uid))
    for name, message in (
        ("twice", "6 slices at 3 places"),
        ("count", r"NumberOfFrames \(0028,0008\) is 4, but 6"),
        ("two", "2 multi-frame images among 2 files"),
    ):
        with pytest.raises(InputError, match=message):
            read_series(tmp_path / name)


def test_images_of_a_class_that_nobody_knows_are_refused_by_it(tmp_path):
    for kind in ("classic", "enhanced"):
        write_kind(kind, tmp_path / kind)
        change_all(tmp_path / kind, lambda data: setattr(data, "SOPClassUID", "1.2.3.4"))
        series = read_series(tmp_path / kind)
        with pytest.raises(InputError, match=r"SOPClassUID \(0008,0016\) 1\.2\.3\.4"):
            encode_segmentation(np.zeros((SLICES, ROWS, COLUMNS), np.uint8), series, BRATS)


def test_a_single_slice_needs_its_thickness(tmp_path):
    write_series(tmp_path, slices=[2])
    series = read_series(tmp_path)
    frames = volume().transpose(2, 1, 0)[3:4]
    np.testing.assert_array_equal(decode_segmentation(encode_segmentation(frames, series, BRATS), series), frames)
    change_all(tmp_path, lambda data: remove(data, "SliceThickness"))
    with pytest.raises(InputError, match=r"SliceThickness \(0018,0050\)"):
        read_series(tmp_path)


@pytest.mark.filterwarnings("ignore")  # pydicom's, of values that break the standard
def test_damaged_files_are_refused(tmp_path):
    write_series(tmp_path / "series", slices=[0])
    (path,) = (tmp_path / "series").iterdir()
    whole = path.read_bytes()
    for length in range(140, 900, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="DICOM"):
            read_series(tmp_path / "series")
