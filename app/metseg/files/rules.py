"""What must hold for the images of a case: one set of rules for `metseg check` and for reading a case."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from metseg.errors import InputError
from metseg.files.case import CaseFiles
from metseg.files.discovery import missing_modalities, survey_cases
from metseg.files.header import ImageError
from metseg.files.image import Image, read_image
from metseg.findings import Finding, FindingCode, Severity, printable
from metseg.space.grid import FloatVolume, grid_difference
from metseg.systems import MODALITIES, OWN_GRID, Modality

MAX_NOT_FINITE_SHARE: Final = 0.01
"""Share of the brain (the voxels that are not 0) that may be NaN or infinite and be set to 0 (docs/input.md)."""

ABSURD_INTENSITY: Final = 1e6
"""Scanners store 12 to 16 bits: a million looks like an overflow or a wrong scl_slope."""

LEAST_FILLED_SHARE: Final = 0.001
"""Of all voxels: with less, the percentiles 0.1 and 99.9, between which intensities are scaled, are both 0. A brain
fills a sixth."""

_NO_VOXELS: Final = np.zeros((0, 0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Examined:
    """One modality of a case, looked at.

    Attributes:
        modality: which.
        image: finite voxels; None where there is an error that concerns this file alone.
        problems: errors and warnings.
    """

    modality: Modality
    image: Image | None
    problems: tuple[Finding, ...]


def check_cases(
    data_path: Path,
    *,
    required: Sequence[Modality] = MODALITIES,
    optional: Sequence[Modality] = (),
    reference: Modality = "t1c",
) -> tuple[Finding, ...]:
    """Looks at every case of a folder.

    Args:
        data_path: the folder (see `metseg.files.discovery.discover_cases`).
        required: modalities without which a case can't be segmented; the reference always is.
        optional: modalities without which some members of a bundle are left out.
        reference: the modality whose grid the others must have.

    Returns:
        What is wrong with the folder, then with its cases in the order of their IDs; empty when nothing is.
    """
    try:
        survey = survey_cases(data_path, modalities=_known(required, optional, reference))
    except InputError as error:
        return (Finding("", "error", "no-case", str(error), error.hint),)
    found = [check_case(files, required=required, optional=optional, reference=reference) for files in survey.cases]
    return (*survey.problems, *(problem for problems in found for problem in problems))


def check_case(
    files: CaseFiles,
    *,
    required: Sequence[Modality] = MODALITIES,
    optional: Sequence[Modality] = (),
    reference: Modality = "t1c",
) -> tuple[Finding, ...]:
    """Looks at one case; see `check_cases`. One image is in memory at a time."""
    examined = examine_case(
        files,
        required=tuple(dict.fromkeys((reference, *required))),
        optional=optional,
        reference=reference,
    )
    return tuple(problem for modality in examined for problem in modality.problems)


def _known(required: Sequence[Modality], optional: Sequence[Modality], reference: Modality) -> tuple[Modality, ...]:
    """All modalities that make a folder a case; the challenge's do even when they are not read."""
    return tuple(dict.fromkeys((*MODALITIES, reference, *required, *optional)))


def examine_case(
    files: CaseFiles,
    *,
    required: Sequence[Modality],
    optional: Sequence[Modality] = (),
    reference: Modality = "t1c",
) -> Iterator[Examined]:
    """Reads a case's images one after the other, the reference first, and says what is wrong with each.

    Args:
        files: the case.
        required: modalities whose absence is an error.
        optional: modalities whose absence is a warning.
        reference: the modality whose grid the others must have, but for those of OWN_GRID; where it can't be read, the
            first that can be.

    Yields:
        One element for each modality; only one image is alive at a time unless the caller keeps it.
    """
    wanted = sorted(dict.fromkeys((*required, *optional)), key=lambda modality: modality != reference)
    first: Image | None = None
    grid_of = reference
    for modality in wanted:
        examined = _examine_modality(files, modality, absence="error" if modality in required else "warning")
        if examined.modality in OWN_GRID:
            yield examined
            continue
        if first is None and examined.image is not None:
            first, grid_of = replace(examined.image, voxels=_NO_VOXELS), modality
        elif first is not None:
            examined = _compared(files.case_id, examined, first, grid_of)
        yield examined


