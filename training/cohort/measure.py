"""What a cohort on disk contains, simulated or real: lesions per case, volumes, parts, contrast."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metseg.errors import InputError, UsageError
from metseg.files.image import ImageError, read_image
from metseg.files.label_sets import require_clear_files
from metseg.files.listing import find_file
from metseg.files.names import REFERENCE_KIND, Kind
from metseg.files.read import read_label_map
from metseg.labels import ET, NETC, SNFH, LabelConvention
from metseg.space.components import find_components
from metseg.space.grid import FloatVolume, Grid, grid_difference

VOLUME_LIMITS_MM3: Final = (27, 100, 1000)
"""Upper ends of the size classes: the 2026 challenge's small lesions, then decades."""

# The shell of normal tissue that a lesion is compared with, voxels from its core.
_SHELL_INNER, _SHELL_OUTER = 1, 4
_LEAST_SHELL: Final = 20
_MAD_TO_STD: Final = 1.4826
_ANY_NEIGHBOUR: Final = np.ones((3, 3, 3))


@dataclass(frozen=True, slots=True)
class MeasuredLesion:
    """One 26-connected component of the tumour core (ET and NETC).

    Attributes:
        volume_mm3: of the core.
        necrotic: it has NETC.
        swollen: it touches SNFH.
        contrast: mean t1c of its ET minus the median of the unlabelled shell around it, over that shell's spread
            (1.4826 * MAD): noise and normal variation together. NaN without ET or shell.
        found: a predicted core shares a voxel with it; None without a prediction.
    """

    volume_mm3: float
    necrotic: bool
    swollen: bool
    contrast: float
    found: bool | None = None


@dataclass(frozen=True, slots=True)
class MeasuredCase:
    """One case's lesions, and the volume of its SNFH in mm3."""

    case_id: str
    lesions: tuple[MeasuredLesion, ...]
    oedema_mm3: float


def _measure_lesion(
    labels: NDArray[np.uint8], own: NDArray[np.bool_], t1c: NDArray[np.float32], voxel_mm3: float
) -> MeasuredLesion:
    """One lesion on a box around it."""
    near = ndimage.binary_dilation(own, _ANY_NEIGHBOUR, iterations=_SHELL_INNER)
    shell = ndimage.binary_dilation(near, iterations=_SHELL_OUTER - _SHELL_INNER) & ~near & (labels == 0) & (t1c > 0)
    enhancing, around = t1c[own & (labels == ET)], t1c[shell]
    contrast = np.nan
    if enhancing.size and around.size >= _LEAST_SHELL:
        middle = np.median(around)
        spread = _MAD_TO_STD * np.median(np.abs(around - middle))
        contrast = float((enhancing.mean() - middle) / max(spread, 1e-6))
    return MeasuredLesion(
        volume_mm3=float(own.sum() * voxel_mm3),
        necrotic=bool((labels[own] == NETC).any()),
        swollen=bool((labels[near] == SNFH).any()),
        contrast=contrast,
    )


def measure_case(
    folder: Path, predictions: Path | None = None, convention: LabelConvention | None = None
) -> MeasuredCase:
    """Measures one case folder `<ID>` with `<ID>-t1c` and `<ID>-seg`, `.nii.gz` or `.nii`.

    Args:
        folder: the case's.
        predictions: folder with the label map `<ID>.nii.gz`, on the same grid: which lesions are found.
        convention: what label 4 means in both.

    Raises:
        InputError: one of these files is missing, can't be read, or lies on another grid than the reference.
    """
    reference = _require_file(folder, "seg")
    image = read_label_map(reference, convention=convention)
    labels, grid = image.labels, image.grid
    t1c = _read_t1c(folder, reference, grid)
    voxel_mm3 = grid.voxel_volume_mm3
    components = find_components((labels == ET) | (labels == NETC)).to_volume()
    predicted = None
    if predictions is not None:
        path = predictions / f"{folder.name}.nii.gz"
        prediction = read_label_map(path, convention=convention)
        _require_same_grid(path, prediction.grid, reference, grid)
        predicted = np.isin(prediction.labels, (ET, NETC))
    lesions = []
    for number, found in enumerate(ndimage.find_objects(components), start=1):
        box = tuple(slice(max(s.start - _SHELL_OUTER - 1, 0), s.stop + _SHELL_OUTER + 1) for s in found)
        own = components[box] == number
        lesion = _measure_lesion(labels[box], own, t1c[box], voxel_mm3)
        lesions.append(lesion if predicted is None else replace(lesion, found=bool(predicted[box][own].any())))
    return MeasuredCase(folder.name, tuple(lesions), float((labels == SNFH).sum() * voxel_mm3))


