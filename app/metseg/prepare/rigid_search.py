"""The search for a rigid transform between two images of one head: Mattes' mutual information on a pyramid.

One start finds the nearest optimum only, so there are several. What is found is checked elsewhere, by other means than
what is maximised here (`registration_check`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.files.case import Scan
from metseg.plan.radiosurgery import RegistrationPlan
from metseg.space.grid import Affine, FloatVolume, Grid

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813 - its usual name

SETTLED: Final = 1e-4
"""A further descent that gains less mutual information than this changes nothing that can be measured."""

LARGEST_FIRST_STEP: Final = 1 / 2
SMALLEST_FIRST_STEP: Final = 1 / 8
"""Of a descent, in voxels of its level."""

MOST_DESCENTS: Final = 12
"""On one level; three to six are usual."""

RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""nibabel's world is RAS, SimpleITK's LPS."""

HINT: Final = "Check that both files show the same patient's head, or register them elsewhere and give one grid."


@dataclass(frozen=True, slots=True)
class _Level:
    """Both images on coarse grids of their own, as SimpleITK has them."""

    moving: "sitk.Image"
    fixed: "sitk.Image"

    @classmethod
    def of(cls, moving: Scan, fixed: FloatVolume, fixed_grid: Grid, side_mm: float) -> "_Level":
        return cls(
            _as_image(*coarsen(moving.voxels, moving.grid, side_mm)), _as_image(*coarsen(fixed, fixed_grid, side_mm))
        )


def search_rigid(moving: Scan, fixed: FloatVolume, fixed_grid: Grid, plan: RegistrationPlan, *, name: str) -> Affine:
    """Finds the transform under which two images tell most of each other.

    Args:
        moving: the image to register.
        fixed: shape `fixed_grid.shape`.
        fixed_grid: where it lies.
        plan: how.
        name: of the moving image, for messages.

    Returns:
        Shape (4, 4): a point of the fixed image's world, in RAS millimetres, to the same point in the moving one's.

    Raises:
        InputError: the search did not converge.
    """
    levels = [_Level.of(moving, fixed, fixed_grid, side_mm) for side_mm in plan.grids_mm]
    try:
        return _search(levels, plan)
    except InputError as error:
        raise InputError(f"{name} could not be registered: {error}", hint=HINT) from None


def mean_move_mm(one: Affine, other: Affine, grid: Grid) -> float:
    """Mean distance between where two transforms take the corners of a grid's inner half: about the brain."""
    corners = [[(side - 1) * share for side, share in zip(grid.shape, place, strict=True)] for place in _INNER]
    points = grid.affine @ np.column_stack([np.array(corners), np.ones(len(corners))]).T
    return float(np.linalg.norm(((one - other) @ points)[:3], axis=0).mean())


_INNER: Final = tuple(product((0.25, 0.75), repeat=3))


def coarsen(volume: FloatVolume, grid: Grid, side_mm: float) -> tuple[FloatVolume, Grid]:
    """Means over blocks of voxels about `side_mm` wide.

    Returns:
        The means, and the grid of the blocks' middles; what is left over at the far ends is dropped.
    """
    factors = [min(max(1, round(side_mm / side)), size) for side, size in zip(grid.spacing_mm, grid.shape, strict=True)]
    sizes = [size // factor for size, factor in zip(grid.shape, factors, strict=True)]
    kept = volume[tuple(slice(size * factor) for size, factor in zip(sizes, factors, strict=True))]
    for axis, (size, factor) in enumerate(zip(sizes, factors, strict=True)):
        kept = kept.reshape(*kept.shape[:axis], size, factor, *kept.shape[axis + 1 :]).mean(axis + 1, dtype=np.float32)
    affine = grid.affine @ np.diag([*factors, 1.0])
    affine[:3, 3] = (grid.affine @ np.array([*((factor - 1) / 2 for factor in factors), 1.0]))[:3]
    x, y, z = sizes
    return kept, Grid((x, y, z), affine)


def _as_image(volume: FloatVolume, grid: Grid) -> "sitk.Image":
    import SimpleITK as sitk  # noqa: N813, PLC0415 - heavy

    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.transpose(2, 1, 0)))
    affine = RAS_TO_LPS @ grid.affine
    spacing = np.array(grid.spacing_mm)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(_nearest_rotation(affine[:3, :3] / spacing).reshape(-1).tolist())
    return image


