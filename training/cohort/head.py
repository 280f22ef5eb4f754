"""A head around a simulated brain: CSF, skull and scalp, as a CT and as MR images show them."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metseg.labels import ET, NETC, SNFH, LabelMap
from training.cohort.anatomy import Anatomy
from training.cohort.calcifications import calcify
from training.cohort.ct_settings import CtSettings
from training.cohort.fields import Volume, smooth_field, uniform

AIR_HU: Final = -1000.0
_DISTANCE_STEP: Final = 2
# Scalp and skull at their thickest, and the head's tilt, at scale 1.
_ROOM_MM: Final = 26


@dataclass(frozen=True, slots=True)
class Head:
    """One individual's head, RAS, the brain's voxel size. All maps have the shape (x, y, z).

    Attributes:
        offset: first voxel of the brain's working box in the head's.
        brain: the brain's mask.
        around: what lies around it.
        hounsfield: an ideal CT.
        t1c: an ideal contrast T1, units of the scaled image.
    """

    offset: tuple[int, int, int]
    brain: NDArray[np.bool_]
    around: "Surroundings"
    hounsfield: Volume
    t1c: Volume

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Everything but air."""
        return self.brain | self.around.fluid | self.around.bone | self.around.skin


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around a brain. All maps have the head's shape.

    Attributes:
        fluid: CSF outside the brain's mask.
        bone: the skull.
        marrow: 0 at the skull's tables, 1 in its middle; any value outside the skull.
        skin: the scalp.
        texture: unevenness of the scalp's fat, about 1.
    """

    fluid: NDArray[np.bool_]
    bone: NDArray[np.bool_]
    marrow: Volume
    skin: NDArray[np.bool_]
    texture: Volume


@dataclass(frozen=True, slots=True)
class SurroundingLevels:
    """Intensities around the brain in one modality, units of the scaled image: CSF, marrow, and the scalp's fat."""

    fluid: float
    marrow: float
    fat: float


def paint_around(image: Volume, around: Surroundings, levels: SurroundingLevels) -> Volume:
    """An ideal image of the whole head.

    Args:
        image: shape of the head: the brain, anything outside it.
        around: what lies outside it.
        levels: how bright that is.
    """
    painted = image.copy()
    painted[around.fluid] = levels.fluid
    painted[around.bone] = (levels.marrow * around.marrow)[around.bone]
    painted[around.skin] = (levels.fat * around.texture)[around.skin]
    return painted.astype(np.float32)


def pad_to_head(volume: NDArray[Any], head: Head) -> NDArray[Any]:
    """A map of the brain's working box in the head's box, 0 around it."""
    padded = np.zeros(head.brain.shape, dtype=volume.dtype)
    padded[tuple(slice(first, first + side) for first, side in zip(head.offset, volume.shape, strict=True))] = volume
    return padded


