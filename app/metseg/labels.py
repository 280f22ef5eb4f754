"""Labels and regions: what the numbers of a label map are made of, and how regions become numbers again.

A network predicts regions, one output channel each; a label map holds one label per voxel. Which regions there are, and
which labels belong to each, is data: a bundle's plan lists them (docs/plans.md).

The challenge's labels are 0 background, 1 NETC (non-enhancing tumour core), 2 SNFH (surrounding FLAIR hyperintensity),
3 ET (enhancing tumour) and, in later challenges, 4 RC (resection cavity). Its regions are WT = {1, 2, 3}, TC = {1, 3},
ET = {3} and RC = {4}. Source: Erdur et al. 2023, section 2.1.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

BACKGROUND: Final = 0
METASTASIS: Final = 1
"""The one label of Hu et al. 2019, whose label maps tell no parts of a tumour apart."""
NETC: Final = 1
SNFH: Final = 2
ET: Final = 3
RC: Final = 4

MAX_LABEL: Final = 255
"""Label maps are written as uint8."""

LabelMap = NDArray[np.uint8]
"""Shape (x, y, z)."""

LabelConvention = Literal["brats2021", "brats2025"]
"""What label 4 of a label map means: ET in the challenges up to 2021 (labels 0, 1, 2, 4), RC in those from 2025 on."""

LABELS_OF_CONVENTION: Final[Mapping[LabelConvention, tuple[int, ...]]] = {
    "brats2021": (NETC, SNFH, RC),
    "brats2025": (NETC, SNFH, ET, RC),
}
"""Every label of such a label map."""

RegionMasks = NDArray[np.bool_]
"""Shape (regions, x, y, z), channels in the order of the regions."""


@dataclass(frozen=True, slots=True)
class Region:
    """A set of labels that a network predicts as one channel.

    Attributes:
        name: such as WT.
        labels: that belong to it, in any order.
    """

    name: str
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Regions:
    """The regions of a bundle, in channel order.

    The first ones are nested: each lies inside the one before it and leaves it one label of its own. Any others are
    disjoint: they have one label each, which belongs to no other region.

    Attributes:
        listed: the regions.
    """

    listed: tuple[Region, ...]

    def __post_init__(self) -> None:
        if not self.listed or len(set(self.names)) != len(self.listed):
            raise ValueError(f"regions need different names, at least one, found {list(self.names)}")
        taken = [label for region in self.listed for label in region.labels]
        if any(not 0 < label <= MAX_LABEL for label in taken):
            raise ValueError(f"labels of regions lie in 1..{MAX_LABEL}, found {sorted(set(taken))}")
        for outer, inner in zip(self.nested, self.nested[1:], strict=False):
            if len(set(outer.labels) - set(inner.labels)) != 1:
                raise ValueError(f"region {outer.name} needs one label that {inner.name} has not, found {outer.labels}")
        for region in (self.nested[-1], *self.disjoint):
            if len(set(region.labels)) != 1:
                raise ValueError(f"region {region.name} needs one label of its own, found {region.labels}")
        if self.nested + self.disjoint != self.listed:
            raise ValueError(
                "each region lies inside the one before it, and disjoint ones come last; found "
                + ", ".join(f"{region.name} {list(region.labels)}" for region in self.listed)
            )

    @classmethod
    def of(cls, labels_of: Mapping[str, Iterable[int]]) -> "Regions":
        """From names and labels, in channel order."""
        return cls(tuple(Region(name, tuple(labels)) for name, labels in labels_of.items()))

    def __len__(self) -> int:
        return len(self.listed)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.listed)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the regions, in channel order."""
        return tuple(region.name for region in self.listed)

    @cached_property
    def nested(self) -> tuple[Region, ...]:
        """The regions that lie inside one another, the largest first."""
        chain = [self.listed[0]]
        for region in self.listed[1:]:
            if set(region.labels) < set(chain[-1].labels):
                chain.append(region)
        return tuple(chain)

    @cached_property
    def disjoint(self) -> tuple[Region, ...]:
        """The regions that share no label with another."""
        nested = set(self.listed[0].labels)
        return tuple(region for region in self.listed[1:] if not nested & set(region.labels))

    @property
    def whole(self) -> Region:
        """The largest nested region: a lesion is a 26-connected component of it."""
        return self.nested[0]

    @property
    def core(self) -> Region:
        """The next one inside it, or itself where there is no other: what diameters are measured on."""
        return self.nested[min(1, len(self.nested) - 1)]

    @property
    def innermost(self) -> Region:
        """The smallest nested region."""
        return self.nested[-1]

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Every label of some region, ascending."""
        return tuple(sorted({label for region in self.listed for label in region.labels}))

    def mask(self, labels: NDArray[np.uint8], region: Region) -> NDArray[np.bool_]:
        """Where a label map shows a region; any shape."""
        first, *others = region.labels
        found: NDArray[np.bool_] = labels == first
        for label in others:
            found |= labels == label
        return found

    def whole_mask(self, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Where a label map shows any part of a lesion; any shape."""
        return self.mask(labels, self.whole)

    def split(self, labels: NDArray[np.uint8]) -> RegionMasks:
        """Splits a label map into its regions.

        Args:
            labels: any shape; labels that belong to no region become background.

        Returns:
            Shape (regions, *labels.shape).
        """
        member_of = np.zeros((len(self.listed), MAX_LABEL + 1), dtype=np.bool_)
        for channel, region in enumerate(self.listed):
            member_of[channel, list(region.labels)] = True
        return np.stack([row[labels] for row in member_of])

    def decode(self, masks: RegionMasks) -> LabelMap:
        """Turns region masks into one label map.

        Nested regions from the inside out: a voxel of the outer region that is not in the next inner one takes the
        label of its own, so an ET voxel outside TC but inside WT ends as SNFH (after the authors' AURORA tool). A
        disjoint region then takes its voxels, except where the core is.

        Args:
            masks: shape (regions, x, y, z).

        Returns:
            Shape (x, y, z).
        """
        channel_of = {region.name: masks[channel] for channel, region in enumerate(self.listed)}
        labels = np.zeros(masks.shape[1:], dtype=np.uint8)
        labels[channel_of[self.innermost.name]] = self.innermost.labels[0]
        for outer, inner in reversed(list(zip(self.nested, self.nested[1:], strict=False))):
            (own,) = set(outer.labels) - set(inner.labels)
            labels[channel_of[outer.name] & ~channel_of[inner.name]] = own
        for region in self.disjoint:
            free = channel_of[region.name]
            labels[free & ~channel_of[self.core.name] if len(self.nested) > 1 else free] = region.labels[0]
        return labels


