"""DICOM studies of synthetic whole heads: every sequence on an oblique grid of its own, moved, and a planning CT.

Four consoles' numbers and eight languages' names take turns. Beside the five series that belong into a case lie some
that don't: a localiser, diffusion, a reformat, and a second T1 after contrast agent in thick slices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.uid import generate_uid
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks.dicom_series import LPS_TO_RAS, make_images, write_images
from metseg.files.case import Scan
from metseg.space.grid import Grid
from metseg.systems import Modality
from training.cohort.head_case import HeadCase, generate_head_case
from training.cohort.planning_ct import draw_motion
from training.cohort.settings import CohortSettings, load_settings

SEED: Final = 2029

AXIAL: Final = np.eye(3)
SAGITTAL: Final = np.stack([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]], axis=1)
CORONAL: Final = np.stack([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], axis=1)

MARGIN_MM: Final = 16.0
"""Of a field of view, over the head's width in one direction."""

CT_SPACINGS_MM: Final = ((0.6, 0.6, 2.0), (0.98, 0.98, 2.5), (0.7, 0.7, 1.0), (1.17, 1.17, 3.0))

Tags = dict[str, Any]


def times(te: float, tr: float, ti: float | None, kind: Any, acquired: str = "2D") -> Tags:
    tags = {"EchoTime": te, "RepetitionTime": tr, "ScanningSequence": kind, "MRAcquisitionType": acquired}
    return tags if ti is None else {**tags, "InversionTime": ti}


CONSOLES: Final[tuple[dict[Modality, Tags], ...]] = (
    {
        "t1c": {"Manufacturer": "SIEMENS", **times(2.98, 2300, 900, ["GR", "IR"], "3D")},
        "t1n": times(8.4, 550, None, "SE"),
        "t2w": times(95, 5200, None, "SE"),
        "t2f": times(81, 9000, 2500, ["SE", "IR"]),
        "ct": {"Manufacturer": "SIEMENS", "ConvolutionKernel": "H30s"},
    },
    {
        "t1c": {"Manufacturer": "GE MEDICAL SYSTEMS", **times(3.2, 8.2, 450, "GR", "3D")},
        "t1n": times(24, 2200, 860, ["SE", "IR"]),
        "t2w": times(102, 4800, None, "SE"),
        "t2f": times(140, 9002, 2250, ["SE", "IR"]),
        "ct": {"Manufacturer": "GE MEDICAL SYSTEMS", "ConvolutionKernel": "STANDARD"},
    },
    {
        "t1c": {"Manufacturer": "Philips Medical Systems", **times(3.7, 8.1, None, "GR", "3D")},
        "t1n": times(10, 480, None, "SE"),
        "t2w": times(80, 3000, None, "SE"),
        "t2f": times(125, 11000, 2800, "IR"),
        "ct": {"Manufacturer": "Philips", "ConvolutionKernel": "UB"},
    },
    {
        "t1c": {"Manufacturer": "TOSHIBA", **times(2.5, 5.8, 900, ["GR", "IR"], "3D")},
        "t1n": times(15, 500, None, "SE"),
        "t2w": times(105, 4200, None, "RM"),
        "t2f": times(105, 8500, 2150, ["RM", "IR"]),
        "ct": {"Manufacturer": "TOSHIBA", "ConvolutionKernel": "FC26"},
    },
)
"""Numbers of four consoles' protocols of the head."""

