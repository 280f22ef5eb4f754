"""Reading cases, reading and writing label maps."""

import errno
import fcntl
import gzip
import os
import stat
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import metseg.files.atomic
from metseg.errors import ExitCode, InputError, OutputError
from metseg.files.atomic import remove_partials, write_atomically
from metseg.files.discovery import discover_cases
from metseg.files.header import ImageError, voxel_sizes
from metseg.files.image import read_image, read_shape
from metseg.files.read import read_case, read_label_map, whole_labels
from metseg.files.write import write_label_map, write_volume
from metseg.systems import MODALITIES

TURN = nib.quaternions.quat2mat(nib.quaternions.fillpositive([0.07, -0.05, 0.12])) @ np.diag([-0.84, -0.85, 1.48])
OBLIQUE = nib.affines.from_matvec(TURN, [91.3, 120.7, -70.2])


def image_file(path, data=None, affine=None, *, dtype=None, slope=None, codes=(1, 1), image_class=nib.Nifti1Image):
    if data is None:
        data = np.random.default_rng(0).integers(1, 900, (6, 7, 5)).astype(np.int16)
    image = image_class(data, np.eye(4) if affine is None else affine, dtype=dtype or data.dtype)
    image.set_qform(image.affine, code=codes[0])
    image.set_sform(image.affine, code=codes[1])
    if slope is not None:
        image.header.set_slope_inter(*slope)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def over_zero(data):
    """The same with a border of 0, as around a stripped brain."""
    over = np.zeros_like(data)
    over[1:-1, 1:-1, 1:-1] = data[1:-1, 1:-1, 1:-1]
    return over


def make_case(folder, *, modalities=MODALITIES, **options):
    for number, modality in enumerate(modalities):
        data = over_zero(np.random.default_rng(number).integers(1, 900, (6, 7, 5)).astype(np.int16))
        image_file(folder / f"{folder.name}-{modality}.nii.gz", data, **options)
    (case,) = discover_cases(folder.parent)
    return case


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"])
def test_every_number_type_is_read_as_nibabel_reads_it(tmp_path, name, suffix):
    data = np.random.default_rng(1).integers(0, 100, (6, 7, 5)).astype(name)
    path = image_file(tmp_path / f"a{suffix}", data, OBLIQUE, dtype=data.dtype)
    image = read_image(path)
    assert image.voxels.dtype == np.float32
    assert image.stored_type == name
    np.testing.assert_array_equal(image.voxels, nib.load(path).get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(image.grid.affine, nib.load(path).affine)
    assert image.findings == ()


@pytest.mark.parametrize("slope", [(2.5, -1000), (0.01, 0), (1, 7)])
def test_scaling_is_applied(tmp_path, slope):
    path = image_file(tmp_path / "a.nii.gz", slope=slope)
    np.testing.assert_allclose(read_image(path).voxels, nib.load(path).get_fdata(), rtol=1e-6)


@pytest.mark.parametrize("slope", [(0, 0), (np.nan, np.nan)])
def test_an_unset_slope_means_no_scaling(tmp_path, slope):
    path = image_file(tmp_path / "a.nii")
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array(slope, "<f4").tobytes()
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_image(path).voxels, nib.load(path).get_fdata(dtype=np.float32))


def test_big_endian_and_nifti2_files_are_read_and_written(tmp_path):
    data = np.random.default_rng(1).integers(0, 3, (6, 7, 5)).astype(np.int16)
    big = nib.Nifti1Image(data, OBLIQUE, nib.Nifti1Header(endianness=">"))
    big.set_data_dtype(">i2")
    nib.save(big, tmp_path / "big.nii.gz")
    image_file(tmp_path / "two.nii.gz", data, OBLIQUE, image_class=nib.Nifti2Image)
    for name in ("big", "two"):
        image = read_image(tmp_path / f"{name}.nii.gz")
        np.testing.assert_array_equal(image.voxels, data)
        out = tmp_path / f"{name}-out.nii.gz"
        write_label_map(out, data.astype(np.uint8), image.header)
        written = nib.load(out)
        np.testing.assert_array_equal(np.asarray(written.dataobj), data)
        np.testing.assert_array_equal(written.affine, image.grid.affine)
        write_volume(tmp_path / f"{name}-soft.nii.gz", data.astype(np.float32) / 7, image.header)
        soft = nib.load(tmp_path / f"{name}-soft.nii.gz")
        np.testing.assert_array_equal(soft.get_fdata(dtype=np.float32), data.astype(np.float32) / 7)


