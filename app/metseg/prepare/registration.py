"""Rigid registration to the contrast T1: of a planning CT, and of other MR sequences.

What the search finds (`rigid_search`) counts only where a check by other means believes it (`registration_check`).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.files.case import Scan
from metseg.plan.radiosurgery import RegistrationPlan
from metseg.prepare.registration_check import HEAD_HU, coarsen_scan, gain_over_shifts, share_of_head, skull_cavity
from metseg.prepare.rigid_search import HINT, mean_move_mm, search_rigid
from metseg.space.grid import Affine, FloatVolume, Grid, grid_difference

HALF: Final = 0.5

DEFAULT_PLAN: Final = RegistrationPlan()
"""Of a CT, where no bundle's plan says another."""

SEQUENCE_PLAN: Final = DEFAULT_PLAN.model_copy(update={"start_degrees": 0.0})
"""Of an MR sequence, first: from the scanner's own coordinates and the heads' middles alone."""

Matrix = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Registration:
    """Where an image lies with regard to the MR.

    Attributes:
        matrix: 4 rows: a point of the MR in RAS millimetres, times this, is the same point of the patient in the
            image's.
        is_identity: whether the files' own coordinates were kept.
        shift_mm: how far that moves the MR's centre.
        rotation_degrees: by how much it turns.
        overlap: share of the MR's head inside the image's field of view.
        gain: mutual information inside the skull over its mean after shifts, minus 1.
    """

    matrix: Matrix
    is_identity: bool
    shift_mm: float
    rotation_degrees: float
    overlap: float
    gain: float

    @property
    def mr_to_ct(self) -> Affine:
        """The matrix as an array, shape (4, 4)."""
        return np.array(self.matrix, dtype=np.float64)


def register(ct: Scan, mr: FloatVolume, mr_grid: Grid, plan: RegistrationPlan = DEFAULT_PLAN) -> Registration:
    """Finds the rigid transform between a patient's CT and MR.

    Args:
        ct: in Hounsfield units.
        mr: shape `mr_grid.shape`, any unit.
        mr_grid: where it lies.
        plan: how.

    Raises:
        InputError: the CT shows no head, the search did not converge, or what it found is not believable.
    """
    head_ml = float((ct.voxels > HEAD_HU).sum()) * ct.grid.voxel_volume_mm3 / 1000
    if head_ml < plan.smallest_head_ml:
        raise InputError(
            f"ct shows {head_ml:.0f} ml above {HEAD_HU:g} HU, expected a head: {plan.smallest_head_ml:g} ml at least",
            hint=HINT,
        )
    clipped = Scan(np.clip(ct.voxels, *plan.window_hu), ct.grid, ct.header)
    found = search_rigid(clipped, mr, mr_grid, plan, name="ct")
    if not grid_difference(ct.grid, mr_grid) and mean_move_mm(found, np.eye(4), mr_grid) <= plan.identity_mm:
        found = np.eye(4)
    small = coarsen_scan(ct.voxels, ct.grid, plan.check_grid_mm)
    mr_small = coarsen_scan(mr, mr_grid, plan.check_grid_mm)
    overlap = share_of_head(mr, mr_grid, small.grid, found, plan.check_grid_mm)
    to_mr: Affine = np.linalg.inv(found).astype(np.float64)
    gain = gain_over_shifts(small, skull_cavity(small.voxels), mr_small, to_mr, plan)
    return _believe(_describe(found, mr_grid, overlap, gain), plan, name="ct")


def register_sequence(
    moving: Scan, source: FloatVolume, source_grid: Grid, brain: NDArray[np.bool_], *, name: str
) -> Registration:
    """Finds the rigid transform between two MR sequences of a patient.

    The first search starts from the scanner's own coordinates, which are right but for the patient's motion. Where the
    check does not believe its result, a second one starts from turned heads too.

    Args:
        moving: the sequence to register, any unit.
        source: the contrast T1, shape `source_grid.shape`.
        source_grid: where it lies.
        brain: same shape: where the two are compared.
        name: of the sequence, for messages.

    Raises:
        InputError: the search did not converge, or what it found is not believable.
    """
    scaled = Scan(_scale(moving.voxels), moving.grid, moving.header)
    fixed = _scale(source)
    try:
        return _try_sequence(scaled, fixed, source_grid, brain, SEQUENCE_PLAN, name=name)
    except InputError:
        return _try_sequence(scaled, fixed, source_grid, brain, DEFAULT_PLAN, name=name)


def _try_sequence(
    moving: Scan, source: FloatVolume, source_grid: Grid, brain: NDArray[np.bool_], plan: RegistrationPlan, *, name: str
) -> Registration:
    from scipy import ndimage  # noqa: PLC0415 - heavy

    found = search_rigid(moving, source, source_grid, plan, name=name)
    small = coarsen_scan(source, source_grid, plan.check_grid_mm)
    other = coarsen_scan(moving.voxels, moving.grid, plan.check_grid_mm)
    mask = coarsen_scan(brain.astype(np.float32), source_grid, plan.check_grid_mm)
    inside = np.asarray(ndimage.binary_erosion(mask.voxels > HALF))
    overlap = share_of_head(source, source_grid, other.grid, found, plan.check_grid_mm)
    gain = gain_over_shifts(small, inside, other, found, plan)
    return _believe(_describe(found, source_grid, overlap, gain), plan, name=name)


def _scale(voxels: FloatVolume) -> FloatVolume:
    """To 0..1 between the lowest value and nearly the highest: vessels and coil flares would take the histogram."""
    low, high = float(voxels.min()), float(np.percentile(voxels, 99.5))
    return np.asarray(np.clip((voxels - low) / max(high - low, 1e-6), 0, 1), dtype=np.float32)


def _believe(result: Registration, plan: RegistrationPlan, *, name: str) -> Registration:
    """The result itself.

    Raises:
        InputError: it is not believable.
    """
    if result.overlap < plan.smallest_overlap:
        raise InputError(
            f"{name} could not be registered: {result.overlap:.0%} of the MR's head lies inside its field of view, "
            f"expected {plan.smallest_overlap:.0%}",
            hint=HINT,
        )
    if not result.gain >= plan.smallest_gain:
        raise InputError(
            f"{name} could not be registered: inside the skull the images tell of each other {result.gain:+.0%} "
            f"against shifted ones, expected {plan.smallest_gain:+.0%} at least",
            hint=HINT,
        )
    return result


def _describe(matrix: Affine, mr_grid: Grid, overlap: float, gain: float) -> Registration:
    centre = mr_grid.affine @ np.array([*((side - 1) / 2 for side in mr_grid.shape), 1])
    cosine = (np.trace(matrix[:3, :3]) - 1) / 2
    return Registration(
        matrix=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in matrix),
        is_identity=bool(np.array_equal(matrix, np.eye(4))),
        shift_mm=float(np.linalg.norm((matrix @ centre - centre)[:3])),
        rotation_degrees=math.degrees(math.acos(min(1.0, max(-1.0, float(cosine))))),
        overlap=overlap,
        gain=gain,
    )
