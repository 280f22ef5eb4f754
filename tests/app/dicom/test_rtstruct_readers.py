"""RT Structure Sets as two independent readers see them: plastimatch, and DicomRTTool, which fills with OpenCV."""

import shutil
import subprocess

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from scipy.spatial.transform import Rotation

from metseg.__main__ import run
from metseg.errors import ExitCode
from metseg.space.components import find_components
from rtstruct_support import DIRECTIONS, STRAIGHT, dice, read_back, write_map, write_volume

READERS = ["plastimatch", "dicomrttool"]


def draw_lesions(volume):
    """Label map with what is hard to draw: a shell in several slices, one voxel, two by a corner, oedema alone."""
    labels = np.zeros(volume.shape, dtype=np.uint8)
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    index = np.indices(volume.shape).transpose(1, 2, 3, 0)
    away = np.linalg.norm((index - (12, 12, 10)) * spacing, axis=-1)
    for label, radius in ((2, 8), (3, 6), (4, 3.4)):
        labels[away < radius] = label
    labels[np.linalg.norm((index - (30, 12, 14)) * spacing, axis=-1) < 4] = 1
    labels[30, 30, 20] = 3
    labels[5, 30, 3] = labels[6, 31, 3] = 3
    labels[25:27, 30:33, 5:7] = 2
    return labels


def export(tmp_path, label_map, volume, *options):
    path = tmp_path / "rtstruct.dcm"
    inputs = [f"--label-map={label_map}", f"--dicom-series={volume.folder}", f"--output={path}"]
    assert run(["export-dicom", "--format=rtstruct", *inputs, *options]) == ExitCode.DONE
    return path


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("reader", READERS)
def test_every_voxel_reads_back_on_the_series_of_the_label_map(tmp_path, reader, direction):
    volume = write_volume(tmp_path / "series", DIRECTIONS[direction], (40, 36, 24), (0.9, 0.7, 1.5))
    labels = draw_lesions(volume)
    structures = export(tmp_path, write_map(tmp_path / "c.nii.gz", labels, volume), volume, "--labels=brats2025")
    found = read_back(reader, structures, volume, tmp_path)
    assert [name.split()[0] for name in found] == ["GTV01", "GTV02", "OED03", "GTV04", "GTV05"]
    gtv = np.logical_or.reduce([mask for name, mask in found.items() if name.startswith("GTV")])
    np.testing.assert_array_equal(gtv, (labels == 1) | (labels == 3))
    sizes = [int(mask.sum()) for mask in found.values()]
    assert sizes == [(labels == 3).sum() - 3, (labels == 1).sum(), 12, 2, 1]


@pytest.mark.parametrize("reader", READERS)
def test_a_set_without_lesion_reads_as_one_empty_structure(tmp_path, reader):
    volume = write_volume(tmp_path / "series", STRAIGHT, (12, 10, 6), (0.9, 0.7, 1.5))
    label_map = write_map(tmp_path / "c.nii.gz", np.zeros(volume.shape, dtype=np.uint8), volume)
    found = read_back(reader, export(tmp_path, label_map, volume), volume, tmp_path)
    assert not any(mask.any() for mask in found.values())


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_validator_finds_no_error(tmp_path, is_empty):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    volume = write_volume(tmp_path / "series", DIRECTIONS["oblique"], (40, 36, 24), (0.9, 0.7, 1.5))
    labels = draw_lesions(volume) * (not is_empty)
    structures = export(tmp_path, write_map(tmp_path / "c.nii.gz", labels, volume), volume, "--labels=brats2025")
    told = subprocess.run(["dciodvfy", "-new", structures], capture_output=True, text=True, check=False, timeout=60)
    assert "RTStructureSet" in told.stderr + told.stdout
    assert "Error" not in told.stderr + told.stdout


MOTION = Rotation.from_euler("xyz", (6, -9, 4), degrees=True).as_matrix(), np.array([7.0, -4.0, 9.0])
"""From the MR's world to the CT's, in RAS mm."""

