"""What must hold for the images of a case: one set of rules for `metseg check` and for reading a case."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.errors import InputError
from metseg.files.background import settle_background
from metseg.files.case import CaseFiles
from metseg.files.discovery import images_beside, missing_modalities, survey_cases
from metseg.files.header import ImageError
from metseg.files.image import Image, read_image
from metseg.findings import Finding, FindingCode, Severity, errors_among, printable
from metseg.space.grid import FloatVolume, Grid, grid_difference, times
from metseg.systems import MODALITIES, OWN_GRID, SOURCE_MODALITY, Modality, modalities_to_find

MAX_NOT_FINITE_SHARE: Final = 0.01
"""Share of the brain (the voxels that are not 0) that may be NaN or infinite and be set to 0 (docs/input.md)."""

ABSURD_INTENSITY: Final = 1e6
"""Scanners store 12 to 16 bits: a million looks like an overflow or a wrong scl_slope."""

LEAST_FILLED_SHARE: Final = 0.001
"""Of all voxels: with less, the percentiles 0.1 and 99.9, between which intensities are scaled, are both 0. A brain
fills a sixth."""

MARGIN_FACTOR: Final = 2.0
"""A brain whose share of the voxels is so many times smaller or larger than in training has another margin."""

_NO_VOXELS: Final = np.zeros((0, 0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Examined:
    """One modality of a case, looked at.

    Attributes:
        modality: which.
        image: finite voxels; None where there is an error that concerns this file alone.
        findings: errors and warnings.
    """

    modality: Modality
    image: Image | None
    findings: tuple[Finding, ...]


def check_cases(
    data_path: Path,
    *,
    required: Sequence[Modality] = MODALITIES,
    optional: Sequence[Modality] = (),
    source: Modality = SOURCE_MODALITY,
    is_stripped: bool = True,
    brain_share: float | None = None,
) -> tuple[Finding, ...]:
    """Looks at every case of a folder.

    Args:
        data_path: the folder (see `metseg.files.discovery.discover_cases`).
        required: modalities without which a case can't be segmented; the source image always is.
        optional: modalities that some members of a bundle do without.
        source: the source image: the modality whose grid the others must have.
        is_stripped: see `examine_case`.
        brain_share: see there.

    Returns:
        What is wrong with the folder, then with its cases in the order of their IDs; empty when nothing is.
    """
    try:
        survey = survey_cases(data_path, modalities=modalities_to_find({source, *required, *optional}))
    except InputError as error:
        return (Finding("", "error", "no-case", str(error), error.hint),)
    found = [
        check_case(
            files,
            required=required,
            optional=optional,
            source=source,
            is_stripped=is_stripped,
            brain_share=brain_share,
        )
        for files in survey.cases
    ]
    return (*survey.findings, *chain.from_iterable(found))


def check_case(
    files: CaseFiles,
    *,
    required: Sequence[Modality] = MODALITIES,
    optional: Sequence[Modality] = (),
    source: Modality = SOURCE_MODALITY,
    is_stripped: bool = True,
    brain_share: float | None = None,
) -> tuple[Finding, ...]:
    """Looks at one case; see `check_cases`. One image is in memory at a time."""
    if errors_among(files.findings):  # nothing can be said of images that nobody finds
        return files.findings
    examined = examine_case(
        files,
        required=tuple(dict.fromkeys((source, *required))),
        optional=optional,
        source=source,
        is_stripped=is_stripped,
        brain_share=brain_share,
    )
    return (*files.findings, *chain.from_iterable(modality.findings for modality in examined))


def examine_case(
    files: CaseFiles,
    *,
    required: Sequence[Modality],
    optional: Sequence[Modality] = (),
    source: Modality = SOURCE_MODALITY,
    is_stripped: bool = True,
    brain_share: float | None = None,
) -> Iterator[Examined]:
    """Reads a case's images one after the other, the source image first, and says what is wrong with each.

    Args:
        files: the case.
        required: modalities whose absence is an error.
        optional: modalities whose absence is a warning.
        source: the source image: the modality whose grid the others must have, but for those of OWN_GRID; where it
            can't be read, the first that can be.
        is_stripped: whether the images show the brain alone, over a background (but for those of OWN_GRID).
        brain_share: of the voxels, in training; None where the margin around the brain does not matter.

    Yields:
        One element for each modality; only one image is alive at a time unless the caller keeps it. Then one without an
        image where the brain's share is far from `brain_share`.
    """
    wanted = sorted(dict.fromkeys((*required, *optional)), key=lambda modality: modality != source)
    first: Image | None = None
    grid_of = source
    brain = _BrainSeen()
    seen: dict[int, Modality] = {}
    for modality in wanted:
        absence: Severity = "error" if modality in required else "warning"
        examined = _examine_modality(files, modality, absence=absence, is_stripped=is_stripped)
        examined = _told_apart(files, examined, seen)
        if examined.modality in OWN_GRID:
            yield examined
            continue
        if first is None and examined.image is not None:
            first, grid_of = replace(examined.image, voxels=_NO_VOXELS), modality
            examined = _counted_slices(files.case_id, examined, examined.image.grid)
        elif first is not None:
            examined = _compared(files.case_id, examined, first, grid_of)
        if brain_share is not None:
            brain.add(examined)
        yield examined
    if brain_share is not None and (what := brain.describe_margin(brain_share)):
        yield Examined(grid_of, None, (Finding(files.case_id, "warning", "margin", what, _HINTS["margin"]),))


class _BrainSeen:
    """The voxels where some image of a case is not background."""

    def __init__(self) -> None:
        self.mask: NDArray[np.bool_] | None = None
        self.is_known = True

    def add(self, examined: Examined) -> None:
        """Adds an image; one without a background leaves the brain unknown."""
        self.is_known &= all(finding.code != "no-background" for finding in examined.findings)
        if examined.image is not None:
            seen = examined.image.voxels != 0
            self.mask = seen if self.mask is None else np.logical_or(self.mask, seen, out=self.mask)

    def describe_margin(self, expected: float) -> str:
        """What is unusual about the margin; empty where nothing is, or nothing is known."""
        if self.mask is None or not self.is_known:
            return ""
        share = np.count_nonzero(self.mask) / self.mask.size
        if expected / MARGIN_FACTOR <= share <= expected * MARGIN_FACTOR:
            return ""
        margin = "larger" if share < expected else "smaller"
        return (
            f"the brain fills {share:.1%} of the voxels, {expected:.1%} in training: its empty margin is {margin}, "
            "and intensities are scaled by it"
        )


def say_rivals(files: CaseFiles, modality: Modality) -> Finding:
    """The error of a modality that has several files."""
    names = " and ".join(printable(path.name) for path in files.rivals[modality])
    what = f"{modality} exists {len(files.rivals[modality])} times: {names}"
    return Finding(files.case_id, "error", "duplicate-file", what, "Keep one of them.")


def clean_voxels(voxels: FloatVolume, *, is_stripped: bool = True) -> tuple[FloatVolume, tuple[Finding, ...]]:
    """Settles the background, sets stray NaN and infinities to 0 and says what is wrong with an image's intensities.

    Args:
        voxels: shape (x, y, z).
        is_stripped: whether the image shows the brain alone, over a background.

    Returns:
        The voxels, all finite (the same array where they were already), and findings of no case yet. More NaN or
        infinite voxels than MAX_NOT_FINITE_SHARE of the voxels that are not 0 are an error.
    """
    voxels, settled = settle_background(voxels) if is_stripped else (voxels, ())
    found = list(settled)
    low, high = float(voxels.min()), float(voxels.max())  # NaN wherever there is one
    if not np.isfinite([low, high]).all():
        finite = np.isfinite(voxels)
        bad, brain = int(finite.size - finite.sum()), int(np.count_nonzero(voxels))
        severity: Severity = "error" if bad > MAX_NOT_FINITE_SHARE * brain else "warning"
        consequence = f"at most {MAX_NOT_FINITE_SHARE:.0%} is accepted" if severity == "error" else "set to 0"
        what = f"{bad} voxels are NaN or infinite, {bad / brain:.2%} of those that are not 0: {consequence}"
        found.append(_finding(severity, "not-finite", what))
        voxels = np.where(finite, voxels, np.float32(0))
        low, high = float(voxels.min()), float(voxels.max())
        if severity == "error":  # what is left of the image says nothing
            return voxels, tuple(found)
    if low == high:
        found.append(_finding("error", "constant", f"constant image: every voxel is {low:g}"))
        return voxels, tuple(found)
    filled = np.count_nonzero(voxels)
    if filled < LEAST_FILLED_SHARE * voxels.size:
        what = f"almost empty: {filled} of {voxels.size} voxels are not 0, expected at least {LEAST_FILLED_SHARE:.1%}"
        found.append(_finding("error", "constant", what))
    elif low < 0:
        share = np.count_nonzero(voxels < 0) / voxels.size
        found.append(
            _finding("warning", "negative", f"negative intensities down to {low:g} in {share:.2%} of the voxels")
        )
    if max(-low, high) > ABSURD_INTENSITY:
        what = f"intensities from {low:g} to {high:g}, beyond {ABSURD_INTENSITY:g}"
        found.append(_finding("warning", "absurd", what))
    return voxels, tuple(found)


_HINTS: Final[dict[FindingCode, str]] = {
    "not-finite": "Replace NaN and infinities where the image is made.",
    "constant": "Give the image itself, not a blank placeholder; leave the file out if the sequence was not taken.",
    "negative": "Give intensities as the scanner or converter made them, not normalised ones.",
    "margin": "Pad or crop the images to about the field of view of the training data.",
    "absurd": "Check the header's scl_slope and the conversion.",
}


def _finding(severity: Severity, code: FindingCode, what: str) -> Finding:
    return Finding("", severity, code, what, _HINTS[code])


def _examine_modality(files: CaseFiles, modality: Modality, *, absence: Severity, is_stripped: bool) -> Examined:
    def without_image(severity: Severity, code: FindingCode, what: str, hint: str) -> Examined:
        return Examined(modality, None, (Finding(files.case_id, severity, code, what, hint),))

    if modality in files.rivals:
        return Examined(modality, None, (say_rivals(files, modality),))
    if missing_modalities(files, [modality]):
        what = f"{modality} is missing: no {printable(files.case_id)}-{modality}.nii.gz or .nii{images_beside(files)}"
        hint = "The case is segmented by the members that do without it."
        if absence == "error":
            hint = f"Add the file{', or rename the one that it is' if files.others else ''}."
        return without_image(absence, "missing-modality", what, hint)
    label = f"{modality} ({printable(files.images[modality].name)})"
    try:
        image = read_image(files.images[modality])
    except ImageError as error:
        return without_image("error", error.code, f"{label}: {error}", error.hint)
    voxels, found = clean_voxels(image.voxels, is_stripped=is_stripped and modality not in OWN_GRID)
    if modality in OWN_GRID:  # a CT: air is -1000 Hounsfield units
        found = tuple(finding for finding in found if finding.code != "negative")
    findings = tuple(
        replace(finding, case_id=files.case_id, what=f"{label}: {finding.what}")
        for finding in (*image.findings, *found)
    )
    return Examined(modality, None if errors_among(findings) else replace(image, voxels=voxels), findings)


def _told_apart(files: CaseFiles, examined: Examined, seen: dict[int, Modality]) -> Examined:
    """Warns of an image that is another modality's: a slip in copying or linking that nothing else shows.

    Args:
        files: the case.
        examined: one of its images.
        seen: checksums of the voxels of those before it; this one's is entered.
    """
    if examined.image is None:
        return examined
    voxels = examined.image.voxels
    checksum = zlib.crc32(np.ascontiguousarray(voxels.T).data)  # ten times as fast as a hash, and enough for a warning
    twin = seen.setdefault(checksum, examined.modality)
    if twin == examined.modality:
        return examined
    names = [printable(files.images[modality].name) for modality in (examined.modality, twin)]
    what = f"{examined.modality} ({names[0]}) holds the same voxels as {twin} ({names[1]}): the result is unreliable"
    hint = "Give each modality its own image; leave a file out if the sequence was not taken."
    finding = Finding(files.case_id, "warning", "same-image", what, hint)
    return replace(examined, findings=(*examined.findings, finding))


def _counted_slices(case_id: str, examined: Examined, grid: Grid) -> Examined:
    """Warns of a volume that is one slice: networks and size rules are made for volumes."""
    if min(grid.shape) > 1:
        return examined
    what = f"{examined.modality}: a single slice of {times(grid.shape)} voxels: the result is unreliable"
    finding = Finding(case_id, "warning", "single-slice", what, "Give the whole volume.")
    return replace(examined, findings=(*examined.findings, finding))


def _compared(case_id: str, examined: Examined, first: Image, first_modality: Modality) -> Examined:
    image = examined.image
    difference = _difference(image, first) if image is not None else ""
    if not difference:
        return examined
    what = f"{examined.modality}: its grid is not {first_modality}'s: {difference}"
    hint = f"Resample all modalities to {first_modality}'s grid (co-registered)."
    return Examined(examined.modality, None, (*examined.findings, Finding(case_id, "error", "grid", what, hint)))


def _difference(image: Image, first: Image) -> str:
    """As `grid_difference`, but an image that doesn't say where it lies (it has a warning) lies upon the other."""
    grid = image.grid
    if not (image.is_oriented and first.is_oriented) and np.allclose(grid.spacing_mm, first.grid.spacing_mm, rtol=1e-3):
        grid = replace(grid, affine=first.grid.affine)
    return grid_difference(grid, first.grid)
