"""Brain extraction: on any grid, plausible or refused, enhancing tumour at the surface kept."""

from dataclasses import replace

import numpy as np
import pytest

from metseg.dicom.brain import BrainNotFoundError, extract_brain, weigh_brain
from metseg.dicom.brain_rim import examine_rim
from metseg.dicom.stripping import brain_from_file
from metseg.errors import InputError
from metseg.files.case import Scan
from metseg.files.header import make_header
from metseg.files.write import write_image
from metseg.predict.brain_networks import load_brain_networks
from metseg.space.grid import Grid
from metseg.space.rigid import resample_rigid
from training.cohort.head_case import generate_head_case
from training.cohort.settings import load_settings

TINY_MM = 2.5
"""The tiny cohort's brains have 0.4 times the size of real ones, at 1 mm."""


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture(scope="module")
def networks():
    return load_brain_networks()


@pytest.fixture(scope="module")
def head():
    """A tiny head on voxels so large that it has the size of a real one."""
    settings = load_settings(size="tiny")
    case = generate_head_case(settings, 11, 0)
    scaled = np.diag([TINY_MM, TINY_MM, TINY_MM, 1]) @ case.grid.affine
    return replace(case, grid=Grid(case.grid.shape, scaled))


def turned(degrees, axis):
    """A rotation about an axis, as an affine."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    angle, affine = np.deg2rad(degrees), np.eye(4)
    affine[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return affine


def grids(head):
    """The same field of view on other grids, by name."""
    fine = head.grid
    half = np.array(fine.shape) * TINY_MM / 2
    oblique = turned(12, 0) @ turned(-9, 2) @ np.diag([1.0, -1.2, 5.0, 1.0])
    shape = (int(2 * half[0] + 20), int((2 * half[1] + 30) / 1.2), int((2 * half[2] + 30) / 5))
    oblique[:3, 3] = -oblique[:3, :3] @ ((np.array(shape) - 1) / 2)
    sagittal = np.zeros((4, 4))
    sagittal[1, 0] = sagittal[2, 1] = -2.0
    sagittal[0, 2], sagittal[3, 3] = 3.0, 1.0
    sides = (int(2 * half[1] / 2), int(2 * half[2] / 2), int(2 * half[0] / 3))
    sagittal[:3, 3] = -sagittal[:3, :3] @ ((np.array(sides) - 1) / 2)
    return {"oblique, 5 mm slices": Grid(shape, oblique), "sagittal, 3 mm slices": Grid(sides, sagittal)}


@pytest.mark.parametrize("modality", ["t1c", "t1n"])
def test_the_brain_is_found_on_its_own_grid(head, networks, modality):
    found = extract_brain(head.images[modality].astype(np.float32), head.grid.affine, networks=networks)
    assert found.mask.shape == head.brain.shape
    assert dice(found.mask, head.brain) > 0.9
    assert found.volume_ml == pytest.approx(found.mask.sum() * TINY_MM**3 / 1000)
    assert found.source == "deepbet 1.0.2"


@pytest.mark.parametrize(("name", "least"), [("oblique, 5 mm slices", 0.87), ("sagittal, 3 mm slices", 0.9)])
def test_any_orientation_and_spacing(head, networks, name, least):
    grid = grids(head)[name]
    moved = resample_rigid(head.images["t1c"].astype(np.float32), head.grid, grid, np.eye(4), outside=0.0)
    brain = resample_rigid(head.brain.astype(np.float32), head.grid, grid, np.eye(4), outside=0.0) > 0.5
    found = extract_brain(moved, grid.affine, networks=networks)
    assert dice(found.mask, brain) > least


def test_bad_voxels_do_not_matter(head, networks):
    image = head.images["t1c"].astype(np.float32)
    expected = extract_brain(image, head.grid.affine, networks=networks)
    image = image.copy()
    image[0, 0, :3] = np.nan, np.inf, -np.inf
    assert np.array_equal(extract_brain(image, head.grid.affine, networks=networks).mask, expected.mask)


@pytest.mark.parametrize("kind", ["constant", "noise", "nothing finite", "a child's toy"])
def test_what_is_no_head_is_refused(head, networks, kind):
    image = np.zeros(head.grid.shape, np.float32)
    affine = head.grid.affine
    if kind == "noise":
        image = np.random.default_rng(0).random(image.shape, dtype=np.float32)
    if kind == "nothing finite":
        image[:] = np.nan
    if kind == "a child's toy":
        image, affine = head.images["t1c"].astype(np.float32), np.diag([1.0, 1.0, 1.0, 1.0])
    with pytest.raises(BrainNotFoundError, match="expected") as caught:
        extract_brain(image, affine, networks=networks)
    assert isinstance(caught.value, InputError)
    assert "--brain-mask" in caught.value.hint


def test_a_field_of_view_that_cuts_the_brain_is_said(head, networks):
    image = head.images["t1c"].astype(np.float32)
    top = int(np.flatnonzero(head.brain.any(axis=(0, 1)))[-1])
    found = extract_brain(image[:, :, : top - 14], head.grid.affine, networks=networks)
    assert [item.code for item in found.findings if "cuts the brain" in item.what] == ["brain-mask"]


@pytest.mark.parametrize(("volume_ml", "is_usual"), [(899, False), (901, True), (2099, True), (2101, False)])
def test_a_mask_of_the_callers_own_is_weighed_as_the_networks_are(tmp_path, volume_ml, is_usual):
    mask = np.pad(np.ones((10, 10, 10), np.float32), 1)
    grid = Grid(mask.shape, np.diag([*[volume_ml ** (1 / 3)] * 3, 1.0]))
    write_image(tmp_path / "mask.nii.gz", mask, make_header(grid))
    found = brain_from_file(tmp_path / "mask.nii.gz")(Scan(mask, grid, b""))
    assert np.array_equal(found.mask, mask)
    assert found.findings == weigh_brain(volume_ml)
    assert [item.code for item in found.findings] == ([] if is_usual else ["brain-mask"])


def ball(shape, centre, radius):
    x, y, z = np.ogrid[: shape[0], : shape[1], : shape[2]]
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius**2


@pytest.fixture
def painted():
    """A grey brain of 30 mm radius in skull and scalp, and its mask: image, mask, grid."""
    shape = (90, 90, 90)
    rng = np.random.default_rng(4)
    centre = (45, 45, 45)
    image = np.full(shape, 5, np.float32)
    image[ball(shape, centre, 43)] = 300  # scalp
    image[ball(shape, centre, 38)] = 10  # skull
    brain = ball(shape, centre, 30)
    image[brain] = 100 + 5 * rng.standard_normal(int(brain.sum()))
    return image, brain, Grid(shape, np.diag([-1.0, -1.0, 1.0, 1.0]))


def test_a_tumour_that_the_mask_cuts_joins_it(painted):
    image, brain, grid = painted
    tumour = ball(image.shape, (45, 45, 71), 6)
    image[tumour] = 200
    cut = brain & ~(tumour & ~ball(image.shape, (45, 45, 45), 28))
    grown = examine_rim(image, cut, grid).cut
    lost_before, lost_after = (tumour & ~cut).sum(), (tumour & ~cut & ~grown).sum()
    assert lost_before > 100
    assert lost_after < 0.25 * lost_before
    assert not (grown & ~tumour).sum() > 0.1 * grown.sum()


def test_scalp_skull_and_dura_do_not_join(painted):
    image, brain, grid = painted
    shell = ball(image.shape, (45, 45, 45), 32) & ~brain
    image[shell] = 220  # enhancing dura, 2 mm
    sinus = ball(image.shape, (45, 45, 79), 4)
    image[sinus] = 250  # a venous sinus outside the mask
    assert not examine_rim(image, brain, grid).cut.any()
    leaking = brain | (ball(image.shape, (45, 45, 80), 9) & ball(image.shape, (45, 45, 45), 40))
    grown = examine_rim(image, leaking, grid).cut
    assert grown.sum() < 50


def test_csf_and_bone_are_peeled_off_and_a_dark_tumour_stays(painted):
    image, brain, grid = painted
    loose = ball(image.shape, (45, 45, 45), 32)
    necrosis = ball(image.shape, (45, 45, 68), 5)
    image[ball(image.shape, (45, 45, 68), 7) & brain] = 220
    image[necrosis & brain] = 20
    dark = examine_rim(image, loose, grid).dark
    assert dice(loose & ~dark, brain) > 0.98
    assert not (dark & necrosis).any()