BRATS_REGIONS: Final = Regions.of({"WT": (NETC, SNFH, ET), "TC": (NETC, ET), "ET": (ET,)})
"""The regions of the challenges up to 2024, and of label maps whose bundle nobody knows."""

METASTASIS_REGIONS: Final = Regions.of({"metastasis": (METASTASIS,)})
"""The one region of Hu et al. 2019."""


def tells_et_from_rc(regions: Iterable[Region]) -> bool:
    """Whether it matters to these regions which of the two a label 4 means."""
    return any((ET in region.labels) != (RC in region.labels) for region in regions)


def settles_rc(labels: LabelMap) -> bool:
    """Whether a label map says what 4 means in the maps of its source: it holds a 3, or labels of no challenge."""
    return bool(((labels == ET) | (labels > RC)).any())


def follow_convention(labels: LabelMap, convention: LabelConvention | None) -> LabelMap:
    """A label map in today's labels, in which 3 is ET and 4 is RC.

    Args:
        labels: any shape.
        convention: None where it is known that 4 is RC.

    Returns:
        The same array where nothing changes.

    Raises:
        ValueError: the map holds 3 beside 4, and the convention has no 3.
    """
    if convention != "brats2021" or not (is_rc := labels == RC).any():
        return labels
    if (labels == ET).any():
        raise ValueError(f"holds labels {ET} and {RC}, but brats2021 has no {ET}")
    followed = labels.copy(order="K")
    followed[is_rc] = ET
    return followed