def test_the_name_may_lie_about_the_compression(tmp_path):
    plain, packed = image_file(tmp_path / "a.nii"), image_file(tmp_path / "b.nii.gz")
    (tmp_path / "c.nii.gz").write_bytes(plain.read_bytes())
    (tmp_path / "d.nii").write_bytes(packed.read_bytes())
    for name in ("c.nii.gz", "d.nii"):
        np.testing.assert_array_equal(read_image(tmp_path / name).voxels, read_image(plain).voxels)


def test_a_case_is_read_onto_one_grid(tmp_path):
    files = make_case(tmp_path / "a", affine=OBLIQUE)
    case = read_case(files, modalities=MODALITIES)
    assert case.case_id == "a"
    assert tuple(case.images) == MODALITIES
    assert case.grid.shape == (6, 7, 5)
    assert case.warnings == ()
    np.testing.assert_array_equal(case.images["t2f"], nib.load(files.images["t2f"]).get_fdata(dtype=np.float32))
    assert case.source_header == gzip.decompress(files.images["t1c"].read_bytes())[:348]
    assert tuple(read_case(files, modalities=("t2f", "t1n")).images) == ("t2f", "t1n")


def test_codes_signed_zeros_and_rounding_do_not_make_grids_differ(tmp_path):
    files = make_case(tmp_path / "a", affine=OBLIQUE)
    data = {m: over_zero(np.random.default_rng(5 + i).random((6, 7, 5))) for i, m in enumerate(MODALITIES)}
    image_file(files.images["t1n"], data["t1n"], OBLIQUE, codes=(1, 0))
    image_file(files.images["t2w"], data["t2w"], OBLIQUE, codes=(0, 2))
    image_file(files.images["t2f"], data["t2f"], np.round(OBLIQUE, 4), codes=(4, 4))
    assert read_case(files, modalities=MODALITIES).warnings == ()
    straight = np.diag([-1.0, -1, 1, 1])
    negative_zeros = np.where(straight == 0, -0.0, straight)
    for modality in MODALITIES:
        image_file(files.images[modality], data[modality], straight if modality == "t1c" else negative_zeros)
    assert read_case(files, modalities=MODALITIES).warnings == ()


def test_a_trailing_dimension_of_one_is_read_and_dropped_when_writing(tmp_path):
    data = np.random.default_rng(0).integers(1, 900, (6, 7, 5, 1)).astype(np.int16)
    image = read_image(image_file(tmp_path / "a.nii.gz", data, OBLIQUE))
    assert image.grid.shape == (6, 7, 5)
    write_label_map(tmp_path / "out.nii.gz", np.ones((6, 7, 5), np.uint8), image.header)
    assert nib.load(tmp_path / "out.nii.gz").shape == (6, 7, 5)


def test_stray_nan_becomes_zero_with_a_warning(tmp_path):
    files = make_case(tmp_path / "a", affine=OBLIQUE)
    data = np.random.default_rng(0).random((6, 7, 5), dtype=np.float32) + 1
    data[0, 0, 0], data[1, 1, 1] = np.nan, -np.inf
    image_file(files.images["t1n"], data, OBLIQUE)
    case = read_case(files, modalities=MODALITIES)
    assert case.images["t1n"][0, 0, 0] == case.images["t1n"][1, 1, 1] == 0
    assert np.isfinite(case.images["t1n"]).all()
    (warning,) = (warning for warning in case.warnings if warning.code == "not-finite")
    assert "2 voxels are NaN or infinite, 0.95%" in warning.what
    data[2, 2, 2] = np.inf
    image_file(files.images["t1n"], data, OBLIQUE)
    with pytest.raises(InputError, match=r"3 voxels are NaN or infinite, 1\.43%"):
        read_case(files, modalities=MODALITIES)


