import io

import highdicom as hd
import numpy as np
import pydicom
import pytest

from dicom_support import COLUMNS, OBLIQUE, ROWS, SLICES, SPACING, STRAIGHT, converted, volume, write_series
from metseg.__main__ import run
from metseg.dicom.seg import arrange_frames, decode_segmentation, encode_segmentation
from metseg.dicom.series import read_series
from metseg.errors import ExitCode, InputError
from metseg.systems import BRATS
from report_support import write_labels


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize(
    ("order", "flips"),
    [((0, 1, 2), (False, True, False)), ((0, 1, 2), (False, False, False)), ((2, 0, 1), (True, True, False))],
)
def test_a_segmentation_reads_back_on_the_series_own_pixels(tmp_path, direction, order, flips):
    labels = volume()
    affine = write_series(tmp_path / "series", direction)
    write_labels(tmp_path / "c.nii.gz", *converted(labels, affine, order, flips))
    options = [f"--label-map={tmp_path / 'c.nii.gz'}", f"--dicom-series={tmp_path / 'series'}"]
    assert run(["export-dicom", *options, f"--output={tmp_path / 'seg.dcm'}"]) == ExitCode.DONE

    found = hd.seg.segread(tmp_path / "seg.dcm")
    assert found.PatientID == "P1"
    assert [found.get_segment_description(number).segment_label[:4] for number in (1, 2, 3)] == ["NETC", "SNFH", "ET, "]
    uid_of = {
        int(image.InstanceNumber): str(image.SOPInstanceUID)
        for image in (pydicom.dcmread(path) for path in (tmp_path / "series").iterdir())
    }
    for number in range(SLICES):
        pixels = found.get_pixels_by_source_instance(
            [uid_of[number + 1]], combine_segments=True, assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(pixels[0], labels[:, :, number].T)


def move_slices(folder, shift_mm):
    """Moves each slice within its plane by so much, a function of its number."""
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        x, y, z = (float(value) for value in data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y + shift_mm(int(data.InstanceNumber)), z]
        data.save_as(path)


def test_a_tilted_gantrys_series_is_a_sheared_volume(tmp_path):
    write_series(tmp_path / "series")
    move_slices(tmp_path / "series", lambda number: 0.6 * number)
    series = read_series(tmp_path / "series")
    np.testing.assert_allclose(series.grid.affine[:3, 2], [0, -0.6, SPACING[2]], atol=1e-6)
    frames = arrange_frames(volume(), series.grid, series)
    np.testing.assert_array_equal(decode_segmentation(encode_segmentation(frames, series, BRATS), series), frames)
    move_slices(tmp_path / "series", lambda number: 5 if number == 3 else 0)
    with pytest.raises(InputError, match="apart"):
        read_series(tmp_path / "series")


def test_a_radiosurgery_label_map_has_one_segment_called_metastasis(tmp_path, capsys):
    labels = np.minimum(volume(), 1).astype(np.uint8)
    affine = write_series(tmp_path / "series")
    write_labels(tmp_path / "c.nii.gz", *converted(labels, affine))
    options = [f"--label-map={tmp_path / 'c.nii.gz'}", f"--dicom-series={tmp_path / 'series'}"]
    output = f"--output={tmp_path / 'seg.dcm'}"
    assert run(["export-dicom", *options, output, "--system=radiosurgery"]) == ExitCode.DONE
    log = capsys.readouterr().err
    assert "metastasis: " in log
    assert "NETC" not in log
    (segment,) = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert (segment.SegmentNumber, segment.SegmentLabel) == (1, "metastasis")
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "14799000"
    assert run(["export-dicom", *options, output]) == ExitCode.DONE
    assert "--system radiosurgery" in capsys.readouterr().err
    write_labels(tmp_path / "c.nii.gz", *converted(volume(), affine))
    assert run(["export-dicom", *options, output, "--system=radiosurgery"]) == ExitCode.INPUT


def test_the_segmentation_lies_where_the_label_map_lies(tmp_path):
    labels = np.zeros((COLUMNS, ROWS, SLICES), dtype=np.uint8)
    labels[3, 7, 4] = 3
    affine = write_series(tmp_path / "series", OBLIQUE)
    series = read_series(tmp_path / "series")
    np.testing.assert_allclose(series.grid.affine, affine, atol=1e-6)
    content = encode_segmentation(arrange_frames(labels, series.grid, series), series, BRATS)
    data = pydicom.dcmread(io.BytesIO(content))
    (frame,) = data.PerFrameFunctionalGroupsSequence
    corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
    row, column = np.argwhere(data.pixel_array.reshape(ROWS, COLUMNS))[0]
    expected_ras = affine @ [3, 7, 4, 1]
    shared = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    across, down = np.array(shared, dtype=float).reshape(2, 3)
    found_lps = corner + column * SPACING[0] * across + row * SPACING[1] * down
    np.testing.assert_allclose(found_lps * [-1, -1, 1], expected_ras[:3], atol=1e-3)


def test_an_empty_label_map_and_a_cavity_are_kept(tmp_path):
    write_series(tmp_path / "series")
    series = read_series(tmp_path / "series")
    for labels in (np.zeros((COLUMNS, ROWS, SLICES), np.uint8), volume(with_rc=True)):
        frames = arrange_frames(labels, series.grid, series)
        np.testing.assert_array_equal(decode_segmentation(encode_segmentation(frames, series, BRATS), series), frames)


def test_another_grid_is_refused(tmp_path, capsys):
    affine = write_series(tmp_path / "series")
    moved = affine.copy()
    moved[0, 3] += 5
    write_labels(tmp_path / "moved.nii.gz", volume(), moved)
    write_labels(tmp_path / "small.nii.gz", volume()[:-1], affine)
    for name in ("moved", "small"):
        options = [f"--label-map={tmp_path / name}.nii.gz", f"--dicom-series={tmp_path / 'series'}"]
        assert run(["export-dicom", *options, f"--output={tmp_path / 'seg.dcm'}"]) == ExitCode.INPUT
        assert "one grid" in capsys.readouterr().err
    assert not (tmp_path / "seg.dcm").exists()


def test_folders_that_make_no_volume_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("not DICOM")
    write_series(tmp_path / "two")
    write_series(tmp_path / "two", slices=[7], uid="1.2.3")
    write_series(tmp_path / "gap", slices=[0, 1, 3])
    write_series(tmp_path / "sizes", slices=[0, 1], uid="1.2.4")
    write_series(tmp_path / "sizes", slices=[2], uid="1.2.4", rows=ROWS + 1)
    for name, message in (
        ("none", "does not exist"),
        ("empty", "no image"), ("two", "2 series"), ("gap", "apart"), ("sizes", "different"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_series(tmp_path / name)


def test_a_file_that_does_not_read_back_is_not_written(tmp_path, monkeypatch):
    affine = write_series(tmp_path / "series")
    write_labels(tmp_path / "c.nii.gz", volume(), affine)
    monkeypatch.setattr("metseg.dicom.export.decode_segmentation", lambda *_: np.zeros(1))
    options = [f"--label-map={tmp_path / 'c.nii.gz'}", f"--dicom-series={tmp_path / 'series'}"]
    assert run(["export-dicom", *options, f"--output={tmp_path / 'seg.dcm'}"]) == ExitCode.OUTPUT
    assert not (tmp_path / "seg.dcm").exists()


def test_label_4_of_a_map_without_3_is_asked_about(tmp_path, capsys):
    labels = volume()
    old = np.where(labels == 3, 4, labels).astype(np.uint8)
    affine = write_series(tmp_path / "series")
    write_labels(tmp_path / "c.nii.gz", *converted(old, affine))
    options = [f"--label-map={tmp_path / 'c.nii.gz'}", f"--dicom-series={tmp_path / 'series'}"]
    output = tmp_path / "seg.dcm"
    assert run(["export-dicom", *options, f"--output={output}"]) == ExitCode.INPUT
    told = capsys.readouterr().err
    assert "c.nii.gz: holds 4 and no 3" in told
    assert "--labels brats2021" in told
    assert not output.exists()
    for said, segments in (("brats2021", [1, 2, 3]), ("brats2025", [1, 2, 3, 4])):
        assert run(["export-dicom", *options, f"--output={output}", f"--labels={said}"]) == ExitCode.DONE
        assert [int(segment.SegmentNumber) for segment in pydicom.dcmread(output).SegmentSequence] == segments
        counts = capsys.readouterr().err
        assert (
            f"{'ET, enhancing tumour' if said == 'brats2021' else 'RC, resection cavity'}: {(old == 4).sum()}" in counts
        )
    assert run(["export-dicom", *options, f"--output={output}", "--labels=brats2018"]) == ExitCode.USAGE


def test_nearly_whole_labels_are_exported_with_a_warning(tmp_path, capsys):
    labels = volume()
    affine = write_series(tmp_path / "series")
    write_labels(tmp_path / "c.nii.gz", *converted(labels * 0.9999999, affine))
    options = [f"--label-map={tmp_path / 'c.nii.gz'}", f"--dicom-series={tmp_path / 'series'}"]
    assert run(["export-dicom", *options, f"--output={tmp_path / 'seg.dcm'}"]) == ExitCode.DONE
    assert capsys.readouterr().err.count("rounded to whole numbers") == 1