ELLIPSOIDS = [  # centre in the MR's RAS mm, radii
    ((-24, -20, -10), (11, 8, 9)),
    ((22, 18, 6), (5.5, 6, 5)),
    ((-20, 22, 12), (4, 3.5, 3.5)),
    ((24, -22, -12), (3.2, 3, 3)),
    ((0, 0, 0), (2.5, 2.5, 2.5)),
    ((4, 26, -6), (1.6, 1.6, 1.6)),
    ((0, -28, 14), (0.6, 0.6, 0.6)),
]


def inside(points, ellipsoid):
    centre, radii = (np.array(part, dtype=float).reshape(3, 1, 1, 1) for part in ellipsoid)
    return (((points - centre) / radii) ** 2).sum(axis=0) <= 1


def motion():
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = MOTION
    return matrix


def carry(mask, volume, ct):
    """A mask on the CT's grid as another program carries it: SimpleITK, at 3 x 3 x 3 places of each voxel."""
    to_mask = np.linalg.inv(volume.affine) @ np.linalg.inv(motion()) @ ct.affine
    first = to_mask[:3, 3] - to_mask[:3, :3] @ np.full(3, 1 / 3)
    transform = sitk.AffineTransform((to_mask[:3, :3] / 3).ravel().tolist(), first.tolist())
    image = sitk.GetImageFromArray(mask.transpose(2, 1, 0).astype(np.float32))
    soft = sitk.GetArrayFromImage(sitk.Resample(image, [3 * side for side in ct.shape], transform, sitk.sitkLinear))
    columns, rows, slices = ct.shape
    return soft.transpose(2, 1, 0).reshape(columns, 3, rows, 3, slices, 3).mean(axis=(1, 3, 5)) >= 0.5


@pytest.mark.parametrize("reader", READERS)
def test_lesions_lie_where_they_are_on_a_planning_ct_behind_a_motion(tmp_path, reader):
    mr = write_volume(tmp_path / "mr", DIRECTIONS["oblique"], (96, 96, 60), (0.8, 0.8, 1.0))
    ct = write_volume(tmp_path / "ct", STRAIGHT, (120, 120, 80), (0.7, 0.7, 1.0), centre=(-7, 4, 9), modality="CT")
    labels = np.zeros(mr.shape, dtype=np.uint8)
    for ellipsoid in ELLIPSOIDS:
        labels[inside(mr.points(), ellipsoid)] = 3
    np.savetxt(tmp_path / "motion.txt", motion())
    label_map = write_map(tmp_path / "c.nii.gz", labels, mr)
    structures = export(tmp_path, label_map, ct, f"--registration={tmp_path / 'motion.txt'}")
    found = list(read_back(reader, structures, ct, tmp_path).values())

    lesions = find_components(labels > 0)
    assert len(found) == lesions.count == len(ELLIPSOIDS)
    carried = carry(labels > 0, mr, ct)
    rotation, shift = MOTION
    back = (rotation.T @ (ct.points().reshape(3, -1) - shift[:, None])).reshape(3, *ct.shape)
    for number, (mask, ellipsoid) in enumerate(zip(found, ELLIPSOIDS, strict=True)):
        volume_mm3 = lesions.sizes[lesions.largest_first()[number]] * 0.8 * 0.8
        centre = np.array([axis[mask].mean() for axis in back])
        np.testing.assert_allclose(centre, ellipsoid[0], atol=0.3 if volume_mm3 > 10 else 0.8)
        if volume_mm3 > 10:
            assert mask.sum() * 0.7 * 0.7 == pytest.approx(volume_mm3, rel=0.03)
        if volume_mm3 > 100:
            near = inside(back, (ellipsoid[0], np.array(ellipsoid[1]) + 2))
            assert dice(mask, carried & near) > 0.95
            assert dice(mask, inside(back, ellipsoid)) > 0.93