def test_every_problem_of_a_case_is_named_at_once(tmp_path):
    files = make_case(tmp_path / "a", modalities=("t1n", "t1c", "t2f"))
    image_file(files.images["t1n"], np.zeros((6, 7, 5), np.int16))
    files.images["t2f"].write_bytes(b"nonsense")
    with pytest.raises(InputError) as caught:
        read_case(files, modalities=MODALITIES)
    message = str(caught.value)
    for part in (
        "case a",
        "t1n (a-t1n.nii.gz): constant image",
        "t2w is missing",
        "t2f (a-t2f.nii.gz): not a NIfTI file",
    ):
        assert part in message
    assert caught.value.hint
    assert caught.value.exit_code == ExitCode.INPUT


def test_of_two_files_for_a_modality_that_is_read_none_is_chosen_silently(tmp_path):
    files = make_case(tmp_path / "a")
    image_file(tmp_path / "a" / "a-t2w.nii")
    (files,) = discover_cases(tmp_path)
    with pytest.raises(InputError, match=r"t2w exists 2 times: a-t2w\.nii and a-t2w\.nii\.gz"):
        read_case(files, modalities=("t1n", "t1c", "t2w", "t2f"))
    assert set(read_case(files, modalities=("t1n", "t1c", "t2f")).images) == {"t1n", "t1c", "t2f"}


@pytest.mark.parametrize("letter", ["a", "\u00e4"])
def test_the_longest_name_is_written_and_replaced(tmp_path, letter):
    name = letter * (248 // len(letter.encode())) + ".nii.gz"
    for content in (b"first", b"second"):
        write_atomically(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_header_that_claims_the_moon_allocates_nothing(tmp_path):
    """32767^3 voxels of 8 bytes are 256 TiB; and a claim within the limit that the file can't hold is refused too."""
    code = """
import resource, sys
from pathlib import Path
from metseg.files.image import read_image
from metseg.files.header import ImageError
import numpy, nibabel
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
for name in sys.argv[1:]:
    try:
        read_image(Path(name))
    except ImageError as error:
        print(error)
"""
    names = []
    for side in (32767, 500):
        header = nib.Nifti1Header()
        header.set_data_dtype(np.float64)
        header["dim"][:4] = 3, side, side, side
        header["magic"], header["vox_offset"] = b"n+1", 352
        header.set_sform(np.diag([0.1, 0.1, 0.1, 1]), 1)
        for suffix, pack in ((".nii", bytes), (".nii.gz", gzip.compress)):
            names.append(tmp_path / f"{side}{suffix}")
            names[-1].write_bytes(pack(header.binaryblock + bytes(1000)))
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, names)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(metseg.files.atomic.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done
    assert all("claims 32767x32767x32767 voxels" in line for line in lines[:2])
    assert all("truncated: the header promises 500x500x500 float64 voxels" in line for line in lines[2:])


def test_trailing_bytes_after_the_voxels_are_ignored_but_the_checksum_is_not(tmp_path):
    path = image_file(tmp_path / "a.nii.gz")
    content = gzip.decompress(path.read_bytes())
    longer = tmp_path / "longer.nii.gz"
    longer.write_bytes(gzip.compress(content + bytes(100)))
    np.testing.assert_array_equal(read_image(longer).voxels, read_image(path).voxels)
    damaged = bytearray(gzip.compress(content))
    damaged[-5] ^= 1
    longer.write_bytes(damaged)
    with pytest.raises(ImageError, match="corrupt gzip stream"):
        read_image(longer)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.nii.gz")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "a.nii.gz")


def test_the_shape_of_a_broken_file_can_still_be_told(tmp_path):
    path = image_file(tmp_path / "a.nii.gz", affine=OBLIQUE)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(content[:400])
    with pytest.raises(ImageError):
        read_image(path)
    assert read_shape(path) == ((6, 7, 5), content[:348])


# Label maps


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_label_maps_of_whole_numbers_are_read(tmp_path, dtype):
    labels = np.random.default_rng(0).integers(0, 5, (6, 7, 5))
    path = image_file(tmp_path / "a.nii.gz", labels.astype(dtype), OBLIQUE)
    read = read_label_map(path)
    assert read.labels.dtype == np.uint8
    assert read.stored_type == np.dtype(dtype).name
    assert read.header == read_image(path).header
    np.testing.assert_array_equal(read.labels, labels)
    np.testing.assert_array_equal(read.grid.affine, nib.load(path).affine)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.5], "holds 0.5,"),
        ([5, 7], "holds 5, 7,"),
        ([-1], "holds -1,"),
        ([np.nan], "holds nan,"),
        ([256, 259], "256, 259,"),
    ],
)
def test_values_that_are_no_labels_are_listed(tmp_path, values, shown):
    data = np.zeros((6, 7, 5), np.float32)
    data.ravel()[: len(values)] = values
    path = image_file(tmp_path / "a.nii.gz", data)
    with pytest.raises(InputError) as caught:
        read_label_map(path)
    assert shown in str(caught.value)
    assert str(path) in str(caught.value)