def clean_voxels(voxels: FloatVolume) -> tuple[FloatVolume, tuple[tuple[Severity, FindingCode, str], ...]]:
    """Sets stray NaN and infinities to 0 and says what is wrong with an image's intensities.

    Args:
        voxels: any shape.

    Returns:
        The voxels, all finite (the same array where they were already), and severity, code and sentence of each
        finding. More NaN or infinite voxels than MAX_NOT_FINITE_SHARE of the voxels that are not 0 are an error.
    """
    found: list[tuple[Severity, FindingCode, str]] = []
    low, high = float(voxels.min()), float(voxels.max())  # NaN wherever there is one
    if not np.isfinite([low, high]).all():
        finite = np.isfinite(voxels)
        bad, brain = int(finite.size - finite.sum()), int(np.count_nonzero(voxels))
        severity: Severity = "error" if bad > MAX_NOT_FINITE_SHARE * brain else "warning"
        consequence = f"at most {MAX_NOT_FINITE_SHARE:.0%} is accepted" if severity == "error" else "set to 0"
        what = f"{bad} voxels are NaN or infinite, {bad / brain:.2%} of those that are not 0: {consequence}"
        found.append((severity, "not-finite", what))
        voxels = np.where(finite, voxels, np.float32(0))
        low, high = float(voxels.min()), float(voxels.max())
        if severity == "error":  # what is left of the image says nothing
            return voxels, tuple(found)
    if low == high:
        found.append(("error", "constant", f"constant image: every voxel is {low:g}"))
        return voxels, tuple(found)
    filled = np.count_nonzero(voxels)
    if filled < LEAST_FILLED_SHARE * voxels.size:
        what = f"almost empty: {filled} of {voxels.size} voxels are not 0, expected at least {LEAST_FILLED_SHARE:.1%}"
        found.append(("error", "constant", what))
    elif low < 0:
        share = np.count_nonzero(voxels < 0) / voxels.size
        found.append(("warning", "negative", f"negative intensities down to {low:g} in {share:.2%} of the voxels"))
    if max(-low, high) > ABSURD_INTENSITY:
        found.append(("warning", "absurd", f"intensities from {low:g} to {high:g}, beyond {ABSURD_INTENSITY:g}"))
    return voxels, tuple(found)


_HINTS: Final[dict[FindingCode, str]] = {
    "not-finite": "Replace NaN and infinities where the image is made.",
    "constant": "Give the image itself, not a blank placeholder; leave the file out if the sequence was not taken.",
    "negative": "Give intensities as the scanner or converter made them, not normalised ones.",
    "absurd": "Check the header's scl_slope and the conversion.",
}


def _examine_modality(files: CaseFiles, modality: Modality, *, absence: Severity) -> Examined:
    def problem(severity: Severity, code: FindingCode, what: str, hint: str = "") -> Finding:
        return Finding(files.case_id, severity, code, what, hint)

    if modality in files.rivals:
        names = " and ".join(printable(path.name) for path in files.rivals[modality])
        what = f"{modality} exists {len(files.rivals[modality])} times: {names}"
        return Examined(modality, None, (problem("error", "duplicate-file", what, "keep one of them"),))
    if missing_modalities(files, [modality]):
        what = f"{modality} is missing: no {printable(files.case_id)}-{modality}.nii.gz or .nii"
        hint = "Add the file." if absence == "error" else "The case is segmented by the members that do not read it."
        return Examined(modality, None, (problem(absence, "missing-modality", what, hint),))
    path = files.images[modality]
    label = _label(modality, path)
    try:
        image = read_image(path)
    except ImageError as error:
        return Examined(modality, None, (problem("error", error.code, f"{label}: {error}", error.hint),))
    voxels, found = clean_voxels(image.voxels)
    if modality == "ct":  # air is -1000 Hounsfield units
        found = tuple(item for item in found if item[1] != "negative")
    problems = [problem("warning", "orientation", f"{label}: {oddity}") for oddity in image.oddities]
    problems += [problem(severity, code, f"{label}: {what}", _HINTS[code]) for severity, code, what in found]
    usable = all(severity != "error" for severity, _, _ in found)
    return Examined(modality, replace(image, voxels=voxels) if usable else None, tuple(problems))


def _compared(case_id: str, examined: Examined, first: Image, first_modality: Modality) -> Examined:
    image = examined.image
    difference = _difference(image, first) if image is not None else ""
    if not difference:
        return examined
    what = f"{examined.modality}: its grid is not {first_modality}'s: {difference}"
    hint = f"Resample all modalities to {first_modality}'s grid (co-registered)."
    return Examined(examined.modality, None, (*examined.problems, Finding(case_id, "error", "grid", what, hint)))


def _difference(image: Image, first: Image) -> str:
    """As `grid_difference`, but an image that doesn't say where it lies (it has a warning) lies upon the other."""
    grid = image.grid
    if not (image.is_oriented and first.is_oriented) and np.allclose(grid.spacing_mm, first.grid.spacing_mm, rtol=1e-3):
        grid = replace(grid, affine=first.grid.affine)
    return grid_difference(grid, first.grid)


def _label(modality: Modality, path: Path) -> str:
    return f"{modality} ({printable(path.name)})"