def build_head(
    anatomy: Anatomy,
    t1c: Volume,
    labels: LabelMap,
    settings: CtSettings,
    rng: np.random.Generator,
    *,
    white_t1c: float,
) -> Head:
    """Puts a brain with its lesions into a head.

    The head is open below the brain, as fields of view are.

    Args:
        anatomy: tissue maps on the working box.
        t1c: the brain's contrast T1 there, lesions painted.
        labels: their labels.
        settings: the distributions.
        rng: source of randomness.
        white_t1c: level of white matter in `t1c`.
    """
    scale = anatomy.scale
    room = int(np.ceil(_ROOM_MM * scale))
    around = ((room, room), (room, room), (0, room))
    brain = np.pad(anatomy.mask, around)
    outside_mm = _distance_outside(brain) / scale
    gap = uniform(rng, settings.gap_mm)
    uneven = 1 + settings.skull_unevenness * smooth_field(rng, brain.shape, 40 * scale)
    skull = uniform(rng, settings.skull_mm) * np.clip(uneven, 0.4, 2)
    scalp = uniform(rng, settings.scalp_mm) * np.clip(2 - uneven, 0.5, 1.5)
    bone = (outside_mm > gap) & (outside_mm <= gap + skull)
    skin = (outside_mm > gap + skull) & (outside_mm <= gap + skull + scalp)
    fluid = (outside_mm > 0) & (outside_mm <= gap)

    grey, csf = uniform(rng, settings.grey_hu), uniform(rng, settings.csf_hu)
    hounsfield = np.full(brain.shape, AIR_HU, dtype=np.float32)
    inner = _brain_hounsfield(anatomy, labels, settings, rng, grey=grey, csf=csf)
    hounsfield[fluid] = csf
    compact = uniform(rng, settings.bone_hu)
    middle = 1 - np.abs(2 * (outside_mm - gap) / skull - 1)  # 0 at the tables, 1 in the diploe
    density = compact * (1 - (1 - uniform(rng, settings.diploe_share)) * middle)
    hounsfield[bone] = density[bone]
    hounsfield[skin] = uniform(rng, settings.scalp_hu) + 30 * smooth_field(rng, brain.shape, 6 * scale)[skin]

    marrow = uniform(rng, settings.marrow_t1c) * white_t1c
    texture = np.clip(1 + 0.25 * smooth_field(rng, brain.shape, 5 * scale), 0.4, 1.8)
    levels = SurroundingLevels(0.3 * white_t1c, marrow, uniform(rng, settings.fat_t1c) * white_t1c)
    outside = Surroundings(fluid, bone, middle, skin, texture)
    image = paint_around(np.pad(t1c, around), outside, levels)
    # Last, so that what is drawn before does not depend on it.
    hounsfield[brain] = np.pad(calcify(inner, anatomy, settings, rng), around)[brain]
    return Head((room, room, 0), brain, outside, hounsfield, image)


def _distance_outside(mask: NDArray[np.bool_]) -> Volume:
    """Distance to the brain in voxels, 0 inside; from every second voxel, interpolated: accurate to half a voxel."""
    coarse = mask[::_DISTANCE_STEP, ::_DISTANCE_STEP, ::_DISTANCE_STEP]
    distance = ndimage.distance_transform_edt(~coarse).astype(np.float32) * _DISTANCE_STEP
    index = [np.arange(side, dtype=np.float32) / _DISTANCE_STEP for side in mask.shape]
    for axis, places in enumerate(index):
        low = np.minimum(places.astype(int), distance.shape[axis] - 1)
        high = np.minimum(low + 1, distance.shape[axis] - 1)
        shape = [-1 if other == axis else 1 for other in range(3)]
        share = (places - low).reshape(shape)
        distance = np.take(distance, low, axis) * (1 - share) + np.take(distance, high, axis) * share
    return np.where(mask, 0, np.maximum(distance, 0.5)).astype(np.float32)


def _brain_hounsfield(
    anatomy: Anatomy, labels: LabelMap, settings: CtSettings, rng: np.random.Generator, *, grey: float, csf: float
) -> Volume:
    white = grey - uniform(rng, settings.white_below_grey_hu)
    hounsfield = grey * anatomy.gm + white * anatomy.wm + csf * anatomy.csf
    levels = {ET: grey + uniform(rng, settings.tumour_hu), NETC: grey + uniform(rng, settings.necrosis_hu)}
    levels[SNFH] = white + uniform(rng, settings.oedema_hu)
    for label, level in levels.items():
        hounsfield[labels == label] = level
    return np.asarray(hounsfield, dtype=np.float32)


def find_cupping(head: Head, depth: Volume, scale: float) -> NDArray[Any]:
    """Where beam hardening makes the brain look denser: 1 under the skull, fading inwards over 12 mm.

    Args:
        head: see `build_head`.
        depth: distance to the brain's surface on its working box, voxels.
        scale: voxels per millimetre at scale 1.
    """
    return pad_to_head(np.exp(-depth / (12 * scale)).astype(np.float32), head) * head.brain
