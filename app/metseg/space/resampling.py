"""Between the grid of a case's files and the network's grid, there and back (docs/geometry.md).

The network's grid has RAS+ axes (the closest, by permuting and flipping array axes: an oblique grid stays oblique) and
1 mm spacing. An axis that has that spacing already is not resampled, so a case on the SRI24 atlas only has its axes
turned. Elsewhere both grids cover the same field of view, with the same centre. Coordinates count voxel centres, not
corners, so half-voxel offsets follow from the spacings.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from metseg.labels import BACKGROUND, LabelMap, RegionMasks, Regions
from metseg.space.components import Box, bounding_box
from metseg.space.grid import FloatVolume, Grid
from metseg.space.sampling import AxisSampling, Positions, sample, sample_mask
from metseg.space.tiny_lesions import restore_lost_lesions

SPACING_TOLERANCE: Final = 1e-3
"""Relative: an axis this close to the network's spacing is taken as it is; over 240 voxels that is a quarter voxel."""

SIZE_SLACK_VOXELS: Final = 0.05
"""A field of view of 220.006 mm gets 220 voxels of 1 mm, not 221."""

HALF: Final = 0.5 - 1e-4
"""Region threshold after interpolation. 0.5 itself counts as inside; the rest is for float32 rounding, so that a
boundary that falls exactly between two voxels is decided alike everywhere."""

