"""What tells one system from another, as data.

A system is a kind of case with its own images, labels and words: brain metastases as the BraTS challenge has them, and
planning for radiosurgery (Hu et al. 2019). Everything that differs between them is a field of `System`, and how a case
is prepared (`metseg.prepare`); a third system is one more declaration here. Which regions a bundle predicts is its
plan's business: a plan belongs to the system that knows its regions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from metseg.labels import (
    BACKGROUND,
    BRATS_REGIONS,
    ET,
    METASTASIS,
    METASTASIS_REGIONS,
    NETC,
    RC,
    SNFH,
    LabelMap,
    Region,
    Regions,
)

Modality = Literal["t1n", "t1c", "t2w", "t2f", "ct"]

MODALITIES: Final[tuple[Modality, ...]] = ("t1n", "t1c", "t2w", "t2f")
"""The challenge's four sequences."""

MODALITY_ALIASES: Final[Mapping[str, Modality]] = {
    "t1": "t1n",
    "t1w": "t1n",
    "t1ce": "t1c",
    "t1gd": "t1c",
    "t2": "t2w",
    "flair": "t2f",
}
"""Other names of the sequences in files, as in the challenge's data up to 2022; in lower case."""

SOURCE_MODALITY: Final[Modality] = "t1c"
"""The source image: the modality whose grid and header a label map takes, and whose grid the others must have."""

OWN_GRID: Final[frozenset[Modality]] = frozenset({"ct"})
"""Modalities of another scanner: their grid is their own, and registration brings them to the source image's."""

AIR_HU: Final = -1000.0
"""Outside a CT's field of view, in Hounsfield units."""

SystemName = Literal["brats", "radiosurgery"]

LabelGrid = Literal["t1c", "ct"]
"""The image whose grid a label map takes: the source image, or the planning CT."""


@dataclass(frozen=True, slots=True)
class LabelKind:
    """What one label of a label map means.

    Attributes:
        name: in tables and `run.json`.
        legend: in the viewer.
        colour: there.
        dicom_name: of its segment in a DICOM Segmentation.
        dicom_code: value, scheme and meaning, among those that the standard proposes (CID 7151, 7159).
    """

    name: str
    legend: str
    colour: str
    dicom_name: str
    dicom_code: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class RegionKind:
    """A region that a system's bundles may predict.

    Attributes:
        region: its name and labels.
        words: what people call the region.
        short: the same in one word, for the heading of a column.
        colour: of its contour, as hexadecimal RGB; one of `COLOUR_NAMES`.
        line_px: width of its contour. Regions that often end in the same place have different ones.
    """

    region: Region
    words: str
    short: str
    colour: str
    line_px: float = 1.2


@dataclass(frozen=True, slots=True)
class System:
    """A kind of case.

    Attributes:
        name: what options and plans call the system.
        bundle: name of the bundled weights for its cases.
        modalities: the images of a complete case.
        pictured: the images that pictures of a case show, in this order; thumbnails show the first one that is there.
        region_kinds: its regions by name, in channel order; how each is called and drawn.
        label_kinds: what each label means.
        spacing_mm: voxel side of the label maps that its challenge asks for; None where no challenge sets one.
        is_stripped: whether its images show the brain alone, so that they tell where the brain ends.
        brain_share: of the voxels, as in what plans that state none were trained with: the synthetic cohort's mean is
            0.184, that of seven gliomas of BraTS 2021 0.163. None where images tell nothing of it.
        window_hu: lower and upper end of the grey scale in which pictures show a CT.
        column_names: columns of the report's tables that have another name than their regions would give them.
        is_registered: whether one of its images must be registered to the source image.
        scan: that image in words; empty without one.
    """

    name: SystemName
    bundle: str
    modalities: tuple[Modality, ...]
    pictured: tuple[Modality, ...]
    region_kinds: Mapping[str, RegionKind]
    label_kinds: Mapping[int, LabelKind]
    spacing_mm: float | None = None
    is_stripped: bool = True
    brain_share: float | None = None
    window_hu: tuple[float, float] = (0, 80)
    column_names: Mapping[str, str] = field(default_factory=dict)
    is_registered: bool = False
    scan: str = ""

    @property
    def regions(self) -> Regions:
        """What its label maps may show, in channel order."""
        return Regions(tuple(kind.region for kind in self.region_kinds.values()))

    @property
    def whole(self) -> str:
        """What people call a lesion with all its parts."""
        return self.region_kinds[self.regions.whole.name].words

    @property
    def has_parts(self) -> bool:
        """Whether a lesion has parts that are told apart."""
        return len(self.regions.nested) > 1

    @property
    def label_names(self) -> dict[int, str]:
        """What each label is called."""
        return {label: kind.name for label, kind in self.label_kinds.items()}

    def unify_labels(self, labels: LabelMap) -> LabelMap:
        """A label map of any program in this system's labels.

        Where a lesion has no parts, its one label is the map's foreground, whatever the map calls it.
        """
        if self.has_parts:
            return labels
        return np.where(labels != BACKGROUND, np.uint8(self.regions.whole.labels[0]), np.uint8(BACKGROUND))

    def regions_named(self, names: Iterable[str]) -> Regions:
        """Those of its regions that have these names, in the order of the names.

        Raises:
            KeyError: there is none of that name.
        """
        return Regions(tuple(self.region_kinds[name].region for name in names))


