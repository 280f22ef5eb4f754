"""Brain extraction: the brain's mask on t1c's own grid, and whether it is plausible (docs/brain.md)."""

from dataclasses import dataclass
from typing import Final

import cc3d
import numpy as np
from numpy.typing import NDArray

from metseg.dicom.brain_network import BRAIN_MASK_HINT, BrainNotFoundError, predict_brain
from metseg.dicom.brain_rim import examine_rim
from metseg.findings import Finding, warning
from metseg.predict.brain_networks import BrainNetworks, load_brain_networks
from metseg.space.components import bounding_box, largest_component
from metseg.space.grid import Affine, FloatVolume, Grid

__all__ = ["BrainMask", "BrainNotFoundError", "extract_brain", "weigh_brain"]

HALF: Final = 0.5

POSSIBLE_ML: Final = (600.0, 2500.0)
"""Volumes of masks that may be a head's brain with its CSF; others are an error. Chosen, around the usual ones."""

USUAL_ML: Final = (900.0, 2100.0)
"""Adults have 1,000 to 2,000 ml inside the skull; others are a warning."""

STRAY_SHARE: Final = 0.05
"""More of the brain than this outside its largest component is a warning."""

CUT_CM2: Final = 15.0
"""Area of the brain on the border of the field of view, beyond which the field cuts it: more than the brain stem."""

SHOWN_ML: Final = 0.1
"""Growth over less than this is not worth a remark."""


@dataclass(frozen=True, slots=True)
class BrainMask:
    """Where the brain is.

    Attributes:
        mask: shape (x, y, z) of t1c: one component without holes.
        volume_ml: of the mask.
        grown_ml: what joined as enhancing tissue that the networks had cut.
        source: what found it, name and version.
        findings: what makes it doubtful; none of them an error.
    """

    mask: NDArray[np.bool_]
    volume_ml: float
    grown_ml: float
    source: str
    findings: tuple[Finding, ...]


def extract_brain(
    t1c: FloatVolume, affine: Affine, *, networks: BrainNetworks | None = None, corrects_rim: bool = True
) -> BrainMask:
    """Finds the brain of a whole head.

    Args:
        t1c: shape (x, y, z), a T1 with or without contrast agent; NaN counts as its least value.
        affine: voxel indices to RAS millimetres; any orientation, oblique or not, any spacing.
        networks: None reads the bundled ones.
        corrects_rim: whether dark tissue at the surface is peeled off, and enhancing tissue joins. False for what the
            networks say.

    Returns:
        The mask on the image's own grid.

    Raises:
        BrainNotFoundError: there is no brain, or what was found can't be one.
        WeightsError: the bundled weights are incomplete or altered.
    """
    grid = Grid((t1c.shape[0], t1c.shape[1], t1c.shape[2]), affine)
    image = _finite(t1c)
    networks = networks or load_brain_networks()
    found = predict_brain(image, grid, networks) >= HALF
    mask = _largest_filled(found)
    stray = 1 - float((found & mask).sum()) / max(float(found.sum()), 1)
    millilitres = grid.voxel_volume_mm3 / 1000
    _require_possible(float(mask.sum()) * millilitres)
    grown_ml = 0.0
    if corrects_rim:
        rim = examine_rim(image, mask, grid)
        grown_ml = float(rim.cut.sum()) * millilitres
        mask = _largest_filled(mask & ~rim.dark | rim.cut)
    volume_ml = float(mask.sum()) * millilitres
    findings = weigh_brain(volume_ml) + _look_at(grown_ml, stray, _cut_cm2(mask, grid))
    return BrainMask(mask, volume_ml, grown_ml, networks.package, findings)


def weigh_brain(volume_ml: float) -> tuple[Finding, ...]:
    """A warning where a mask, of the networks or of the caller, is smaller or larger than adults' brains."""
    low, high = USUAL_ML
    if low <= volume_ml <= high:
        return ()
    what = f"brain mask of {volume_ml:.0f} ml, expected {low:.0f} to {high:.0f} ml: look at it"
    return (warning("brain-mask", what, BRAIN_MASK_HINT),)


def _finite(image: FloatVolume) -> FloatVolume:
    finite = np.isfinite(image)
    if not finite.any():
        raise BrainNotFoundError("t1c: no finite value, expected a head", hint=BRAIN_MASK_HINT)
    return np.where(finite, image, image[finite].min()).astype(np.float32)


def _largest_filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest component, without the holes that it encloses."""
    whole = largest_component(mask)
    box = bounding_box(whole)
    if box is None:
        return whole
    around = np.pad(~whole[box], 1, constant_values=True)
    regions = cc3d.connected_components(around, connectivity=6)
    whole[box] = (regions != regions[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return whole


def _require_possible(volume_ml: float) -> None:
    low, high = POSSIBLE_ML
    if not low <= volume_ml <= high:
        raise BrainNotFoundError(
            f"t1c: the brain found has {volume_ml:.0f} ml, expected {low:.0f} to {high:.0f} ml", hint=BRAIN_MASK_HINT
        )


def _cut_cm2(mask: NDArray[np.bool_], grid: Grid) -> float:
    """Area of the mask on the faces of the field of view, the largest of the six."""
    sides = grid.spacing_mm
    areas = []
    for axis in range(3):
        pixel_cm2 = grid.voxel_volume_mm3 / sides[axis] / 100
        areas += [float(np.take(mask, end, axis).sum()) * pixel_cm2 for end in (0, -1)]
    return max(areas)


def _look_at(grown_ml: float, stray: float, cut_cm2: float) -> tuple[Finding, ...]:
    """What makes the networks' mask doubtful, beside its volume."""
    found: list[str] = []
    if stray > STRAY_SHARE:
        found.append(f"{stray:.0%} of the brain found lies apart from the largest part and was left out")
    if cut_cm2 > CUT_CM2:
        found.append(f"the field of view cuts the brain: {cut_cm2:.0f} cm2 on its border")
    if grown_ml >= SHOWN_ML:
        found.append(f"brain mask grown by {grown_ml:.1f} ml over enhancing tissue at its surface")
    return tuple(warning("brain-mask", what, BRAIN_MASK_HINT) for what in found)
