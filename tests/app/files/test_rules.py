"""The malformed inputs in one table: what `metseg check` says of each, and that reading the case says the same."""

import bz2
import gzip
import lzma
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import metseg
from metseg.errors import InputError
from metseg.files.discovery import discover_cases
from metseg.files.read import read_case
from metseg.files.rules import check_case, check_cases
from metseg.findings import errors_among
from metseg.systems import MODALITIES

SHAPE = (12, 11, 10)
HEADER_BYTES = 348


def voxels(dtype=np.int16, seed=0):
    data = np.zeros(SHAPE, dtype)
    data[2:10, 2:9, 2:8] = np.random.default_rng(seed).integers(50, 900, (8, 7, 6))
    return data


def save(path, data=None, affine=None):
    if data is None:  # each modality its own, as in life
        data = voxels(seed=1 + MODALITIES.index(path.name.split(".")[0][-3:]))
    nib.save(nib.Nifti1Image(data, np.diag([-1.0, -1, 1, 1]) if affine is None else affine), path)


def unpack(path):
    return bytearray(gzip.decompress(path.read_bytes()))


def edit(path, **fields):
    """Sets header fields, whatever they may mean."""
    raw = unpack(path)
    header = np.frombuffer(raw[:HEADER_BYTES], nib.nifti1.header_dtype).copy()[0]
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(gzip.compress(header.tobytes() + raw[HEADER_BYTES:]))


def with_values(value, count):
    data = voxels(np.float32)
    data[2:10, 2:9, 2:8].ravel()
    data[tuple(np.argwhere(data != 0)[:count].T)] = value
    return data


def other_grid():
    affine = np.diag([-1.0, -1, 1, 1])
    affine[0, 3] = 0.5
    return affine


def replaced_by_link(path):
    path.unlink()
    path.symlink_to("nowhere.nii.gz")


def zipped(path):
    data = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("case-t1n.nii.gz", data)