NAMES: Final[tuple[dict[str, str], ...]] = (
    {"t1c": "t1_mprage_sag_p2_KM", "t1n": "t1_se_tra nativ", "t2w": "t2_tse_tra", "t2f": "t2_tirm_tra_dark-fluid",
     "ct": "Schaedel Planung 2.0"},
    {"t1c": "3D T1 apres injection", "t1n": "AX T1 sans injection", "t2w": "AX T2", "t2f": "AX FLAIR", "ct": "CRANE"},
    {"t1c": "SAG 3D BRAVO +C", "t1n": "AX T1", "t2w": "AX T2 PROPELLER", "t2f": "AX T2 FLAIR", "ct": "Head plan"},
    {"t1c": "T1 3D TFE con contraste", "t1n": "T1 sin contraste", "t2w": "T2 TSE AX", "t2f": "FLAIR AX",
     "ct": "PLANIFICACION CRANEO"},
    {"t1c": "T1 3D dopo mdc", "t1n": "T1 SE senza mdc", "t2w": "T2 TSE assiale", "t2f": "FLAIR assiale",
     "ct": "TC encefalo centraggio"},
    {"t1c": "T1 TFE 3D na gadolinium", "t1n": "T1 TRA zonder", "t2w": "T2 TRA", "t2f": "FLAIR TRA", "ct": "Schedel"},
    {"t1c": "t1_mpr_ns_sag_iso", "t1n": "t1_fl2d_tra", "t2w": "t2_blade_tra", "t2f": "t2_space_dark-fluid",
     "ct": "RT_Brain"},
    {"t1c": "T1 3D po kontrascie", "t1n": "T1 AX bez kontrastu", "t2w": "T2 AX", "t2f": "T2 FLAIR AX", "ct": "Glowa"},
)  # fmt: skip
"""German, French, English, Spanish, Italian, Dutch, a console's own names (contrast by the tag alone), Polish."""


@dataclass(frozen=True)
class Acquired:
    """A series as it is written.

    Attributes:
        voxels: shape `grid.shape` (columns, rows, slices); Hounsfield units, or 0 to 65535.
        grid: where it lies.
        motion: a point of the head (and of t1c) in RAS millimetres to where it was.
        tags: of its images.
    """

    voxels: np.ndarray
    grid: Grid
    motion: np.ndarray
    tags: Tags


@dataclass(frozen=True)
class SyntheticStudy:
    """One patient's study.

    Attributes:
        case: what it is made of.
        series: those that belong into a case.
        others: those that don't, and share no study's choice.
    """

    case: HeadCase
    series: dict[Modality, Acquired]
    others: dict[str, Acquired]


def draw_settings(index: int) -> CohortSettings:
    """Heads with metastases; slices and motion are made here, not by the cohort's artefacts."""
    settings = load_settings()
    artefacts = {"misregistration_mm_std": 0.0, "thick_probability": dict.fromkeys(("t1n", "t1c", "t2w", "t2f"), 0.0)}
    return settings.model_copy(
        update={
            "artefacts": settings.artefacts.model_copy(update=artefacts),
            "lesions": settings.lesions.model_copy(update={"none_probability": 0.0}),
            "ct": settings.ct.model_copy(update={"spacing_mm": CT_SPACINGS_MM[index % 4]}),
        }
    )


def draw_study(index: int) -> SyntheticStudy:
    """Study number `index`, the same each time."""
    settings = draw_settings(index)
    case = generate_head_case(settings, SEED, index)
    rng = np.random.default_rng([SEED, index, 1])
    console, names = CONSOLES[index % 4], NAMES[index % 8]
    planes = {
        "t1c": (SAGITTAL, AXIAL, CORONAL, SAGITTAL)[index % 4],
        "t1n": AXIAL,
        "t2w": (AXIAL, AXIAL, CORONAL)[index % 3],
        "t2f": (AXIAL, AXIAL, AXIAL, SAGITTAL, AXIAL)[index % 5],
    }
    series: dict[Modality, Acquired] = {}
    for modality, plane in planes.items():
        is_source = modality == "t1c"
        step_mm = rng.uniform(1.0, 1.3) if is_source else rng.uniform(1.0, 5.0)
        pixel_mm = step_mm if is_source and index % 2 else rng.uniform(0.5, 1.0) if not is_source else 1.0
        turn = Rotation.from_euler("xyz", rng.uniform(-10, 10, 3), degrees=True).as_matrix()
        motion = np.eye(4) if is_source else draw_motion(np.zeros(3), settings.ct, rng)
        grid = lay_grid(case.grid, turn @ plane, (pixel_mm, pixel_mm, step_mm), rng)
        voxels = acquire(case.images[modality], case.grid, grid, motion)
        series[modality] = Acquired(voxels, grid, motion, console[modality] | {"SeriesDescription": names[modality]})
    if "iso" in names["t1c"] or index % 3 == 0:
        series["t1c"].tags["ContrastBolusAgent"] = "Gadovist"
    tags = console["ct"] | {"SeriesDescription": names["ct"]}
    series["ct"] = Acquired(case.ct.voxels, case.ct.grid, case.ct.mr_to_ct, tags)
    return SyntheticStudy(case, series, dict(draw_others(case.grid, console, names)))