def _nearest_rotation(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Headers store rounded cosines; SimpleITK wants exactly orthogonal ones."""
    left, _, right = np.linalg.svd(axes)
    rotation: NDArray[np.float64] = left @ right
    return rotation


def _search(levels: Sequence[_Level], plan: RegistrationPlan) -> Affine:
    """Descends from every start on the coarsest level, then from the best on every level until it is settled."""
    coarse = levels[0]
    attempts = [_descend(coarse, start, plan, share=1.0) for start in _starts(coarse, plan)]
    finished = [attempt for attempt in attempts if math.isfinite(attempt[0])]
    if not finished:
        raise InputError("no start had enough of both heads in common")
    _, transform = min(finished, key=lambda attempt: attempt[0])
    for level in levels:
        value, transform = _settle(level, transform, plan, share=1.0 if level is coarse else plan.sample_share)
        if not math.isfinite(value):
            raise InputError("the search left both heads")
    return _as_matrix(transform)


def _settle(level: _Level, start: Any, plan: RegistrationPlan, *, share: float) -> tuple[float, Any]:
    """Descends anew from the best place so far, with smaller first steps where large ones gain nothing.

    A descent halves its steps whenever the gradient turns. In a narrow valley, which a rotation and a shift make
    together, its first steps can leave the floor and its last ones be too small to come back: that it ended does not
    say that it converged.

    Returns:
        The best place's metric and transform; the metric is infinite where the images lost each other.
    """
    best = (_metric_at(level, start, plan, share=share), start)
    first_step = LARGEST_FIRST_STEP
    for _ in range(MOST_DESCENTS):
        following = _descend(level, best[1], plan, share=share, first_step=first_step)
        gain = best[0] - following[0]
        if gain > 0:
            best = following
        if not gain > SETTLED:
            first_step /= 2
        if first_step < SMALLEST_FIRST_STEP:
            break
    return best


def _starts(level: _Level, plan: RegistrationPlan) -> list[Any]:
    """The files' own coordinates, and the heads' middles upon each other, plain and turned."""
    import SimpleITK as sitk  # noqa: N813, PLC0415 - heavy

    middle = level.fixed.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2 for side in level.fixed.GetSize()])
    own = sitk.Euler3DTransform()
    own.SetCenter(middle)
    starts = [own]
    shift = np.array(_middle_of_head(level.moving)) - np.array(_middle_of_head(level.fixed))
    turns = {(0.0, 0.0, 0.0)}
    if plan.start_degrees:
        angle = math.radians(plan.start_degrees)
        turns |= {(sign * angle, 0.0, 0.0) for sign in (-1, 1)}
        turns |= {(0.0, sign * angle, 0.0) for sign in (-1, 1)}
        turns |= {(0.0, 0.0, sign * angle) for sign in (-1, 1)}
    for turn in sorted(turns):
        start = sitk.Euler3DTransform()
        start.SetCenter(middle)
        start.SetRotation(*turn)
        start.SetTranslation(shift.tolist())
        starts.append(start)
    return starts


def _middle_of_head(image: "sitk.Image") -> tuple[float, ...]:
    """Middle of the box of what is brighter than the background."""
    import SimpleITK as sitk  # noqa: N813, PLC0415 - heavy

    voxels = sitk.GetArrayViewFromImage(image)
    low, high = np.percentile(voxels, (5, 95))
    places = np.nonzero(voxels > low + 0.2 * (high - low))
    ends = [np.percentile(axis, (2, 98)) for axis in reversed(places)]
    middle: tuple[float, ...] = image.TransformContinuousIndexToPhysicalPoint([float(end.mean()) for end in ends])
    return middle


def _descend(
    level: _Level, start: Any, plan: RegistrationPlan, *, share: float, first_step: float = LARGEST_FIRST_STEP
) -> tuple[float, Any]:
    """One gradient descent, whose first step is that many voxels long.

    Returns:
        The metric (the lower, the better; infinite where the images lost each other) and the transform.
    """
    import SimpleITK as sitk  # noqa: N813, PLC0415 - heavy

    method = _method(plan, share)
    side_mm = min(level.fixed.GetSpacing())
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=side_mm * first_step,
        minStep=side_mm / 200,
        numberOfIterations=plan.max_iterations,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = sitk.Euler3DTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(level.fixed, level.moving)
    except RuntimeError:  # too few samples fall into the moving image
        return math.inf, transform
    return _metric_at(level, transform, plan, share=share), transform  # the optimiser's own is that of the step before


def _metric_at(level: _Level, transform: Any, plan: RegistrationPlan, *, share: float) -> float:
    """The metric of a transform; infinite where too few samples fall into the moving image."""
    method = _method(plan, share)
    method.SetInitialTransform(transform)
    try:
        return float(method.MetricEvaluate(level.fixed, level.moving))
    except RuntimeError:
        return math.inf


def _method(plan: RegistrationPlan, share: float) -> Any:
    """Mattes' mutual information over a share of the voxels, the same ones each time."""
    import SimpleITK as sitk  # noqa: N813, PLC0415 - heavy

    method = sitk.ImageRegistrationMethod()
    method.SetGlobalDefaultNumberOfThreads(1)  # sums in another order would be another transform
    method.SetMetricAsMattesMutualInformation(plan.bins)
    if share < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, plan.sampling_seed)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _as_matrix(transform: Any) -> Affine:
    """SimpleITK's transform as a matrix on RAS points."""
    rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = centre + np.array(transform.GetTranslation()) - rotation @ centre
    turned: Affine = RAS_TO_LPS @ matrix @ RAS_TO_LPS
    return turned