def _require_file(folder: Path, kind: Kind) -> Path:
    path = find_file(folder, folder.name, kind)
    if path is None:
        raise InputError(f"case {folder.name}: no {folder.name}-{kind}.nii.gz or .nii in {folder}")
    return path


def _read_t1c(folder: Path, reference: Path, grid: Grid) -> FloatVolume:
    path = _require_file(folder, "t1c")
    try:
        image = read_image(path)
    except ImageError as error:
        raise ImageError(error.code, f"image {path}: {error}", hint=error.hint) from None
    _require_same_grid(path, image.grid, reference, grid)
    return image.voxels


def _require_same_grid(path: Path, found: Grid, reference: Path, expected: Grid) -> None:
    difference = grid_difference(found, expected)
    if difference:
        raise InputError(f"{path}: its grid is not that of {reference}: {difference}")


def measure_cohort(
    folder: Path, predictions: Path | None = None, *, convention: LabelConvention | None = None
) -> Iterator[MeasuredCase]:
    """Measures every case folder that has a reference; `predictions` and `convention` as for `measure_case`.

    Raises:
        UsageError: there is none.
        InputError: see `measure_case`; or label 4 could mean two things (`metseg.files.label_sets`).
    """
    folders = sorted(folder.iterdir()) if folder.is_dir() else []
    cases = [path for path in folders if find_file(path, path.name, REFERENCE_KIND)]
    if not cases:
        raise UsageError(
            f"{folder}: no case with a -seg.nii.gz or .nii", hint="Give the folder that holds the case folders."
        )
    require_clear_files((_require_file(case, "seg") for case in cases), f"references in {folder}", convention)
    if predictions is not None:
        paths = (predictions / f"{case.name}.nii.gz" for case in cases)
        require_clear_files(paths, f"label maps in {predictions}", convention)
    for case in cases:
        yield measure_case(case, predictions, convention)


def _quantiles(values: Sequence[float], form: str) -> str:
    if len(values) == 0:
        return "-"
    return " / ".join(format(q, form) for q in np.quantile(values, (0, 0.1, 0.5, 0.9, 1)))


def describe(cases: Sequence[MeasuredCase]) -> list[tuple[str, str]]:
    """The cohort in a few rows of text: what, and its figures (minimum / 10 % / median / 90 % / maximum)."""
    lesions = [lesion for case in cases for lesion in case.lesions]
    volumes = np.array([lesion.volume_mm3 for lesion in lesions])
    counts = [len(case.lesions) for case in cases]
    contrasts = [lesion.contrast for lesion in lesions if np.isfinite(lesion.contrast)]
    largest = np.array([max((lesion.volume_mm3 for lesion in case.lesions), default=0.0) for case in cases])
    rows = [
        ("cases, lesions", f"{len(cases)}, {len(lesions)}"),
        ("lesions per case", f"{_quantiles(counts, '.0f')}, mean {np.mean(counts):.1f}"),
        ("core volume, mm3", _quantiles(volumes.tolist(), ".0f")),
    ]
    if lesions:
        rows += [(f"cores of at most {limit} mm3", f"{np.mean(volumes <= limit):.0%}") for limit in VOLUME_LIMITS_MM3]
        rows += [
            ("cores with NETC", f"{np.mean([lesion.necrotic for lesion in lesions]):.0%}"),
            ("cores touching SNFH", f"{np.mean([lesion.swollen for lesion in lesions]):.0%}"),
            ("t1c contrast over local spread", _quantiles(contrasts, ".1f")),
            ("contrast below 2", f"{np.mean(np.array(contrasts) < 2):.0%}"),  # noqa: PLR2004  barely visible
        ]
    rows += [
        ("cases with a core of 4 cm3 or more (20 mm)", f"{np.mean(largest >= 4000):.0%}"),  # noqa: PLR2004
        ("SNFH per case, cm3", _quantiles([case.oedema_mm3 / 1000 for case in cases], ".1f")),
    ]
    return rows
