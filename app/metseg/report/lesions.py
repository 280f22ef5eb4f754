"""The lesions of a label map, measured. A lesion is a 26-connected component of the whole region, such as WT."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.decide.agreement import LesionAgreement, lesion_agreement
from metseg.findings import is_low
from metseg.labels import MAX_LABEL, LabelMap, Regions
from metseg.report.brain_edge import find_outside, find_touching
from metseg.report.diameters import find_axial_axis, measure_3d_diameter_mm, measure_axial_diameter
from metseg.space.components import Components, find_components
from metseg.space.grid import FloatVolume, Grid

MEASURABLE_MM: Final = 10.0
"""RANO-BM (Lin et al., Lancet Oncology 2015): a lesion is measurable from this longest axial diameter on."""

Index = tuple[int, int, int]
Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion.

    Voxel indices start at 0 and follow the file's axes; millimetres are RAS+ world coordinates. A box in millimetres
    holds the voxels whole, one in voxels names the first and the last.

    Attributes:
        number: place of the lesion in the case, from 1, by volume, the largest first; equal ones in scanning order.
        voxels: of the whole lesion.
        volume_mm3: of the whole lesion.
        part_volumes_mm3: volume of each region inside the lesion by the region's name, such as TC and ET; empty where
            lesions have no parts.
        cores: 26-connected components of the core in the lesion: several where metastases share one oedema.
        longest_axial_diameter_mm: of the core for which it is longest, in the plane of an axial slice; the oedema
            around it does not count, as in RANO-BM. None for a lesion without core.
        longest_3d_diameter_mm: the same in any direction.
        centroid_voxel: mean of the voxels' indices.
        centroid_ras_mm: the same point in space; of a ring it lies outside.
        inside_ras_mm: centre of the lesion's voxel nearest to the centroid: where to look for the lesion.
        box_first_voxel: smallest index along each axis.
        box_last_voxel: largest index along each axis.
        box_min_ras_mm: smallest coordinate along R, A, S.
        box_max_ras_mm: largest coordinate along R, A, S.
        axial_slice: index of the axial slice with the longest diameter; of a lesion without core, of the largest slice.
        at_brain_edge: whether the lesion touches the background around the brain; None when no image tells.
        finders: members that call a voxel of the lesion tumour; None when the members are not known.
        vote_share: mean share of members that call the lesion's voxels tumour, 0..1; None when they are not known.
        entropy_bits: mean entropy of the members' votes, 0..1; None when they are not known.
        mean_probability: mean over the lesion's voxels and the members of the whole region's probability, 0..1; None
            when the members are not known.
    """

    number: int
    voxels: int
    volume_mm3: float
    part_volumes_mm3: Mapping[str, float]
    cores: int
    longest_axial_diameter_mm: float | None
    longest_3d_diameter_mm: float | None
    centroid_voxel: Point
    centroid_ras_mm: Point
    inside_ras_mm: Point
    box_first_voxel: Index
    box_last_voxel: Index
    box_min_ras_mm: Point
    box_max_ras_mm: Point
    axial_slice: int
    at_brain_edge: bool | None = None
    finders: int | None = None
    vote_share: float | None = None
    entropy_bits: float | None = None
    mean_probability: float | None = None

    @property
    def is_measurable(self) -> bool:
        """Whether RANO-BM would follow it by its diameter."""
        return (self.longest_axial_diameter_mm or 0) >= MEASURABLE_MM

    @property
    def has_low_agreement(self) -> bool:
        """Whether the members agree too little on it; False when they are not known."""
        return is_low(self.vote_share)


@dataclass(frozen=True, slots=True)
class Votes:
    """What the members say, on the label map's grid.

    Attributes:
        member_maps: the label map of each voting member.
        probability: mean of the voting members' probabilities of the whole region, or an added member's where that is
            larger.
        added_maps: the label map of each member that joins by maximum.
    """

    member_maps: tuple[LabelMap, ...]
    probability: FloatVolume
    added_maps: tuple[LabelMap, ...] = ()


def measure_lesions(
    labels: LabelMap, grid: Grid, regions: Regions, *, images: Iterable[FloatVolume] = (), votes: Votes | None = None
) -> tuple[Lesion, ...]:
    """Measures every lesion of a label map.

    Args:
        labels: shape (x, y, z).
        grid: of the labels.
        regions: what the labels are made of; a disjoint region belongs to no lesion.
        images: skull-stripped images on the same grid, which tell where the brain ends; may be none.
        votes: the members' votes, where they are known.

    Returns:
        The lesions by volume, the largest first; none for an empty map.
    """
    components = find_components(regions.whole_mask(labels))
    count = components.sizes.size
    if not count:
        return ()
    shapes = _Shapes(labels, grid, regions, components)
    edges = _find_at_edge(components, tuple(images))
    agreement = lesion_agreement(labels, votes.member_maps, votes.added_maps, regions=regions) if votes else None
    probability = _average_per_lesion(components, votes.probability) if votes else None
    return tuple(
        shapes.measure(
            int(index),
            number,
            at_edge=None if edges is None else bool(edges[index]),
            agreement=None if agreement is None else agreement[index],
            probability=None if probability is None else float(probability[index]),
        )
        for number, index in enumerate(components.largest_first(), start=1)
    )


def measure_regions(labels: LabelMap, grid: Grid, regions: Regions) -> dict[str, float]:
    """Volume of each region of a whole label map by its name, in cubic millimetres."""
    voxels = np.bincount(labels.ravel(order="K"), minlength=MAX_LABEL + 1)
    return {
        region.name: sum(float(voxels[label]) * grid.voxel_volume_mm3 for label in sorted(region.labels))
        for region in regions
    }


