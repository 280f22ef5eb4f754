"""What a report says of one case: plain data, from which tables, page and `run.json` are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from metseg.labels import LabelConvention
from metseg.report.lesions import Lesion
from metseg.run.record import CaseRecord
from metseg.systems import SOURCE_MODALITY, Modality, System, SystemName, find_system

PLANES_FILE: Final = "planes.webp"
LESIONS_FILE: Final = "lesions.webp"

SEGMENTATION: Final = "segmentation"
REFERENCE: Final = "reference"
"""The two label maps of a case."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a reference label map holds, for comparison at a glance; `python -m evaluation` scores.

    Attributes:
        lesions: number of lesions in the reference.
        volume_mm3: of all lesions of the reference together.
    """

    lesions: int
    volume_mm3: float


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What the report says of one case.

    Attributes:
        record: what became of the case. The number of lesions in the record was counted on the network's grid, that of
            `lesions` on the label map's; the two may differ where the grid was resampled. Its findings are complete.
        system_name: names the system that says what the label map's numbers mean.
        shape: voxels of the label map along each axis; None where there is no label map.
        spacing_mm: voxel sides of the label map; None where there is no label map.
        volumes_mm3: volume of each region of the whole label map, by the region's name; empty without a label map.
        lesions: the lesions by volume, the largest first.
        reference: what the reference label map holds; None where there is no reference.
        input_sha256: file name of each image to the hash of the file.
        label_map_sha256: hash of the label map's file; empty where there is none.
        peak_memory_mib: the process's largest memory so far when the case was done; None where it wasn't measured.
        gpu_peak_memory_mib: the GPU's largest memory so far when the case was done; None where it wasn't measured.
        pictures: names of pictures in the case's folder of the report.
        saved: names of other files in that folder (--save).
        label_grid: the modality whose grid the label map has, and whose world coordinates its lesions have.
        conventions: what label 4 means in SEGMENTATION and in REFERENCE, where the user said it.
    """

    record: CaseRecord
    system_name: SystemName
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    volumes_mm3: Mapping[str, float] = field(default_factory=dict)
    lesions: tuple[Lesion, ...] = ()
    reference: Reference | None = None
    input_sha256: Mapping[str, str] = field(default_factory=dict)
    label_map_sha256: str = ""
    peak_memory_mib: float | None = None
    gpu_peak_memory_mib: float | None = None
    pictures: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    label_grid: Modality = SOURCE_MODALITY
    conventions: Mapping[str, LabelConvention] = field(default_factory=dict)

    @property
    def case_id(self) -> str:
        """The case's name, as any file or terminal can show it."""
        return self.record.case_id

    @property
    def system(self) -> System:
        """What the label map's numbers mean."""
        return find_system(self.system_name)

    @property
    def volume_mm3(self) -> float:
        """Volume of all lesions of the label map together; 0 without a label map."""
        return self.volumes_mm3.get(self.system.regions.whole.name, 0.0)

    @property
    def is_measured(self) -> bool:
        """Whether its figures are of a label map; an empty map in place of a failed case is none."""
        return self.shape is not None and self.record.outcome != "blank"

    @property
    def is_on_source_grid(self) -> bool:
        """Whether the label map has the source image's grid."""
        return self.label_grid == SOURCE_MODALITY

    @property
    def longest_axial_diameter_mm(self) -> float | None:
        """The longest of all lesions; None where none has a core."""
        known = [lesion.longest_axial_diameter_mm for lesion in self.lesions]
        return max((length for length in known if length is not None), default=None)

    @property
    def measurable_lesions(self) -> int:
        """Lesions that RANO-BM would follow by their diameter."""
        return sum(lesion.is_measurable for lesion in self.lesions)