# what is done to the case's t1n file: (damage, code, severity, part of the message)
DAMAGE = {
    "missing": (lambda p: p.unlink(), "missing-modality", "error", "t1n is missing: no case-t1n.nii.gz or .nii"),
    "empty file": (lambda p: p.write_bytes(b""), "corrupt", "error", "t1n (case-t1n.nii.gz): the file is empty"),
    "dangling link": (replaced_by_link, "unreadable", "error", "a symbolic link to a file that does not exist"),
    "no NIfTI": (
        lambda p: p.write_bytes(b"\x89PNG...."),
        "corrupt",
        "error",
        "not a NIfTI file: it is a PNG picture",
    ),
    "anything": (lambda p: p.write_bytes(b"\x89\x01\x02\x03"), "corrupt", "error", "starts with bytes 89 01 02 03"),
    "HTML page": (
        lambda p: p.write_bytes(b"\xef\xbb\xbf\r\n <!DOCTYPE html><html>Log in</html>"),
        "corrupt",
        "error",
        "not a NIfTI file: it is an HTML page",
    ),
    "LFS pointer": (
        lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"),
        "corrupt",
        "error",
        "it is a Git LFS pointer in the place of the image",
    ),
    "compressed LFS pointer": (
        lambda p: p.write_bytes(gzip.compress(b"version https://git-lfs.github.com/spec/v1\n")),
        "corrupt",
        "error",
        "the gzip file holds a Git LFS pointer",
    ),
    "git-annex pointer": (
        lambda p: p.write_bytes(b"/annex/objects/MD5E-s12--ab.nii.gz\n"),
        "corrupt",
        "error",
        "it is a git-annex pointer",
    ),
    "server's answer": (
        lambda p: p.write_bytes(b"404: Not Found"),
        "corrupt",
        "error",
        "it is a text that begins with '404: Not Found'",
    ),
    "compressed twice": (
        lambda p: p.write_bytes(gzip.compress(p.read_bytes())),
        "corrupt",
        "error",
        "it is compressed twice",
    ),
    "zip archive": (zipped, "corrupt", "error", "it is a zip archive"),
    "compressed zip archive": (
        lambda p: (zipped(p), p.write_bytes(gzip.compress(p.read_bytes()))),
        "corrupt",
        "error",
        "the gzip file holds a zip archive",
    ),
    "bzip2": (lambda p: p.write_bytes(bz2.compress(unpack(p))), "corrupt", "error", "it is a bzip2 file"),
    "xz": (lambda p: p.write_bytes(lzma.compress(unpack(p))), "corrupt", "error", "it is an xz file"),
    "tar archive": (
        lambda p: p.write_bytes(gzip.compress(bytes(257) + b"ustar" + bytes(300))),
        "corrupt",
        "error",
        "the gzip file holds a tar archive",
    ),
    "half a copy": (lambda p: p.write_bytes(bytes(4000)), "corrupt", "error", "it is full of zeros"),
    "another modality's image": (
        lambda p: p.write_bytes(gzip.compress(unpack(p.with_name("case-t1c.nii.gz")), 1)),
        "same-image",
        "warning",
        "t1n (case-t1n.nii.gz) holds the same voxels as t1c (case-t1c.nii.gz): the result is unreliable",
    ),
    "link to another modality": (
        lambda p: (p.unlink(), p.symlink_to("case-t2f.nii.gz")),
        "same-image",
        "warning",
        "holds the same voxels as t1n (case-t1n.nii.gz)",
    ),
    "half the download": (
        lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
        "corrupt",
        "error",
        "truncated or corrupt gzip stream",
    ),
    "half the header": (
        lambda p: p.write_bytes(gzip.compress(unpack(p)[:200])),
        "corrupt",
        "error",
        "truncated: ends after 200 bytes, within the header of 348",
    ),
    "half the voxels": (
        lambda p: p.write_bytes(gzip.compress(unpack(p)[:1352])),
        "corrupt",
        "error",
        "truncated: the header promises 12x11x10 int16 voxels in 2640 bytes, it holds 1000",
    ),
    "half the voxels, uncompressed": (
        lambda p: p.write_bytes(unpack(p)[:1352]),
        "corrupt",
        "error",
        "truncated: the header promises 12x11x10 int16 voxels in 2640 bytes, the file can't hold more than 1352",
    ),
    "flipped bit": (
        lambda p: p.write_bytes(p.read_bytes()[:-6] + b"\x00\x01" + p.read_bytes()[-4:]),
        "corrupt",
        "error",
        "truncated or corrupt gzip stream (crc check failed",
    ),
    "32767 cubed": (
        lambda p: edit(p, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]),
        "too-large",
        "error",
        "32767x32767x32767 voxels",
    ),
    "header and image pair": (
        lambda p: edit(p, magic=b"ni1"),
        "corrupt",
        "error",
        "not a single-file NIfTI: magic 'ni1'",
    ),
    "no voxels": (
        lambda p: edit(p, dim=[3, 12, 0, 10, 1, 1, 1, 1]),
        "corrupt",
        "error",
        "the header claims 12x0x10 voxels",
    ),
    "99 dimensions": (lambda p: edit(p, dim=[99, 12, 11, 10, 1, 1, 1, 1]), "corrupt", "error", "claims 99 dimensions"),
    "bad offset": (lambda p: edit(p, vox_offset=np.nan), "corrupt", "error", "vox_offset is nan"),
    "time series": (
        lambda p: save(p, np.stack([voxels()] * 3, -1)),
        "not-3d",
        "error",
        "not 3-D: 4-D with 12x11x10x3 voxels",
    ),
    "a 2-D image": (lambda p: save(p, voxels()[:, :, 5]), "not-3d", "error", "not 3-D: 2-D with 12x11 voxels"),
    "complex": (
        lambda p: save(p, voxels().astype(np.complex64)),
        "data-type",
        "error",
        "data type complex64 (code 32)",
    ),
    "colour": (lambda p: edit(p, datatype=128, bitpix=24), "data-type", "error", "(code 128)"),
    "unknown type": (lambda p: edit(p, datatype=12345), "data-type", "error", "data type unknown (code 12345)"),
    "affine of zeros": (
        lambda p: edit(p, srow_x=0, srow_y=0, srow_z=0, sform_code=1),
        "affine",
        "error",
        "voxels of 0x0x0 mm, expected sides of 0.05 to 20 mm",
    ),
    "affine with NaN": (lambda p: edit(p, srow_x=np.nan, sform_code=1), "affine", "error", "holds NaN or infinity"),
    "coordinates beyond the solar system": (  # found by fuzzing: squares of these overflowed
        lambda p: edit(p, srow_x=[1, 0, 0, 3e38], sform_code=1),
        "affine",
        "error",
        "the affine holds 3e+38 mm, at most 1e+06 is expected",
    ),
    "qform of NaN beside a good sform": (  # found by fuzzing: a warning from within nibabel
        lambda p: edit(p, qoffset_x=np.nan, pixdim=[1, 3e38, 1, 1, 0, 0, 0, 0], qform_code=1, sform_code=1),
        "orientation",
        "warning",
        "qform and sform disagree by inf voxels",
    ),
    "metres": (
        lambda p: edit(p, srow_x=[0.001, 0, 0, 0], srow_y=[0, 0.001, 0, 0], srow_z=[0, 0, 0.001, 0], sform_code=1),
        "affine",
        "error",
        "voxels of 0.001x0.001x0.001 mm",
    ),
    "axes that coincide": (
        lambda p: edit(p, srow_x=[1, 1, 0, 0], srow_y=[0, 0.01, 0, 0], srow_z=[0, 0, 1, 0], sform_code=1),
        "affine",
        "error",
        "axes (nearly) coincide",
    ),
    "too many NaN": (
        lambda p: save(p, with_values(np.nan, 4)),
        "not-finite",
        "error",
        "4 voxels are NaN or infinite, 1.19% of those that are not 0: at most 1% is accepted",
    ),
    "stray infinity": (
        lambda p: save(p, with_values(np.inf, 3)),
        "not-finite",
        "warning",
        "3 voxels are NaN or infinite, 0.89% of those that are not 0: set to 0",
    ),
    "nothing but NaN": (lambda p: save(p, np.full(SHAPE, np.nan)), "not-finite", "error", "100.00%"),
    "blank": (lambda p: save(p, np.zeros(SHAPE, np.int16)), "constant", "error", "constant image: every voxel is 0"),
    "all one value": (lambda p: save(p, np.full(SHAPE, 7, np.int16)), "constant", "error", "every voxel is 7"),
    "other shape": (
        lambda p: save(p, voxels()[:11]),
        "grid",
        "error",
        "t1n: its grid is not t1c's: 11x11x10 voxels, expected 12x11x10",
    ),
    "moved by half a voxel": (lambda p: save(p, affine=other_grid()), "grid", "error", "corners up to 0.5 mm apart"),
    "other orientation": (
        lambda p: save(p, affine=np.eye(4)),
        "grid",
        "error",
        "axes RAS; expected 1x1x1 mm, axes LPS",
    ),
    "almost empty": (
        lambda p: save(p, np.where(np.arange(voxels().size).reshape(voxels().shape) < 1, 9, 0).astype(np.int16)),
        "constant",
        "error",
        "almost empty: 1 of",
    ),
    "negative": (
        lambda p: save(p, with_values(-100, 3)),
        "negative",
        "warning",
        "negative intensities down to -100 in 0.23%",
    ),
    "shifted": (
        lambda p: save(p, voxels() - 100),
        "background",
        "warning",
        "the background is -100 in 74.5% of the voxels: set to 0, and the brain, which goes down to -48, raised by 48",
    ),
    "NaN around the brain": (
        lambda p: save(p, np.where(voxels() == 0, np.nan, voxels())),
        "background",
        "warning",
        "t1n (case-t1n.nii.gz): the background is NaN in 74.5% of the voxels: set to 0",
    ),
    "skull": (
        lambda p: save(p, np.random.default_rng(0).normal(100, 20, SHAPE)),
        "no-background",
        "warning",
        "left as it is, the result is unreliable",
    ),
    "absurd": (lambda p: edit(p, scl_slope=1e5, scl_inter=0), "absurd", "warning", "beyond 1e+06"),
    "no orientation": (
        lambda p: edit(p, qform_code=0, sform_code=0),
        "orientation",
        "warning",
        "states no orientation (qform and sform codes are 0)",
    ),
    "forms disagree": (
        lambda p: edit(p, qform_code=1, quatern_b=0.3, sform_code=1),
        "orientation",
        "warning",
        "qform and sform disagree by",
    ),
    "two files": (
        lambda p: save(p.with_name("case-t1n.nii")),
        "duplicate-file",
        "error",
        "t1n exists 2 times: case-t1n.nii and case-t1n.nii.gz",
    ),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "case").mkdir()
    for modality in MODALITIES:
        save(tmp_path / "case" / f"case-{modality}.nii.gz")
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_malformed_input_gets_its_message_from_check_and_from_reading(folder, damage):
    act, code, severity, message = DAMAGE[damage]
    act(folder / "case" / "case-t1n.nii.gz")

    findings = check_cases(folder)

    # A pair of forms that disagree also moves the grid of a file whose affine was edited: the first finding counts.
    found = next(finding for finding in findings if finding.code == code)
    assert (found.case_id, found.severity) == ("case", severity)
    assert message in found.what
    (files,) = discover_cases(folder)
    if severity == "error":
        assert found.hint
        with pytest.raises(InputError) as caught:
            read_case(files, modalities=MODALITIES)
        assert message in str(caught.value)
        assert errors_among(findings) == (found,)
    else:
        assert not errors_among(findings)
        case = read_case(files, modalities=MODALITIES)
        assert found in case.warnings
        assert np.isfinite(case.images["t1n"]).all()