def test_other_programs_labels_reach_255(tmp_path):
    labels = np.arange(6 * 7 * 5).reshape(6, 7, 5) % 256
    path = image_file(tmp_path / "a.nii.gz", labels.astype(np.int16))
    np.testing.assert_array_equal(read_label_map(path, highest_label=255).labels, labels)
    with pytest.raises(InputError, match=r"holds 5, 6, 7 and 202 more, expected whole numbers from 0 to 4"):
        read_label_map(path)


@pytest.mark.parametrize("highest_label", [3, 4, 255])
@given(
    voxels=hnp.arrays(
        np.float32, (2, 3, 4), elements=st.integers(-2, 300) | st.floats(width=32, allow_nan=True, allow_infinity=True)
    )
)
def test_a_label_is_a_whole_number_up_to_the_highest(voxels, highest_label):
    voxels[0, 0, 0] = 1
    found = whole_labels(voxels, highest_label)
    whole = np.arange(highest_label + 1)
    is_label = np.isin(voxels, whole)
    with np.errstate(invalid="ignore"):
        distance = np.abs(voxels[..., np.newaxis].astype(np.float64) - whole).min(axis=-1)
    # Nearer to the limit, single precision decides.
    assume(not ((distance > 0.999e-3) & (distance < 1.1e-3)).any())
    is_near = distance <= 1e-3
    np.testing.assert_array_equal(found.labels[is_near], np.rint(voxels[is_near]))
    np.testing.assert_array_equal(found.rounded, np.unique(voxels[is_near & ~is_label]))
    np.testing.assert_array_equal(found.wrong, np.unique(voxels[~is_near]))


def off(change, dtype=np.float32):
    """Labels 0 to 3, some of them off by a little."""
    labels = np.random.default_rng(0).integers(0, 4, (6, 7, 5))
    return labels, change(labels.astype(np.float64)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda v: v * 0.9999999, "0.9999999, 1.9999998, 2.9999998"),
        (lambda v: v + 0.001, "0.001, 1.001, 2.001"),
        (lambda v: v - 0.001, "-0.001, 0.999, 1.999"),
        (lambda v: np.where(v == 1, 1 + 1e-6, v), "1.000001"),
    ],
)
def test_values_near_whole_numbers_are_rounded_with_one_warning(tmp_path, caplog, change, shown, dtype):
    labels, values = off(change, dtype)
    path = image_file(tmp_path / "a.nii.gz", values)
    np.testing.assert_array_equal(read_label_map(path).labels, labels)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"label map {path}: {shown}" in record.getMessage()
    assert "rounded to whole numbers" in record.getMessage()


