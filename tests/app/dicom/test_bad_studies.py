"""What studies can be like that make no case, or a poorer one: one line each, and nothing is lost without a word."""

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from dicom_study_support import (
    CT,
    LOCALISER,
    T1C,
    T1N,
    T2F,
    acquire,
    make_head,
    small,
    write_enhanced_sequence,
    write_sequence,
    write_study,
)
from metseg.__main__ import run
from metseg.dicom.import_case import recognise_study
from metseg.dicom.reading import SourceFile, read_header, read_pixels
from metseg.dicom.volume import read_volume
from metseg.errors import ExitCode, InputError


def edit(folder: Path, change, only=lambda _number: True):
    """Changes each dataset of a folder."""
    for number, path in enumerate(sorted(folder.rglob("IM*"))):
        if only(number):
            data = pydicom.dcmread(path)
            change(data)
            data.save_as(path)


def no_t1c(folder):
    write_study(folder, {"t1n": small(T1N), "t2f": small(T2F)})


def contrast_unknown(folder):
    write_study(folder, {"t1": small(T1N).but(SeriesDescription="T1 TRA"), "t2f": small(T2F)})


def another_part(folder):
    write_study(folder, {"t1c": small(T1C).but(BodyPartExamined="ABDOMEN", SeriesDescription="LAVA +C")})


def localiser(folder):
    write_study(folder, {"loc": LOCALISER})


def burnt_in(folder):
    write_study(folder, {"t1c": small(T1C).but(BurnedInAnnotation="YES")})


def missing_slices(folder):
    write_study(folder, {"t1c": replace(small(T1C), drop=(10, 11, 30))})


def two_stations(folder):
    """One series of two blocks, as of a table that moved."""
    uid = write_sequence(folder / "a", small(T1C))
    write_sequence(folder / "b", small(T1C))

    def move(data):
        data.SeriesInstanceUID, data.StudyInstanceUID = uid, "1.2.3"

    edit(folder, move)
    for path in (folder / "b").iterdir():
        data = pydicom.dcmread(path)
        x, y, z = map(float, data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y, z + 100.3]
        data.save_as(path)


def private_tags_only(folder):
    folder.mkdir()
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data.add_new(0x00191001, "LO", "everything is here")
    data.save_as(folder / "IM1", enforce_file_format=True)


def two_patients(folder):
    write_study(folder / "a", {"t1c": small(T1C)})
    write_study(folder / "b", {"t2f": small(T2F)}, patient="P2")


def two_birth_dates(folder):
    write_study(folder / "a", {"t1c": small(T1C).but(PatientBirthDate="19500101")})
    write_study(folder / "b", {"t2f": small(T2F).but(PatientBirthDate="19600101")})


def two_names_without_id(folder):
    write_study(folder / "a", {"t1c": small(T1C).but(PatientID="")})
    write_study(folder / "b", {"t2f": small(T2F).but(PatientID="", PatientName="Other^One")})


def no_place(folder):
    write_study(folder, {"t1c": small(T1C)})
    edit(folder, lambda data: data.pop("ImagePositionPatient"))


def mosaic(folder):
    write_study(folder, {"t1c": small(T1C).but(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])})


def unknown_compression(folder):
    write_study(folder, {"t1c": small(T1C)})

    def change(data):
        data.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        data.PixelData = pydicom.encaps.encapsulate([data.PixelData])
        data["PixelData"].is_undefined_length = True

    edit(folder, change)