@pytest.mark.parametrize("axis", range(3))
def test_a_single_slice_is_one_warning_of_check_and_of_reading(folder, axis):
    for path in (folder / "case").iterdir():
        save(path, np.take(nib.load(path).get_fdata(), [5], axis).astype(np.int16))
    (finding,) = check_cases(folder)
    assert (finding.case_id, finding.severity, finding.code) == ("case", "warning", "single-slice")
    assert "t1c: a single slice of" in finding.what
    (files,) = discover_cases(folder)
    case = read_case(files, modalities=MODALITIES)
    assert case.warnings == (finding,)
    assert case.grid.shape[axis] == 1


def test_a_good_case_has_no_problem(folder):
    assert check_cases(folder) == ()


def test_every_problem_of_every_case_is_listed(folder):
    for name in ("second", "third"):
        (folder / name).mkdir()
        for modality in ("t1n", "t2f"):
            save(folder / name / f"{name}-{modality}.nii.gz")
    (folder / "case" / "case-t2f.nii.gz").write_bytes(b"junk")
    save(folder / "third" / "third-t2f.nii.gz", voxels()[:11])
    (folder / "nothing").mkdir()

    findings = check_cases(folder, required=("t1n", "t1c", "t2f"), optional=("t2w",))

    assert [(finding.case_id, finding.severity, finding.code) for finding in findings] == [
        ("", "warning", "ignored-folder"),
        ("case", "error", "corrupt"),
        ("second", "error", "missing-modality"),
        ("second", "warning", "missing-modality"),
        ("third", "error", "missing-modality"),
        ("third", "error", "grid"),
        ("third", "warning", "missing-modality"),
    ]


