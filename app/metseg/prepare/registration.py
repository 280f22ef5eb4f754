"""Rigid registration of a planning CT to the MR: which point of the CT belongs to which point of the MR.

SimpleITK maximises Mattes' mutual information on a pyramid, from several starts, because one start finds the nearest
optimum only. What it found is then checked by other means than what it maximised: enough of the head must lie in both
fields of view, and inside the skull the two images must tell of each other more than they do when one is shifted.
Another patient's head fits from outside; its ventricles and sulci don't.
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
from metseg.space.grid import Affine, FloatVolume, Grid, grid_difference

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813 - its usual name

HEAD_HU: Final = -300.0
"""Skin and everything denser lies above, air and its noise below."""

BONE_HU: Final = 250.0
"""The skull lies above: its thinnest parts are blurred by thick slices, but contrast agent stays below."""

CHECK_BINS: Final = 12
"""Of the joint histogram inside the skull. Few: chance alone gives (bins - 1)^2 / (2 voxels) nats."""

SURROUNDINGS: Final = 3
"""Sides of what a voxel's detail is compared with, in shifts of the check: about 24 mm, a ventricle's width."""

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

Matrix = tuple[tuple[float, float, float, float], ...]
Ball = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a CT lies with regard to the MR.

    Attributes:
        matrix: 4 rows: a point of the MR in RAS millimetres, times this, is the same point of the patient in the CT's.
        is_identity: whether the files' own coordinates were kept.
        shift_mm: how far that moves the MR's centre.
        rotation_degrees: by how much it turns.
        overlap: share of the MR's head inside the CT's field of view.
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


def register(ct: Scan, mr: FloatVolume, mr_grid: Grid, plan: RegistrationPlan) -> Registration:
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
    pairs = [_Level.of(clipped, mr, mr_grid, side_mm) for side_mm in plan.grids_mm]
    start = np.eye(4)
    found = _search(pairs, plan)
    if not grid_difference(ct.grid, mr_grid) and _mean_move_mm(found, start, pairs[0]) <= plan.identity_mm:
        found = start
    overlap, gain = _inside(ct, mr, mr_grid, found, plan)
    result = _describe(found, mr_grid, overlap, gain)
    _believe(result, plan)
    return result


def _believe(result: Registration, plan: RegistrationPlan) -> None:
    if result.overlap < plan.smallest_overlap:
        raise InputError(
            f"ct could not be registered: {result.overlap:.0%} of the MR's head lies inside the CT's field of view, "
            f"expected {plan.smallest_overlap:.0%}",
            hint=HINT,
        )
    if not result.gain >= plan.smallest_gain:
        raise InputError(
            f"ct could not be registered: inside the skull the images tell of each other {result.gain:+.0%} against "
            f"shifted ones, expected {plan.smallest_gain:+.0%} at least",
            hint=HINT,
        )


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


# ---- the search


@dataclass(frozen=True, slots=True)
class _Level:
    """Both images on coarse grids of their own, as SimpleITK has them."""

    ct: "sitk.Image"
    mr: "sitk.Image"

    @classmethod
    def of(cls, ct: Scan, mr: FloatVolume, mr_grid: Grid, side_mm: float) -> "_Level":
        return cls(_as_image(*coarsen(ct.voxels, ct.grid, side_mm)), _as_image(*coarsen(mr, mr_grid, side_mm)))


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
        raise InputError("ct could not be registered: no start had enough of both heads in common", hint=HINT)
    _, transform = min(finished, key=lambda attempt: attempt[0])
    for level in levels:
        value, transform = _settle(level, transform, plan, share=1.0 if level is coarse else plan.sample_share)
        if not math.isfinite(value):
            raise InputError("ct could not be registered: the search left both heads", hint=HINT)
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

    middle = level.mr.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2 for side in level.mr.GetSize()])
    own = sitk.Euler3DTransform()
    own.SetCenter(middle)
    starts = [own]
    shift = np.array(_middle_of_head(level.ct)) - np.array(_middle_of_head(level.mr))
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
    side_mm = min(level.mr.GetSpacing())
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
        method.Execute(level.mr, level.ct)
    except RuntimeError:  # too few samples fall into the CT
        return math.inf, transform
    return _metric_at(level, transform, plan, share=share), transform  # the optimiser's own is that of the step before


def _metric_at(level: _Level, transform: Any, plan: RegistrationPlan, *, share: float) -> float:
    """The metric of a transform; infinite where too few samples fall into the CT."""
    method = _method(plan, share)
    method.SetInitialTransform(transform)
    try:
        return float(method.MetricEvaluate(level.mr, level.ct))
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


def _mean_move_mm(one: Affine, other: Affine, level: _Level) -> float:
    """Mean distance between where two transforms take the corners of the MR's inner half: about the brain."""
    size = np.array(level.mr.GetSize())
    corners = [
        level.mr.TransformContinuousIndexToPhysicalPoint([float(c) for c in (size - 1) * np.array(place)])
        for place in product((0.25, 0.75), repeat=3)
    ]
    points = RAS_TO_LPS @ np.column_stack([np.array(corners), np.ones(len(corners))]).T
    return float(np.linalg.norm(((one - other) @ points)[:3], axis=0).mean())