def empty(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("nothing")


def truncated(folder):
    write_study(folder, {"t1c": small(T1C)})
    for path in sorted(folder.iterdir())[:1]:
        path.write_bytes(path.read_bytes()[:-40])


BAD = {
    no_t1c: r"no t1c: T1 series 1 is without contrast agent",
    contrast_unknown: r"no t1c: nothing says whether T1 series 1 was acquired with contrast agent",
    another_part: r"no t1c among 1 series \(another part of the body\)",
    localiser: r"no t1c among 1 series \(a localiser\)",
    burnt_in: r"no t1c among 1 series \(text is burnt into the pixels\)",
    missing_slices: r"series 1 can't be used: 37 slices at 37 places .* expected equal steps; 3 are missing",
    two_stations: r"80 slices at 80 places lie .* apart, expected equal steps",
    private_tags_only: r"no DICOM image in it; 1 files of no series \(SeriesInstanceUID \(0020,000E\)",
    two_patients: r"images of 2 patients in one folder \(PatientID differs\)",
    two_birth_dates: r"images of 2 patients in one folder \(PatientBirthDate differs\)",
    two_names_without_id: r"images of 2 patients in one folder \(PatientName differs\)",
    no_place: r"ImagePositionPatient \(0020,0032\) is missing",
    mosaic: r"can't be used: a mosaic",
    unknown_compression: r"can't be used: in a compression that can't be read",
    empty: r"no DICOM image in it; 1 files are not DICOM: notes.txt",
    truncated: r"t1c: DICOM file \w+: its pixels can't be read",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_study_is_one_clear_line(tmp_path, capsys, make):
    make(tmp_path / "study")
    options = [f"--dicom-path={tmp_path / 'study'}", f"--output-path={tmp_path / 'cases'}"]
    assert run(["import-dicom", *options]) == ExitCode.INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(BAD[make], line), line
    assert "P2" not in line
    assert [path.name for path in (tmp_path / "cases").iterdir()] == [".metseg-salt"]


def test_a_study_that_does_not_exist_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        recognise_study(tmp_path / "nowhere")


def test_a_damaged_header_is_passed_over_with_a_word(tmp_path):
    write_study(tmp_path, {"t1c": small(T1C)})
    first = min(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:300])
    found = recognise_study(tmp_path)
    assert any(first.name in finding.what for finding in found.findings)


def test_thick_slices_are_a_warning(tmp_path):
    thick = replace(small(T1C), spacing_mm=(15, 15, 7), shape=(12, 12, 24))
    write_study(tmp_path, {"t1c": thick})
    (finding,) = recognise_study(tmp_path).findings
    assert finding.code == "thick-slices"
    assert "7 mm apart" in finding.what


def test_the_same_files_twice_are_one_series(tmp_path):
    write_study(tmp_path / "a", {"t1c": small(T1C)})
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (verdict,) = recognise_study(tmp_path).verdicts
    assert verdict.stack.images == small(T1C).shape[2]
    assert verdict.is_chosen


def test_blocks_that_an_acquisition_tells_apart_are_parts(tmp_path):
    two_stations(tmp_path / "study")
    for number, name in enumerate("ab", 1):
        for path in (tmp_path / "study" / name).iterdir():
            data = pydicom.dcmread(path)
            data.AcquisitionNumber = number
            data.save_as(path)
    found = recognise_study(tmp_path / "study")
    assert [item.stack.part for item in found.verdicts] == [1, 2]
    assert "fit equally" in str(found.problem)


# ---- voxels


def stored(sequence):
    return np.rint(acquire(sequence, make_head())[0] + (1024 if sequence.image == "ct" else 0)).clip(0, 4095)


def chosen_volume(folder, modality):
    return read_volume(recognise_study(folder).chosen[modality].stack)


def test_voxels_lie_where_the_headers_say(tmp_path):
    oblique = replace(small(T1C), turn=(7, -12, 20))
    write_study(tmp_path, {"t1c": oblique})
    scan = chosen_volume(tmp_path, "t1c")
    np.testing.assert_array_equal(scan.voxels, stored(oblique))
    np.testing.assert_allclose(scan.grid.affine, acquire(oblique, make_head())[1], atol=1e-6)


def test_a_tilted_gantry_gives_a_sheared_grid_without_a_qform(tmp_path):
    tilted = replace(small(CT), shear=0.4)
    write_study(tmp_path, {"ct": tilted, "t1c": small(T1C)})
    scan = chosen_volume(tmp_path, "ct")
    np.testing.assert_allclose(scan.grid.affine, acquire(tilted, make_head())[1], atol=1e-6)
    np.testing.assert_array_equal(scan.voxels, stored(tilted) - 1024)
    header = nibabel.Nifti1Header.from_fileobj(io.BytesIO(scan.header), check=False)
    assert (header["qform_code"], header["sform_code"]) == (0, 1)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_multi_frame_image_gives_the_same_volume(tmp_path, shuffled):
    oblique = replace(small(T1C), turn=(7, -12, 20))
    write_enhanced_sequence(tmp_path / "enhanced", oblique, shuffled=shuffled)
    found = recognise_study(tmp_path / "enhanced")
    assert found.problem is None, found.verdicts[0].reason
    assert found.chosen["t1c"].seen.ti_ms == pytest.approx(900)
    scan = chosen_volume(tmp_path / "enhanced", "t1c")
    np.testing.assert_allclose(scan.voxels, stored(oblique), atol=1)
    assert scan.voxels.max() > 500


def encode(data, path, kind):
    """Encodes a dataset's pixels."""
    plain = path.with_suffix(".dcm")
    image = sitk.GetImageFromArray(np.frombuffer(data.PixelData, np.uint16).reshape(1, data.Rows, data.Columns))
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(plain))
    writer.UseCompressionOn()
    writer.SetCompressor(kind)
    writer.Execute(image)
    encoded = pydicom.dcmread(plain)
    plain.unlink()
    data.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
    data.PixelData, data["PixelData"].is_undefined_length = encoded.PixelData, True
    data.BitsStored, data.HighBit = encoded.BitsStored, encoded.HighBit