def test_two_files_of_a_modality_that_nobody_reads_are_no_problem_to_reading_either(folder):
    save(folder / "case" / "case-t2w.nii")
    assert check_cases(folder, required=("t1n", "t1c")) == ()
    (files,) = discover_cases(folder)
    assert set(read_case(files, modalities=("t1n", "t1c")).images) == {"t1n", "t1c"}
    (finding,) = check_cases(folder, required=("t1n", "t1c"), optional=("t2w",))
    assert (finding.severity, finding.code) == ("error", "duplicate-file")


def test_the_reference_is_always_required(folder):
    (folder / "case" / "case-t1c.nii.gz").unlink()
    (finding,) = check_cases(folder, required=("t1n",))
    assert "t1c is missing" in finding.what
    (files,) = discover_cases(folder)
    assert check_case(files, required=("t1n",)) == (finding,)


def test_a_folder_without_cases_and_colliding_ids_are_problems(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    assert [finding.code for finding in check_cases(empty)] == ["no-case"]
    assert [finding.code for finding in check_cases(empty / "gone")] == ["no-case"]
    (folder / "CASE").mkdir()
    for modality in MODALITIES:
        save(folder / "CASE" / f"CASE-{modality}.nii.gz")
    assert [finding.code for finding in check_cases(folder)] == ["duplicate-id"]


def test_nan_in_the_brain_stays_an_error_whatever_surrounds_it(folder):
    image = np.where(voxels() == 0, np.float32(-1024), voxels())
    image[4:7, 4:7, 4:7] = np.nan
    save(folder / "case" / "case-t1n.nii.gz", image.astype(np.float32))
    (found,) = errors_among(check_cases(folder))
    assert (found.code, "27 voxels are NaN" in found.what) == ("not-finite", True)


def test_images_that_are_not_stripped_keep_their_air(folder):
    save(folder / "case" / "case-t1n.nii.gz", voxels() - 100)
    (finding,) = check_cases(folder, is_stripped=False)
    assert finding.code == "negative"
    (files,) = discover_cases(folder)
    assert read_case(files, modalities=("t1c", "t1n"), is_stripped=False).images["t1n"].min() == -100


def test_a_margin_far_from_that_of_training_is_named(folder):
    share = np.mean(voxels() != 0)  # of every image of the case alike
    (files,) = discover_cases(folder)
    for factor, word in ((0.45, "smaller"), (0.55, ""), (1.9, ""), (2.1, "larger")):
        findings = check_cases(folder, brain_share=share * factor)
        case = read_case(files, modalities=MODALITIES, brain_share=share * factor)
        assert findings == case.warnings
        assert [finding.code for finding in findings] == ["margin"] * bool(word)
        assert all(f"25.5% of the voxels, {share * factor:.1%} in training" in finding.what for finding in findings)
        assert all(f"margin is {word}" in finding.what for finding in findings)
    # An image whose background nobody knows says nothing of the margin.
    save(folder / "case" / "case-t1n.nii.gz", np.random.default_rng(0).normal(100, 20, SHAPE))
    assert [finding.code for finding in check_cases(folder, brain_share=0.1)] == ["no-background"]


def test_checking_needs_no_network_library(folder):
    code = (
        "import sys; from pathlib import Path\n"
        "import metseg.files.rules, metseg.files.submission, metseg.files.read, metseg.files.write\n"
        "import metseg.files.discovery, metseg.space.resampling\n"
        "assert not {'nibabel', 'scipy'} & set(sys.modules), 'slow to import'\n"
        f"assert metseg.files.rules.check_cases(Path({str(folder)!r})) == ()\n"
        "assert not {'torch', 'monai'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(Path(metseg.__file__).parents[1])})