def draw_others(head: Grid, console: dict[Modality, Tags], names: dict[str, str]) -> Iterator[tuple[str, Acquired]]:
    """Series to leave out, without pixels of interest."""
    rng = np.random.default_rng(0)
    wanted: dict[str, tuple[Tags, tuple[float, float, float]]] = {
        "localiser": (
            times(5, 20, None, "GR") | {"SeriesDescription": "localizer"},
            (2.0, 2.0, 40.0),
        ),
        "diffusion": (
            times(90, 6000, None, "EP")
            | {"SeriesDescription": "ep2d_diff_b1000", "ImageType": ["ORIGINAL", "PRIMARY"]},
            (1.8, 1.8, 5.0),
        ),
        "reformat": (
            console["t1c"] | {"SeriesDescription": names["t1c"], "ImageType": ["DERIVED", "SECONDARY", "MPR"]},
            (2.0, 2.0, 3.0),
        ),
        "thick": (
            times(11, 500, None, "SE") | {"SeriesDescription": "T1 SE post Gd", "ContrastBolusAgent": "Gd"},
            (1.5, 1.5, 5.0),
        ),
    }
    for name, (tags, spacing) in wanted.items():
        grid = lay_grid(head, AXIAL, spacing, rng)
        yield name, Acquired(np.zeros(grid.shape, dtype=np.uint16), grid, np.eye(4), tags)


def lay_grid(head: Grid, directions: np.ndarray, spacing: tuple[float, float, float], rng: np.random.Generator) -> Grid:
    """A field of view about the head's middle, a few millimetres off it; directions (LPS) are columns of a matrix."""
    extents_mm = np.array(head.shape) * head.spacing_mm + MARGIN_MM
    along = extents_mm[np.abs(directions).argmax(axis=0)]
    columns, rows, slices = (int(np.ceil(length / side)) for length, side in zip(along, spacing, strict=True))
    lps = np.eye(4)
    lps[:3, :3] = directions * spacing
    lps[:3, 3] = rng.uniform(-4, 4, 3) - lps[:3, :3] @ ((np.array([columns, rows, slices]) - 1) / 2)
    return Grid((columns, rows, slices), LPS_TO_RAS @ lps)


def acquire(image: np.ndarray, head: Grid, grid: Grid, motion: np.ndarray) -> np.ndarray:
    """An image of the moved head: a slice is the mean over its thickness, about a millimetre from sample to sample."""
    columns, rows, slices = grid.shape
    samples = max(1, round(grid.spacing_mm[2]))
    fine = np.diag([1, 1, 1 / samples, 1.0])
    fine[2, 3] = (1 / samples - 1) / 2
    index = np.linalg.inv(head.affine) @ np.linalg.inv(motion) @ grid.affine @ fine
    dense = ndimage.affine_transform(
        image.astype(np.float32), index[:3, :3], index[:3, 3], (columns, rows, slices * samples), np.float32, order=1
    )
    return np.rint(dense.reshape(columns, rows, slices, samples).mean(axis=3))


def write_study(study: SyntheticStudy, folder: Path) -> dict[str, Path]:
    """Writes every series into a folder of its own; MR and CT are two studies of one patient. Returns the folders."""
    folders = {}
    mr, ct, frame = generate_uid(), generate_uid(), generate_uid()
    for number, (name, series) in enumerate({**study.others, **study.series}.items(), 1):
        is_ct = name == "ct"
        uids = (ct, generate_uid(), generate_uid()) if is_ct else (mr, generate_uid(), frame)
        tags = {"SeriesNumber": number, **series.tags}
        folders[name] = folder / f"{number:02d}-{name}"
        write_images(folders[name], make_images(series.voxels, series.grid.affine, tags, uids, is_ct=is_ct))
    return folders


def as_scan(series: Acquired) -> Scan:
    """A series as the program reads it."""
    return Scan(series.voxels.astype(np.float32), series.grid, b"")