class _Shapes:
    """Measures one component after the other."""

    def __init__(self, labels: LabelMap, grid: Grid, regions: Regions, components: Components) -> None:
        self._grid = grid
        self._regions = regions
        order = np.argsort(components.component_of, kind="stable")
        starts = np.cumsum(components.sizes)[:-1]
        self._voxels = [np.stack(np.unravel_index(v, labels.shape)) for v in np.split(components.voxels[order], starts)]
        self._labels = labels

    def measure(
        self,
        index: int,
        number: int,
        *,
        at_edge: bool | None,
        agreement: LesionAgreement | None,
        probability: float | None,
    ) -> Lesion:
        own = self._voxels[index]
        labels = self._labels[tuple(own)]
        first, last = own.min(axis=1), own.max(axis=1)
        is_core = self._regions.mask(labels, self._regions.core)
        diameters = _measure_cores(own[:, is_core] - first[:, None], last - first + 1, self._grid)
        centroid = own.mean(axis=1)
        low, high = self._measure_ras_box(own)
        volume = self._grid.voxel_volume_mm3
        return Lesion(
            number=number,
            voxels=labels.size,
            volume_mm3=labels.size * volume,
            part_volumes_mm3={
                part.name: int(self._regions.mask(labels, part).sum()) * volume for part in self._regions.nested[1:]
            },
            cores=diameters.cores,
            longest_axial_diameter_mm=diameters.axial_mm,
            longest_3d_diameter_mm=diameters.any_mm,
            centroid_voxel=_make_point(centroid),
            centroid_ras_mm=_make_point(self._to_ras(centroid)),
            inside_ras_mm=_make_point(self._to_ras(self._find_nearest(own, centroid))),
            box_first_voxel=_make_index(first),
            box_last_voxel=_make_index(last),
            box_min_ras_mm=_make_point(low),
            box_max_ras_mm=_make_point(high),
            axial_slice=_choose_axial_slice(own, diameters, self._grid),
            at_brain_edge=at_edge,
            finders=agreement.finders if agreement else None,
            vote_share=agreement.vote_share if agreement else None,
            entropy_bits=agreement.entropy_bits if agreement else None,
            mean_probability=probability,
        )

    def _to_ras(self, voxel: NDArray[np.float64]) -> NDArray[np.float64]:
        place: NDArray[np.float64] = self._grid.affine[:3, :3] @ voxel + self._grid.affine[:3, 3]
        return place

    def _find_nearest(self, own: NDArray[np.intp], voxel: NDArray[np.float64]) -> NDArray[np.float64]:
        away_mm = self._grid.affine[:3, :3] @ (own - voxel[:, None])
        return own[:, int((away_mm**2).sum(axis=0).argmin())].astype(np.float64)

    def _measure_ras_box(self, own: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        direction = self._grid.affine[:3, :3]
        centres = direction @ own + self._grid.affine[:3, 3:]
        half = np.abs(direction).sum(axis=1) / 2
        return centres.min(axis=1) - half, centres.max(axis=1) + half


@dataclass(frozen=True, slots=True)
class _CoreDiameters:
    cores: int
    axial_mm: float | None
    any_mm: float | None
    axial_slice: int | None


def _measure_cores(core: NDArray[np.intp], box: NDArray[np.intp], grid: Grid) -> _CoreDiameters:
    """Diameters of the cores of one lesion; `core` holds indices within the lesion's box."""
    from scipy import ndimage  # noqa: PLC0415 - slow to import

    mask = np.zeros(box, dtype=np.bool_)
    mask[tuple(core)] = True
    parts = find_components(mask)
    if not core.size:
        return _CoreDiameters(0, None, None, None)
    axial_mm, any_mm, axial_slice = 0.0, 0.0, None
    volume = parts.to_volume()
    along = find_axial_axis(grid)
    for number, place in enumerate(ndimage.find_objects(volume), start=1):
        part = volume[place] == number
        axial = measure_axial_diameter(part, grid)
        if axial.length_mm > axial_mm:
            axial_mm, axial_slice = axial.length_mm, axial.slice_index + place[along].start
        any_mm = max(any_mm, measure_3d_diameter_mm(part, grid))
    return _CoreDiameters(parts.sizes.size, axial_mm, any_mm, axial_slice)


def _choose_axial_slice(own: NDArray[np.intp], diameters: _CoreDiameters, grid: Grid) -> int:
    along = own[find_axial_axis(grid)]
    if diameters.axial_slice is not None:
        return int(along.min()) + diameters.axial_slice
    return int(along.min()) + int(np.bincount(along - along.min()).argmax())


def _find_at_edge(components: Components, images: Sequence[FloatVolume]) -> NDArray[np.bool_] | None:
    if not images:
        return None
    voxels = np.stack(np.unravel_index(components.voxels, components.shape))
    touching = find_touching(voxels, find_outside(images))
    return np.bincount(components.component_of, weights=touching, minlength=components.sizes.size + 1)[1:] > 0


def _average_per_lesion(components: Components, volume: FloatVolume) -> NDArray[np.float64]:
    values = (
        volume.ravel(order="C")[components.voxels]
        if volume.flags.c_contiguous
        else volume[np.unravel_index(components.voxels, components.shape)]
    )
    sums = np.bincount(components.component_of, weights=values, minlength=components.sizes.size + 1)[1:]
    return np.asarray(sums / components.sizes)


def _make_point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _make_index(values: NDArray[np.intp]) -> Index:
    x, y, z = (int(value) for value in values)
    return x, y, z