Element = TypeVar("Element", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Resampling:
    """The way between a case's source grid and the network's grid.

    Attributes:
        source: grid of the case's files.
        network: grid with RAS+ axes and the network's spacing.
        source_axes: for the axes R, A, S of the network's grid: the source axis that runs along it.
        flipped: whether that source axis runs the other way (L, P, I).
        steps: network voxel side over source voxel side, for the same three axes; exactly 1 where not resampled.
    """

    source: Grid
    network: Grid
    source_axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    steps: tuple[float, float, float]

    @property
    def only_turns(self) -> bool:
        """Whether no axis is resampled: every voxel goes and comes back as it is."""
        turned = tuple(self.source.shape[axis] for axis in self.source_axes)
        return self.steps == (1, 1, 1) and turned == self.network.shape


def find_resampling(
    grid: Grid, spacing_mm: float | tuple[float, float, float] = 1.0, frame: tuple[int, int] | None = None
) -> Resampling:
    """Plans how a case comes to the network's grid and back.

    Args:
        grid: the source grid; its axes don't coincide.
        spacing_mm: the network's voxel side, or its sides along R, A, S.
        frame: the network's voxels along R and A, about the source's centre; None covers the source's field of view.
    """
    from nibabel.orientations import io_orientation  # noqa: PLC0415 - half a second that `--help` and `info` do without

    # Row i: the RAS axis that source axis i is closest to, and its sign. What MONAI's Orientation uses as well.
    orientation = io_orientation(grid.affine)
    x, y, z = (int(axis) for axis in np.argsort(orientation[:, 0]))
    source_axes = (x, y, z)
    flips = [bool(orientation[axis, 1] < 0) for axis in source_axes]
    sizes = np.array([grid.shape[axis] for axis in source_axes])
    spacings = np.array([grid.spacing_mm[axis] for axis in source_axes])
    wanted = np.asarray(spacing_mm, dtype=np.float64)
    kept = np.abs(spacings / wanted - 1) <= SPACING_TOLERANCE
    steps = np.where(kept, 1.0, wanted / spacings)
    network_sizes = np.where(kept, sizes, np.maximum(1, np.ceil(sizes / steps - SIZE_SLACK_VOXELS))).astype(int)
    if frame is not None:
        network_sizes[:2] = frame

    to_source = np.zeros((4, 4))
    to_source[3, 3] = 1
    for axis, source_axis in enumerate(source_axes):
        sign = -1 if flips[axis] else 1
        to_source[source_axis, axis] = sign * steps[axis]
        centre, network_centre = (sizes[axis] - 1) / 2, (network_sizes[axis] - 1) / 2
        to_source[source_axis, 3] = centre - sign * steps[axis] * network_centre
    r, a, s = (int(size) for size in network_sizes)
    return Resampling(
        source=grid,
        network=Grid((r, a, s), grid.affine @ to_source),
        source_axes=source_axes,
        flipped=(flips[0], flips[1], flips[2]),
        steps=(float(steps[0]), float(steps[1]), float(steps[2])),
    )


def to_network(volume: FloatVolume, resampling: Resampling) -> FloatVolume:
    """Brings an image to the network's grid.

    Args:
        volume: shape (x, y, z) of the source grid.
        resampling: see `find_resampling`.

    Returns:
        Shape of the network's grid, C order; linear between source voxel centres, the border's value beyond them.
    """
    if resampling.only_turns:
        return np.ascontiguousarray(_turn(volume, resampling))
    return _move_volume(volume, _to_network(resampling))


def volume_to_source(volume: FloatVolume, resampling: Resampling) -> FloatVolume:
    """Brings a soft volume, such as a region's probabilities, back to the source grid.

    Args:
        volume: shape of the network's grid.
        resampling: see `find_resampling`.

    Returns:
        Shape of the source grid; linear between network voxel centres, 0 outside the network's grid (`_seen`).
    """
    if resampling.only_turns:
        return np.asfortranarray(_turn_back(volume, resampling))
    return _move_volume(volume, _to_source(resampling))


def labels_to_source(labels: LabelMap, resampling: Resampling, regions: Regions) -> LabelMap:
    """Brings a label map back to the source grid, region by region.

    Each region is interpolated linearly and cut at a half; the regions then become labels again (`Regions.decode`). A
    lesion (26-connected component of a region) is lost when the source voxels nearest to its own are all empty. It then
    keeps one voxel, in its region and in every larger region that it lies in, so a coarse grid loses no small lesion.
    Two such lesions within one source voxel become one.

    Where the network's grid covers less than the field of view (a smaller frame), there is nothing outside it. Where it
    covers more, nothing comes back from beyond the field of view.

    Args:
        labels: shape of the network's grid.
        resampling: see `find_resampling`.
        regions: those of the label map.

    Returns:
        Shape of the source grid. Labels that belong to no region become background where axes are resampled.
    """
    if resampling.only_turns:
        return np.asfortranarray(_turn_back(labels, resampling))
    return _move_labels(labels, _to_source(resampling), regions)


def labels_to_network(labels: LabelMap, resampling: Resampling, regions: Regions) -> LabelMap:
    """Brings a reference to the network's grid; the inverse of `labels_to_source`, by the same rules.

    Args:
        labels: shape of the source grid.
        resampling: see `find_resampling`.
        regions: those of the label map.

    Returns:
        Shape of the network's grid. Labels that belong to no region become background where axes are resampled.
    """
    if resampling.only_turns:
        return np.ascontiguousarray(_turn(labels, resampling))
    return _move_labels(labels, _to_network(resampling), regions)


def _turn(volume: NDArray[Element], resampling: Resampling) -> NDArray[Element]:
    """A view with the network's axes, nothing resampled."""
    return volume.transpose(resampling.source_axes)[_flips(resampling)]


def _turn_back(volume: NDArray[Element], resampling: Resampling) -> NDArray[Element]:
    x, y, z = (resampling.source_axes.index(axis) for axis in range(3))
    return volume[_flips(resampling)].transpose(x, y, z)


def _flips(resampling: Resampling) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if flip else 1) for flip in resampling.flipped)


@dataclass(frozen=True, slots=True)
class _Move:
    """One direction of a resampling that interpolates.

    Attributes:
        start: the grid it leaves.
        end: the grid it arrives at.
        samplings: one for each axis of `start`.
        first: for each axis of `start`: the voxel of `end` that its sampling starts at; before and behind it all is 0.
        order: for each axis of `end`: the axis of `start` that runs along it.
    """

    start: Grid
    end: Grid
    samplings: tuple[AxisSampling, ...]
    first: tuple[int, ...]
    order: tuple[int, int, int]

    def part(self, volume: NDArray[np.generic]) -> tuple[FloatVolume, Box]:
        """What can be other than zero at the end, and where it lies there."""
        part, box = sample(volume, self.samplings)
        return part.transpose(self.order), self._at_end(box)

    def mask_part(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Box]:
        """As `part`, cut at a half."""
        part, box = sample_mask(mask, self.samplings, HALF)
        return part.transpose(self.order), self._at_end(box)

    def _at_end(self, box: Box) -> Box:
        shifted = [slice(side.start + first, side.stop + first) for side, first in zip(box, self.first, strict=True)]
        return tuple(shifted[axis] for axis in self.order)