@pytest.mark.parametrize("change", [lambda v: v + 0.002, lambda v: v / 3, lambda v: v * 3 / 32767, lambda v: v * 1e-9])
def test_values_further_off_and_maps_of_tiny_values_alone_are_refused(tmp_path, change):
    path = image_file(tmp_path / "a.nii.gz", off(change)[1])
    with pytest.raises(InputError, match="expected whole numbers from 0 to 4"):
        read_label_map(path)


def test_a_map_that_is_off_by_the_same_everywhere_may_be_empty(tmp_path):
    path = image_file(tmp_path / "a.nii.gz", np.full((6, 7, 5), 1e-7, np.float32))
    assert not read_label_map(path).labels.any()


def strange_header(rng, path):
    """An image as other programs write them: odd codes, an affine that float32 can't hold, unused fields set."""
    affine = np.eye(4)
    quarter, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine[:3, :3] = quarter * rng.uniform(0.4, 5, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    data = rng.integers(1, 900, (4, 5, 3)).astype(np.int16)
    image_file(path, data, affine, codes=tuple(rng.integers(0, 5, 2)), slope=(float(rng.uniform(0.1, 3)), 4.0))
    raw = bytearray(path.read_bytes())
    layout = nib.nifti1.header_dtype
    header = np.frombuffer(raw[:348], dtype=layout).copy()[0]
    header["pixdim"][1:4] = np.nextafter(header["pixdim"][1:4], np.float32(9))
    header["descrip"], header["intent_name"], header["cal_max"], header["toffset"] = b"strange", b"x", 17.5, 3
    header["xyzt_units"], header["slice_duration"] = rng.integers(0, 30), 1.5
    raw[:348] = header.tobytes()
    path.write_bytes(raw)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_written_header_is_the_references_but_for_the_type(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("header")
    source, target = folder / "t1c.nii", folder / "out.nii"
    strange_header(rng, source)
    image = read_image(source)
    labels = rng.integers(0, 4, image.grid.shape).astype(np.uint8)

    write_label_map(target, labels, image.header)

    layout = nib.nifti1.header_dtype
    before, after = (np.frombuffer(path.read_bytes()[:348], dtype=layout)[0] for path in (source, target))
    for field in layout.names:
        if field not in {"datatype", "bitpix", "scl_slope", "scl_inter", "vox_offset"}:
            assert before[field].tobytes() == after[field].tobytes(), field
    assert (after["datatype"], after["bitpix"], after["scl_slope"], after["scl_inter"]) == (2, 8, 1, 0)
    assert target.read_bytes()[352:] == labels.tobytes(order="F")
    assert voxel_sizes(image.header) == tuple(float(side) for side in before["pixdim"][1:4])
    np.testing.assert_array_equal(np.asarray(nib.load(target).dataobj), labels)


def test_extensions_are_dropped_and_other_readers_agree(tmp_path):
    source = nib.Nifti1Image(np.ones((6, 7, 5), np.int16), OBLIQUE)
    source.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made by X from Y" * 9))
    nib.save(source, tmp_path / "t1c.nii.gz")
    labels = np.random.default_rng(0).integers(0, 4, (6, 7, 5)).astype(np.uint8)
    write_label_map(tmp_path / "out.nii.gz", labels, read_image(tmp_path / "t1c.nii.gz").header)
    assert not nib.load(tmp_path / "out.nii.gz").header.extensions
    t1c, out = (SimpleITK.ReadImage(str(tmp_path / name)) for name in ("t1c.nii.gz", "out.nii.gz"))
    assert out.GetPixelID() == SimpleITK.sitkUInt8
    assert (out.GetSpacing(), out.GetOrigin(), out.GetDirection()) == (
        t1c.GetSpacing(),
        t1c.GetOrigin(),
        t1c.GetDirection(),
    )
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(out).T, labels)


def test_the_same_labels_give_the_same_bytes_in_any_memory_order(tmp_path):
    header = read_image(image_file(tmp_path / "t1c.nii.gz")).header
    labels = np.random.default_rng(0).integers(0, 4, (6, 7, 5)).astype(np.uint8)
    write_label_map(tmp_path / "a.nii.gz", labels, header)
    write_label_map(tmp_path / "another-name.nii.gz", np.asfortranarray(labels), header)
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == (tmp_path / "another-name.nii.gz").read_bytes()
    assert content[:10] == b"\x1f\x8b\x08\x00" + bytes(4) + content[8:10], "no name, no time"


@pytest.mark.parametrize("labels", [np.zeros((6, 7, 5), np.int16), np.zeros((7, 6, 5), np.uint8)])
def test_a_wrong_type_or_shape_is_a_bug_of_the_caller(tmp_path, labels):
    header = read_image(image_file(tmp_path / "t1c.nii.gz")).header
    with pytest.raises(ValueError, match=r"expected uint8|have shape"):
        write_label_map(tmp_path / "a.nii.gz", labels, header)
    assert [path.name for path in tmp_path.iterdir()] == ["t1c.nii.gz"]


# Atomic writing


@pytest.fixture(params=["unnamed", "named"])
def route(request, monkeypatch):
    """Both ways to write: with O_TMPFILE, and as on a file system that lacks it."""
    if request.param == "named":
        monkeypatch.setattr(os, "open", open_without_tmpfile)
    return request.param


def open_without_tmpfile(path, flags, *mode, real_open=os.open, **options):
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE here")
    return real_open(path, flags, *mode, **options)


@pytest.mark.usefixtures("route")
def test_a_file_is_written_and_replaced_and_nothing_else_is_left(tmp_path):
    old_mask = os.umask(0o027)
    try:
        for content in (b"one", b"two" * 1000, b""):
            write_atomically(tmp_path / "a b.nii.gz", content)
            assert [path.name for path in tmp_path.iterdir()] == ["a b.nii.gz"]
            assert (tmp_path / "a b.nii.gz").read_bytes() == content
            assert stat.S_IMODE((tmp_path / "a b.nii.gz").stat().st_mode) == 0o640
    finally:
        os.umask(old_mask)


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EROFS, "Mount the output folder"),
        (errno.EACCES, "or run as the folder's owner"),
        (errno.EIO, ""),
    ],
)
def test_what_cannot_be_written_is_an_output_error_and_leaves_nothing(tmp_path, monkeypatch, number, hint):
    target = tmp_path / "a.nii.gz"
    target.write_bytes(b"old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(metseg.files.atomic.os, "write", fail)
    with pytest.raises(OutputError, match=r"a\.nii\.gz can't be written") as caught:
        write_atomically(target, b"new")
    assert hint in caught.value.hint
    assert caught.value.exit_code == ExitCode.OUTPUT == 6
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
    assert target.read_bytes() == b"old"


@pytest.mark.usefixtures("route")
def test_a_missing_folder_and_a_folder_in_the_files_place(tmp_path):
    with pytest.raises(OutputError, match="can't be written") as caught:
        write_atomically(tmp_path / "gone" / "a.nii.gz", b"x")
    assert caught.value.hint == "Create the output folder first."
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(OutputError):
        write_atomically(tmp_path / "a.nii.gz", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_without_proc_or_tmpfile_the_file_is_written_all_the_same(tmp_path, monkeypatch):
    real_link = os.link

    def no_link(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "no /proc here")

    monkeypatch.setattr(metseg.files.atomic.os, "link", no_link)
    write_atomically(tmp_path / "a", b"1")
    monkeypatch.setattr(metseg.files.atomic.os, "link", real_link)
    monkeypatch.setattr(metseg.files.atomic.os, "open", open_without_tmpfile)
    write_atomically(tmp_path / "b", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}


def test_leftovers_are_removed_but_not_what_somebody_writes_now(tmp_path):
    (tmp_path / ".a.nii.gz.0123abcd.partial").write_bytes(b"left by a killed process")
    (tmp_path / ".b.nii.gz.00000000.partial").write_bytes(b"being written")
    (tmp_path / ".c.partial").write_bytes(b"somebody else's")
    (tmp_path / "d.nii.gz").write_bytes(b"finished")
    with (tmp_path / ".b.nii.gz.00000000.partial").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_partials(tmp_path) == (".a.nii.gz.0123abcd.partial",)
    assert remove_partials(tmp_path) == (".b.nii.gz.00000000.partial",)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.partial", "d.nii.gz"]
    assert remove_partials(tmp_path / "gone") == ()


def test_a_partial_file_taken_away_before_its_lock_is_written_again(tmp_path, monkeypatch):
    """What a second process does that starts between the file's creation and its lock."""
    taken_away, real_flock = [], metseg.files.atomic.fcntl.flock

    def flock(file, operation):
        if operation == fcntl.LOCK_EX and len(taken_away) < 2:
            taken_away.extend(remove_partials(tmp_path))
        real_flock(file, operation)

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(metseg.files.atomic.fcntl, "flock", flock)
    write_atomically(tmp_path / "a", b"new")
    assert len(taken_away) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new"}


def test_a_partial_file_taken_away_again_and_again_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    real_write = os.write

    def write(file, content):
        remove_partials_without_locks(tmp_path)
        return real_write(file, content)

    monkeypatch.setattr(metseg.files.atomic.os, "write", write)
    with pytest.raises(OutputError, match=r"a can't be written: .*taken away again and again"):
        write_atomically(tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def remove_partials_without_locks(folder):
    for path in folder.glob(".*.partial"):
        path.unlink()


def test_a_leftover_is_removed_under_its_lock(tmp_path, monkeypatch):
    """Else its writer could take the lock, and be sure of the file, just before it goes."""
    leftover = tmp_path / ".a.0123abcd.partial"
    leftover.write_bytes(b"left by a killed process")
    locked, real_unlink = [], Path.unlink

    def unlink(path):
        with path.open("rb") as rival:
            try:
                fcntl.flock(rival, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked.append(path)
        real_unlink(path)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert remove_partials(tmp_path) == (leftover.name,)
    assert locked == [leftover]


def test_a_process_killed_while_writing_leaves_no_torn_file(tmp_path):
    """Killed at 12 different moments; what is there afterwards is complete, or a leftover that gets removed."""
    code = """
import errno, os, sys
from pathlib import Path
from metseg.files import atomic
real_open = os.open
def open_without_tmpfile(path, flags, *mode, **options):
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE here")
    return real_open(path, flags, *mode, **options)
if sys.argv[2] == "named":
    os.open = open_without_tmpfile
print("ready", flush=True)
number = 0
while True:
    atomic.write_atomically(Path(sys.argv[1]) / f"{number % 5}.bin", bytes([number % 251]) * 300_000)
    number += 1
"""
    for attempt in range(12):
        route = ("unnamed", "named")[attempt % 2]
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), route],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(metseg.files.atomic.__file__).parents[1])},
        )
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.02 + 0.013 * attempt)
        process.kill()
        process.wait()
        process.stdout.close()
        leftovers = remove_partials(tmp_path)
        assert len(leftovers) <= 1
        assert route == "named" or not leftovers or list(tmp_path.iterdir())
        for path in tmp_path.iterdir():
            content = path.read_bytes()
            assert path.suffix == ".bin"
            assert content == content[:1] * 300_000


REAL_CASES = os.environ.get("METSEG_REAL_CASES")


@pytest.mark.skipif(not REAL_CASES, reason="METSEG_REAL_CASES names no folder of real patients")
def test_real_patients_are_read_and_a_label_map_lies_upon_them(tmp_path):
    cases = discover_cases(Path(REAL_CASES))
    for files in (cases[0], cases[-1]):
        case = read_case(files, modalities=MODALITIES)
        assert case.warnings == ()
        t1c = nib.load(files.images["t1c"])
        np.testing.assert_array_equal(case.images["t1c"], t1c.get_fdata(dtype=np.float32))
        target = tmp_path / f"{files.case_id}.nii.gz"
        write_label_map(target, (case.images["t1c"] > 400).astype(np.uint8), case.source_header)
        header = nib.load(target).header
        differing = {name for name in header if header[name].tobytes() != t1c.header[name].tobytes()}
        assert differing <= {"datatype", "bitpix"}