RC_REGION: Final = Region("RC", (RC,))

_BLUE, _YELLOW, _RED, _PINK = "#56b4e9", "#f0e442", "#d55e00", "#cc79a7"
"""Okabe and Ito's palette, told apart by colour-blind readers too."""

COLOUR_NAMES: Final = {_BLUE: "blue", _YELLOW: "yellow", _RED: "orange", _PINK: "pink"}
"""What people call the colours of contours."""

BRATS: Final = System(
    name="brats",
    bundle="mets",
    modalities=MODALITIES,
    pictured=("t1c", "t2f"),
    region_kinds={
        "WT": RegionKind(BRATS_REGIONS.listed[0], "whole tumour", "whole", _BLUE),
        "TC": RegionKind(BRATS_REGIONS.listed[1], "tumour core", "core", _YELLOW, line_px=2.6),
        "ET": RegionKind(BRATS_REGIONS.listed[2], "enhancing tumour", "enhancing", _RED),
        "RC": RegionKind(RC_REGION, "resection cavity", "cavity", _PINK),
    },
    label_kinds={
        NETC: LabelKind(
            name="NETC",
            legend="non-enhancing core",
            colour=_YELLOW,
            dicom_name="NETC, non-enhancing tumour core",
            dicom_code=("C81175", "NCIt", "Non-Enhancing Lesion"),
        ),
        SNFH: LabelKind(
            name="SNFH",
            legend="oedema (SNFH)",
            colour=_BLUE,
            dicom_name="SNFH, surrounding FLAIR hyperintensity",
            dicom_code=("79654002", "SCT", "Edema"),
        ),
        ET: LabelKind(
            name="ET",
            legend="enhancing",
            colour=_RED,
            dicom_name="ET, enhancing tumour",
            dicom_code=("C113842", "NCIt", "Enhancing Lesion"),
        ),
        RC: LabelKind(
            name="RC",
            legend="resection cavity",
            colour=_PINK,
            dicom_name="RC, resection cavity",
            dicom_code=("52988006", "SCT", "Lesion"),
        ),
    },
    spacing_mm=1.0,
    brain_share=0.18,
)

RADIOSURGERY: Final = System(
    name="radiosurgery",
    bundle="srs-demo",
    modalities=("ct", "t1c"),
    pictured=("t1c", "ct"),
    region_kinds={"metastasis": RegionKind(METASTASIS_REGIONS.whole, "metastases", "volume", _RED)},
    label_kinds={
        METASTASIS: LabelKind(
            name="metastasis",
            legend="metastasis",
            colour=_RED,
            dicom_name="metastasis",
            dicom_code=("14799000", "SCT", "Neoplasm, Secondary"),
        ),
    },
    is_stripped=False,
    column_names={"largest_lesion_metastasis_mm3": "largest_metastasis_mm3"},
    is_registered=True,
    scan="planning CT",
)

SYSTEMS: Final[Mapping[SystemName, System]] = {system.name: system for system in (BRATS, RADIOSURGERY)}
"""No two of them know a region of the same name: a plan is told by its regions."""

HIGHEST_LABEL: Final = max(label for system in SYSTEMS.values() for label in system.regions.labels)
"""Of the label maps of all systems; a file with a higher one holds no label map of theirs."""

DEFAULT_SYSTEM: Final = BRATS
"""The system of what does not say another; its regions have room for those of every other system."""


def find_system(name: SystemName) -> System:
    """The system of this name."""
    return SYSTEMS[name]


def common_system(systems: Iterable[System]) -> System:
    """The one system of all of these; the default where they differ or there are none."""
    first, *others = list(systems) or [DEFAULT_SYSTEM]
    return first if all(other.name == first.name for other in others) else DEFAULT_SYSTEM


def system_of_regions(names: Iterable[str]) -> System:
    """The system that knows all of these regions.

    Raises:
        ValueError: none does.
    """
    wanted = tuple(names)
    for system in SYSTEMS.values():
        if set(wanted) <= system.region_kinds.keys():
            return system
    known = "; ".join(f"{system.name}: {', '.join(system.region_kinds)}" for system in SYSTEMS.values())
    raise ValueError(f"no system knows the regions {', '.join(wanted)}; known are {known}")


def system_of_images(modalities: Iterable[Modality]) -> System:
    """The system of cases that have these images: one that registers and reads all of them, or the default."""
    found = set(modalities)
    for system in SYSTEMS.values():
        if system.is_registered and found & OWN_GRID and found <= set(system.modalities):
            return system
    return DEFAULT_SYSTEM


def is_complete(modalities: Iterable[Modality]) -> bool:
    """Whether these are all the images of a case of some system."""
    found = set(modalities)
    return any(found.issuperset(system.modalities) for system in SYSTEMS.values())


def modalities_to_find(wanted: Iterable[Modality]) -> tuple[Modality, ...]:
    """What to look for: the challenge's sequences, which make a folder a case even unread, and the wanted ones."""
    return tuple(dict.fromkeys((*MODALITIES, *sorted(wanted))))