def _to_network(resampling: Resampling) -> _Move:
    axes = [resampling.source_axes.index(source_axis) for source_axis in range(3)]
    positions = [_positions(resampling, axis, towards_network=True) for axis in axes]
    samplings = map(AxisSampling.at, positions, resampling.source.shape)
    return _Move(resampling.source, resampling.network, tuple(samplings), (0, 0, 0), resampling.source_axes)


def _to_source(resampling: Resampling) -> _Move:
    x, y, z = (resampling.source_axes.index(source_axis) for source_axis in range(3))
    positions = [_positions(resampling, axis, towards_network=False) for axis in range(3)]
    seen = list(map(_seen, positions, resampling.network.shape, resampling.steps))
    samplings = [
        AxisSampling.at(along[part], size)
        for along, part, size in zip(positions, seen, resampling.network.shape, strict=True)
    ]
    return _Move(resampling.network, resampling.source, tuple(samplings), tuple(part.start for part in seen), (x, y, z))


def _seen(positions: Positions, size: int, step: float) -> slice:
    """The source voxels that an axis of the network's grid reaches: all of them, unless a frame is smaller.

    It reaches half a voxel beyond its outermost centres, of the source's voxels or its own, whichever is larger: where
    the network's grid covers the field of view that is every source voxel, and the nearest one to any network voxel is
    always among them.

    Args:
        positions: see `_positions`, towards the source.
        size: the axis's voxels.
        step: see `Resampling`.
    """
    half = max(1.0, 1 / step) / 2 + SIZE_SLACK_VOXELS / 2  # the network's grid may end that much before the source's
    reached = np.flatnonzero(np.abs(positions - (size - 1) / 2) <= (size - 1) / 2 + half)
    return slice(int(reached[0]), int(reached[-1]) + 1)


def _positions(resampling: Resampling, axis: int, *, towards_network: bool) -> Positions:
    """Where the voxels of one grid lie in voxels of the other, along one of the network's axes: centre upon centre."""
    source_size, network_size = resampling.source.shape[resampling.source_axes[axis]], resampling.network.shape[axis]
    step = -resampling.steps[axis] if resampling.flipped[axis] else resampling.steps[axis]
    if towards_network:
        return (source_size - 1) / 2 + (np.arange(network_size, dtype=np.float64) - (network_size - 1) / 2) * step
    return (network_size - 1) / 2 + (np.arange(source_size, dtype=np.float64) - (source_size - 1) / 2) / step


def _move_volume(volume: FloatVolume, move: _Move) -> FloatVolume:
    part, box = move.part(volume)
    out = np.zeros(move.end.shape, dtype=np.float32)
    out[box] = part
    return out


def _move_labels(labels: LabelMap, move: _Move, regions: Regions) -> LabelMap:
    """Splits, moves and decodes within boxes: most of a label map is background."""
    out = np.zeros(move.end.shape, dtype=np.uint8, order="F")
    support = bounding_box(labels != BACKGROUND)
    if support is None:
        return out
    masks: RegionMasks = np.zeros((len(regions), *labels.shape), dtype=np.bool_)
    masks[:, *support] = regions.split(labels[support])
    moved: RegionMasks = np.zeros((len(regions), *move.end.shape), dtype=np.bool_)
    boxes = []
    for channel, mask in enumerate(masks):
        part, box = move.mask_part(mask)
        moved[channel][box] = part
        boxes.append(box)
    restored = restore_lost_lesions(moved, move.end, masks, move.start)
    for box in (*boxes, tuple(restored)):
        out[box] = regions.decode(moved[:, *box])
    return out