def compress(kind):
    """Saves a dataset through GDCM's encoders."""

    def write(data, path):
        encode(data, path, kind)
        data.save_as(path, enforce_file_format=True)

    return write


def compress_by_pydicom(syntax):
    def write(data, path):
        data.compress(syntax)
        data.save_as(path, enforce_file_format=True)

    return write


COMPRESSIONS = {
    "JPEG": compress("JPEG"),
    "JPEG 2000": compress("JPEG2000"),
    "JPEG-LS": compress_by_pydicom(pydicom.uid.JPEGLSLossless),
    "RLE": compress_by_pydicom(pydicom.uid.RLELossless),
}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_compressed_pixels_are_read(tmp_path, kind):
    few = replace(small(CT), shape=(16, 12, 45))
    write_sequence(tmp_path, small(T1C))
    write_sequence(tmp_path, few, number=2, write=COMPRESSIONS[kind])
    paths = sorted(tmp_path.glob("IM02*"))
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID.is_compressed
    found = recognise_study(tmp_path)
    np.testing.assert_array_equal(read_volume(found.chosen["ct"].stack).voxels, stored(few) - 1024)


def test_frames_that_are_compressed_keep_their_own_slopes(tmp_path):
    write_enhanced_sequence(tmp_path, replace(small(T1C), shape=(16, 12, 40)), shuffled=True)
    plain = read_pixels(read_header(tmp_path / "IM1"))
    data = pydicom.dcmread(tmp_path / "IM1")
    frames = []
    for pixels in data.pixel_array:
        one = pydicom.Dataset()
        one.file_meta, one.Rows, one.Columns = pydicom.dataset.FileMetaDataset(), data.Rows, data.Columns
        one.PixelData = pixels.tobytes()
        encode(one, tmp_path / "frame", "JPEG2000")
        frames += pydicom.encaps.generate_frames(one.PixelData, number_of_frames=1)
    data.file_meta.TransferSyntaxUID = one.file_meta.TransferSyntaxUID
    data.BitsStored, data.HighBit = one.BitsStored, one.HighBit
    data.PixelData = pydicom.encaps.encapsulate(frames)
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "IM2")
    np.testing.assert_array_equal(read_pixels(read_header(tmp_path / "IM2")), plain)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG 2000"])
def test_truncated_compressed_pixels_are_an_error(tmp_path, kind):
    write_sequence(tmp_path, replace(small(CT), shape=(16, 12, 1)), write=COMPRESSIONS[kind])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-60])
    header = read_header(path)
    with pytest.raises(InputError, match="can't be read"):
        read_pixels(header)


DATA = Path(pydicom.__file__).parent / "data/test_files"


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "JPEG2000.dcm",
    ],
)
def test_shipped_pixels_are_those_that_pydicom_decodes(name):
    if not (DATA / name).exists():
        pytest.skip(f"this pydicom does not ship {name}")
    data = pydicom.dcmread(DATA / name)
    try:
        expected = pydicom.pixels.apply_rescale(data.pixel_array, data)
    except RuntimeError as error:
        pytest.skip(f"no decoder beside ours: {error}")
    found = read_pixels(SourceFile(DATA / name, data))
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_twelve_bits_of_extended_jpeg_are_read():
    found = read_pixels(read_header(DATA / "JPGExtended.dcm"))
    assert found.shape == (1, 1024, 256)
    assert found.max() > 255