# ---- the check


def _inside(ct: Scan, mr: FloatVolume, mr_grid: Grid, found: Affine, plan: RegistrationPlan) -> tuple[float, float]:
    """Share of the MR's head inside the CT's field of view, and the gain inside the skull (see Registration)."""
    from scipy import ndimage  # noqa: PLC0415 - heavy

    ct_small, ct_grid = coarsen(ct.voxels, ct.grid, plan.check_grid_mm)
    mr_small, small_grid = coarsen(mr, mr_grid, plan.check_grid_mm)
    head = mr_small > np.percentile(mr_small, 5) + 0.1 * (np.percentile(mr_small, 98) - np.percentile(mr_small, 5))
    points = np.argwhere(head).T
    if not points.size:
        return 0.0, 0.0
    to_ct = np.linalg.inv(ct_grid.affine) @ found @ small_grid.affine
    places = to_ct[:3, :3] @ points + to_ct[:3, 3:]
    limits = np.array(ct_grid.shape)[:, None] - 1
    overlap = float(((places >= 0) & (places <= limits)).all(axis=0).mean())

    cavity = skull_cavity(ct_small)
    voxels = np.argwhere(cavity).T
    if voxels.shape[1] < CHECK_BINS**2:
        return overlap, 0.0
    width = tuple(max(3, round(SURROUNDINGS * plan.check_shift_mm / side)) for side in ct_grid.spacing_mm)
    seen = local_detail(ct_small, cavity, width)
    to_mr = np.linalg.inv(small_grid.affine) @ np.linalg.inv(found) @ ct_grid.affine
    own = to_mr[:3, :3] @ voxels + to_mr[:3, 3:]
    step = plan.check_shift_mm / np.array(small_grid.spacing_mm)
    shifts = [np.zeros(3), *(sign * step * np.eye(3)[axis] for axis, sign in product(range(3), (-1, 1)))]
    values = []
    for shift in shifts:
        sampled = np.zeros(cavity.shape, dtype=np.float32)
        sampled[cavity] = ndimage.map_coordinates(mr_small, own + shift[:, None], order=1, mode="nearest")
        values.append(mutual_information(seen, local_detail(sampled, cavity, width)))
    around = float(np.mean(values[1:]))
    return overlap, values[0] / around - 1 if around > 0 else 0.0


def local_detail(volume: FloatVolume, mask: Ball, width: tuple[int, ...]) -> NDArray[np.float32]:
    """What differs from the mean of its surroundings: cupping and coil shading follow the head's shape in any patient.

    Args:
        volume: shape (x, y, z).
        mask: same shape: what counts, as a voxel and as surroundings.
        width: sides of the surroundings, voxels.

    Returns:
        Shape (voxels of the mask,).
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    share = ndimage.uniform_filter(mask.astype(np.float32), width)
    mean = ndimage.uniform_filter(np.where(mask, volume, 0).astype(np.float32), width)[mask] / share[mask]
    return np.asarray(volume[mask] - mean, dtype=np.float32)


def skull_cavity(hounsfield: FloatVolume) -> Ball:
    """What bone surrounds on most sides, without the rim: the brain, in a CT coarsened to a few millimetres.

    A voxel counts when at least five of the six directions along the axes meet bone: the foramen magnum and a field of
    view that ends above the skull base leave one open.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    bone = hounsfield > BONE_HU
    met = np.zeros(bone.shape, dtype=np.uint8)
    for axis in range(3):
        met += np.logical_or.accumulate(bone, axis=axis)
        met += np.flip(np.logical_or.accumulate(np.flip(bone, axis), axis=axis), axis)
    inside = (met >= 5) & ~bone & (hounsfield > HEAD_HU)  # noqa: PLR2004 - of six
    return np.asarray(ndimage.binary_erosion(ndimage.binary_opening(inside), iterations=2))


def mutual_information(one: NDArray[np.float32], other: NDArray[np.float32], bins: int = CHECK_BINS) -> float:
    """Mutual information of two samples in nats, by ranks: each bin of either holds equally many values.

    Args:
        one: shape (n,).
        other: shape (n,).
        bins: of each.
    """
    codes = [_equal_bins(values, bins) for values in (one, other)]
    joint = np.bincount(codes[0] * bins + codes[1], minlength=bins * bins).reshape(bins, bins) / one.size
    expected = joint.sum(axis=1, keepdims=True) @ joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / expected[filled])).sum())


def _equal_bins(values: NDArray[np.float32], bins: int) -> NDArray[np.intp]:
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")
