"""The planning CT: the head on a table of its own, a known rigid motion away from the MR."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metseg.space.grid import Affine, Grid
from metseg.systems import AIR_HU
from training.cohort.ct_settings import CtSettings
from training.cohort.fields import Volume, smooth_field, uniform


@dataclass(frozen=True, slots=True)
class PlanningCt:
    """A CT as a file holds it.

    Attributes:
        voxels: shape `grid.shape`, int16 Hounsfield units.
        grid: axes towards left, back, up.
        mr_to_ct: shape (4, 4): a point of the MR in RAS millimetres to the same point of the patient in the CT's.
    """

    voxels: NDArray[np.int16]
    grid: Grid
    mr_to_ct: Affine


def draw_motion(centre: NDArray[np.float64], settings: CtSettings, rng: np.random.Generator) -> Affine:
    """A rigid motion about a point: a turn about a random axis, then a shift in a random direction."""
    axis, direction = (_unit(rng.standard_normal(3)) for _ in range(2))
    angle = np.deg2rad(uniform(rng, settings.rotation_degrees))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    motion = np.eye(4)
    motion[:3, :3] = rotation
    motion[:3, 3] = centre - rotation @ centre + uniform(rng, settings.shift_mm) * direction
    return motion


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit


def acquire_ct(
    hounsfield: Volume,
    shade: Volume,
    grid: Grid,
    settings: CtSettings,
    rng: np.random.Generator,
    *,
    scale: float,
) -> PlanningCt:
    """Takes the CT.

    Args:
        hounsfield: the ideal head on the MR's grid.
        shade: where beam hardening shows (`head.find_cupping`), same shape.
        grid: the MR's.
        settings: distributions.
        rng: source of randomness.
        scale: of the anatomy.
    """
    centre = (grid.affine @ np.array([*((side - 1) / 2 for side in grid.shape), 1]))[:3]
    motion = draw_motion(centre, settings, rng)
    shaded = hounsfield + np.float32(uniform(rng, settings.cupping_hu)) * shade
    shaded += (
        np.float32(uniform(rng, settings.streaks_hu))
        * smooth_field(rng, hounsfield.shape, 30 * scale)
        * (hounsfield > AIR_HU)
    )
    ct_grid = _draw_grid(grid, centre, settings, scale, rng)
    index = np.linalg.inv(grid.affine) @ np.linalg.inv(motion) @ ct_grid.affine
    voxels = ndimage.affine_transform(
        shaded, index[:3, :3], index[:3, 3], ct_grid.shape, np.float32, order=1, mode="constant", cval=AIR_HU
    )
    noise = rng.standard_normal(ct_grid.shape, dtype=np.float32)
    kernel = np.array([0.25, 0.5, 0.25])  # a reconstruction filter's short correlation in plane
    for axis in (0, 1):
        noise = ndimage.correlate1d(noise, kernel, axis=axis, mode="wrap")
    voxels += np.float32(uniform(rng, settings.noise_hu) / np.sum(kernel**2)) * noise
    return PlanningCt(np.rint(np.clip(voxels, -1024, 3071)).astype(np.int16), ct_grid, motion)


def _draw_grid(
    grid: Grid, centre: NDArray[np.float64], settings: CtSettings, scale: float, rng: np.random.Generator
) -> Grid:
    """The CT's grid, LPS on disk, about the head's middle; its slices may miss some of the top and bottom."""
    x_mm, y_mm, z_mm = settings.spacing_mm
    height_mm = grid.shape[2] * grid.spacing_mm[2]
    bottom = uniform(rng, settings.bottom_cut_mm) * scale
    top = uniform(rng, settings.top_cut_mm) * scale
    slices = max(4, int((height_mm - bottom - top) / z_mm))
    side = settings.field_mm * scale
    shape = (int(side / x_mm), int(side / y_mm), slices)
    affine = np.diag([-x_mm, -y_mm, z_mm, 1.0])
    affine[:3, 3] = centre + np.array([x_mm * (shape[0] - 1) / 2, y_mm * (shape[1] - 1) / 2, 0])
    affine[2, 3] = centre[2] - height_mm / 2 + bottom
    return Grid(shape, affine)
