"""Pictures of a case: three planes through its largest lesion, and a thumbnail of every lesion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.findings import plain_number
from metseg.labels import LabelMap, Region
from metseg.report.canvas import Canvas, Frame, Outline, Pixels
from metseg.report.case_volumes import CaseVolumes
from metseg.report.lesions import Lesion
from metseg.report.slices import LETTERS, RADIOLOGICAL, PlaneName, View, choose_view, cut, measure_pixel
from metseg.space.components import bounding_box
from metseg.space.grid import FloatVolume
from metseg.systems import Modality, System

PLANES: Final[tuple[PlaneName, ...]] = ("axial", "coronal", "sagittal")

WIDTH_PX: Final = 960
"""Of the three planes together; they share one scale, within limits for very small and very large fields of view."""
PX_PER_MM_RANGE: Final = (0.5, 4.0)
MARGIN_MM: Final = 8.0
"""Around the brain, for letters and the scale bar."""
GAP_PX: Final = 4
FOOTER_PX: Final = 24
SCALE_BAR_MM: Final = 20.0

THUMBNAIL_PX: Final = 118
THUMBNAIL_COLUMNS: Final = 8
THUMBNAIL_MIN_MM: Final = 30.0
THUMBNAIL_MARGIN: Final = 1.5
"""Side of a thumbnail over the lesion's longest side."""
CAPTION_PX: Final = 18
THUMBNAIL_BAR_MM: Final = 10.0

MAX_THUMBNAILS: Final = 400
"""More lesions than this are a failure, not a patient; the picture then says what it leaves out."""

WINDOW_PERCENTILES: Final = (0.5, 99.7)
"""Of the voxels that are not 0: grey-scale ends."""

REFERENCE_COLOUR: Final = "#ffffff"

NO_CORE: Final = "no core"
"""Of a lesion that is oedema alone: in place of a diameter."""

MM3_PER_CM3: Final = 1000


def draw_planes(volumes: CaseVolumes, lesions: Sequence[Lesion]) -> bytes:
    """Axial, coronal and sagittal slices through the largest lesion, or through the brain's middle where there is none.

    Each modality has a row with the segmentation's contours; below them is the first modality with the reference's.

    Args:
        volumes: of one case, with at least one image.
        lesions: measured on the label map, the largest first.

    Returns:
        A WebP file.
    """
    view = choose_view(volumes.grid)
    shown = _choose_modalities(volumes)
    images = {modality: view.turn(volumes.images[modality]) for modality in shown}
    labels = view.turn(volumes.labels)
    rows: list[tuple[Modality, str, LabelMap]] = [(modality, modality, labels) for modality in shown]
    if volumes.reference is not None:
        rows.append((shown[0], "reference", view.turn(volumes.reference)))
    box = _find_brain_box(images.values(), view)
    px_per_mm = _choose_scale(box, view)
    sizes = {plane: _measure_px(box, view, plane, px_per_mm) for plane in PLANES}
    width = sum(size[0] for size in sizes.values()) + GAP_PX * (len(PLANES) - 1)
    height = max(size[1] for size in sizes.values()) + GAP_PX
    canvas = Canvas(width, height * len(rows) + FOOTER_PX)
    at = _choose_slices(volumes, lesions, view, box)
    for number, (modality, title, shown_labels) in enumerate(rows):
        window = _choose_window(images[modality])
        left = 0
        for plane in PLANES:
            frame = Frame(left, number * height, *sizes[plane])
            part = _crop(box, plane)
            image = cut(images[modality], plane, at[plane])[part]
            outlines = outline_regions(cut(shown_labels, plane, at[plane])[part], volumes.system)
            canvas.add_panel(_scale_to_grey(image, window), frame, outlines)
            _annotate(canvas, frame, plane, f"{title}, {plane}", px_per_mm)
            left += sizes[plane][0] + GAP_PX
    _add_footer(canvas, width, height * len(rows) + FOOTER_PX // 2, volumes)
    return canvas.to_webp()


def draw_thumbnails(volumes: CaseVolumes, lesions: Sequence[Lesion]) -> bytes | None:
    """Every lesion in its axial slice, ordered by volume; the reference's whole region and core as broken white lines.

    Args:
        volumes: of the case, with at least one image.
        lesions: measured on the label map, the largest first.

    Returns:
        A WebP file; None where there is no lesion.
    """
    if not lesions:
        return None
    view = choose_view(volumes.grid)
    modality = _choose_modalities(volumes)[0]
    turned = _Turned(
        view=view,
        image=view.turn(volumes.images[modality]),
        labels=view.turn(volumes.labels),
        reference=None if volumes.reference is None else view.turn(volumes.reference),
        window=_choose_window(volumes.images[modality]),
        system=volumes.system,
    )
    shown = lesions[:MAX_THUMBNAILS]
    columns = min(THUMBNAIL_COLUMNS, max(4, len(shown)))
    rows = -(-len(shown) // columns)
    cell = THUMBNAIL_PX + CAPTION_PX
    width = columns * (THUMBNAIL_PX + GAP_PX) - GAP_PX
    canvas = Canvas(width, rows * cell + FOOTER_PX)
    for place, lesion in enumerate(shown):
        row, column = divmod(place, columns)
        frame = Frame(column * (THUMBNAIL_PX + GAP_PX), row * cell, THUMBNAIL_PX, THUMBNAIL_PX)
        _draw_thumbnail(canvas, frame, lesion, turned)
    left_out = len(lesions) - len(shown)
    more = f"; {left_out} smaller lesions are not shown" if left_out else ""
    dashes = "; white broken lines: reference" if volumes.reference is not None else ""
    text = f"{modality}, axial, the patient's right on the left{dashes}{more}"
    canvas.add_text(4, rows * cell + FOOTER_PX // 2, text, size_px=11)
    return canvas.to_webp()


def outline_regions(labels: NDArray[np.uint8], system: System) -> tuple[Outline, ...]:
    """Contours of the regions of one slice of a label map."""
    kinds = [system.region_kinds[name] for name in system.regions.names]
    return tuple(Outline(system.regions.mask(labels, kind.region), kind.colour, kind.line_px) for kind in kinds)


def _outline_reference(labels: NDArray[np.uint8], system: System) -> tuple[Outline, ...]:
    """Contours of the whole region and the core."""
    regions = system.regions
    masks = (regions.mask(labels, region) for region in (regions.whole, regions.core))
    return tuple(Outline(mask, REFERENCE_COLOUR, dashed=True) for mask in masks)


def _choose_modalities(volumes: CaseVolumes) -> list[Modality]:
    """The images that pictures show: those that the system asks for, else the first."""
    return [name for name in volumes.system.pictured if name in volumes.images] or list(volumes.images)[:1]


@dataclass(frozen=True, slots=True)
class _Turned:
    """Volumes as a reader looks at them, for the thumbnails."""

    view: View
    image: FloatVolume
    labels: LabelMap
    reference: LabelMap | None
    window: tuple[float, float]
    system: System


def _draw_thumbnail(canvas: Canvas, frame: Frame, lesion: Lesion, turned: _Turned) -> None:
    view = turned.view
    first, last = (np.array(view.turn_index(corner)) for corner in (lesion.box_first_voxel, lesion.box_last_voxel))
    low, high = np.minimum(first, last), np.maximum(first, last)
    place = [0.0, 0.0, 0.0]
    axial = view.axes[2]
    place[axial] = lesion.axial_slice
    index = int(view.turn_index((place[0], place[1], place[2]))[2])
    spacing = np.array(view.spacing_mm)
    side_mm = max(THUMBNAIL_MIN_MM, THUMBNAIL_MARGIN * float(((high - low + 1) * spacing)[:2].max()))
    parts = [_span_voxels((low[axis] + high[axis]) / 2, side_mm / spacing[axis]) for axis in (0, 1)]
    area = (parts[1], parts[0])

    def layer(volume: NDArray[np.generic]) -> NDArray[np.generic]:
        return _cut_padded(cut(volume, "axial", index), area)

    shown_labels = layer(turned.labels).astype(np.uint8)
    outlines = outline_regions(shown_labels, turned.system)
    if turned.reference is not None:
        outlines += _outline_reference(layer(turned.reference).astype(np.uint8), turned.system)
    canvas.add_panel(_scale_to_grey(layer(turned.image).astype(np.float32), turned.window), frame, outlines)
    canvas.add_text(frame.left + 5, frame.top + 9, f"{lesion.number}", size_px=12)
    width_mm = (parts[0][1] - parts[0][0]) * spacing[0]
    canvas.add_scale_bar(frame, THUMBNAIL_PX / float(width_mm), THUMBNAIL_BAR_MM)
    diameter_mm = lesion.longest_axial_diameter_mm
    caption = f"{show_volume(lesion.volume_mm3)}, {NO_CORE if diameter_mm is None else f'{diameter_mm:.1f} mm'}"
    middle = frame.left + THUMBNAIL_PX / 2
    canvas.add_text(middle, frame.top + THUMBNAIL_PX + CAPTION_PX // 2, caption, anchor="center", size_px=10)


def show_volume(volume_mm3: float) -> str:
    """A volume in the unit that reads best: 27 mm3, 1.25 cm3."""
    if volume_mm3 < MM3_PER_CM3:
        return f"{plain_number(volume_mm3)} mm³"
    return f"{plain_number(volume_mm3 / MM3_PER_CM3)} cm³"


def _span_voxels(centre: float, length: float) -> tuple[int, int]:
    """First and last + 1 of a stretch of voxels; may overhang."""
    half = max(length / 2, 1)
    return round(centre - half), round(centre + half) + 1


def _cut_padded(layer: NDArray[np.generic], area: tuple[tuple[int, int], tuple[int, int]]) -> NDArray[np.generic]:
    """A rectangle of a slice, zeros where it overhangs."""
    out = np.zeros([stop - start for start, stop in area], dtype=layer.dtype)
    inside = tuple(slice(max(start, 0), min(stop, side)) for (start, stop), side in zip(area, layer.shape, strict=True))
    target = tuple(slice(part.start - start, part.stop - start) for part, (start, _) in zip(inside, area, strict=True))
    out[target] = layer[inside]
    return out


def _find_brain_box(images: Iterable[FloatVolume], view: View) -> tuple[slice, ...]:
    """The box of what is not 0 in the turned images, with room for letters around it."""
    boxes = [bounding_box(image[::2, ::2, ::2] != 0) for image in images]
    found = [box for box in boxes if box is not None]
    x, y, z = (view.grid.shape[axis] for axis in view.axes)
    if not found:
        return slice(0, x), slice(0, y), slice(0, z)
    margins = [round(MARGIN_MM / side) for side in view.spacing_mm]
    return tuple(
        slice(
            max(0, 2 * min(box[axis].start for box in found) - margins[axis]),
            min(limit, 2 * max(box[axis].stop for box in found) + margins[axis]),
        )
        for axis, limit in enumerate((x, y, z))
    )


def _choose_scale(box: tuple[slice, ...], view: View) -> float:
    """Pixels per millimetre with which the three planes fill the width."""
    width_mm = sum(_measure_mm(box, view, plane)[0] for plane in PLANES)
    low, high = PX_PER_MM_RANGE
    return min(max(WIDTH_PX / width_mm, low), high)


def _measure_mm(box: tuple[slice, ...], view: View, plane: PlaneName) -> tuple[float, float]:
    rows, columns = _crop(box, plane)
    row_mm, column_mm = measure_pixel(view, plane)
    return (columns.stop - columns.start) * column_mm, (rows.stop - rows.start) * row_mm


def _measure_px(box: tuple[slice, ...], view: View, plane: PlaneName, px_per_mm: float) -> tuple[int, int]:
    width, height = _measure_mm(box, view, plane)
    return max(1, round(width * px_per_mm)), max(1, round(height * px_per_mm))


def _crop(box: tuple[slice, ...], plane: PlaneName) -> tuple[slice, slice]:
    """Rows and columns of the box in a slice."""
    x, y, z = box
    return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]


def _choose_slices(
    volumes: CaseVolumes, lesions: Sequence[Lesion], view: View, box: tuple[slice, ...]
) -> dict[PlaneName, int]:
    """For each plane the slice with most of the largest lesion's core, or of its oedema where it has none.

    Where there is no lesion: the brain's middle.
    """
    if not lesions:
        x, y, z = ((part.start + part.stop - 1) // 2 for part in box)
        return {"sagittal": x, "coronal": y, "axial": z}
    first, last = lesions[0].box_first_voxel, lesions[0].box_last_voxel
    place = tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))
    # Within its box the largest lesion may have neighbours, which hardly matter for choosing a slice.
    inner, regions = volumes.labels[place], volumes.system.regions
    core = regions.mask(inner, regions.core)
    mask = core if core.any() else regions.whole_mask(inner)
    best = [first[axis] + _find_fullest(mask.sum(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    x, y, z = (int(index) for index in view.turn_index((best[0], best[1], best[2])))
    return {"sagittal": x, "coronal": y, "axial": z}


def _find_fullest(areas: NDArray[np.intp]) -> int:
    """The slice with the largest area, of equal ones the middle one."""
    equal = np.flatnonzero(areas == areas.max())
    return int(equal[equal.size // 2])


def _choose_window(image: FloatVolume) -> tuple[float, float]:
    values = image[::2, ::2, ::2]
    values = values[values != 0]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def _scale_to_grey(image: NDArray[np.float32], window: tuple[float, float]) -> Pixels:
    low, high = window
    scaled = np.clip((image - low) * (255 / (high - low)), 0, 255)
    scaled[image == 0] = 0
    grey: Pixels = scaled.astype(np.uint8)
    return grey


def _annotate(canvas: Canvas, frame: Frame, plane: PlaneName, title: str, px_per_mm: float) -> None:
    left, right, top, bottom = LETTERS[plane]
    middle_x, middle_y = frame.left + frame.width / 2, frame.top + frame.height / 2
    canvas.add_text(frame.left + 5, middle_y, left)
    canvas.add_text(frame.left + frame.width - 5, middle_y, right, anchor="right")
    canvas.add_text(middle_x, frame.top + 9, top, anchor="center")
    canvas.add_text(middle_x, frame.top + frame.height - 9, bottom, anchor="center")
    canvas.add_text(frame.left + 5, frame.top + 9, title, size_px=11)
    canvas.add_scale_bar(frame, px_per_mm, SCALE_BAR_MM)


def _find_shown_regions(volumes: CaseVolumes) -> list[Region]:
    """The nested regions, and of the others those that occur."""
    regions = volumes.system.regions
    return [*regions.nested, *(other for other in regions.disjoint if regions.mask(volumes.labels, other).any())]


def _add_footer(canvas: Canvas, width: int, y: int, volumes: CaseVolumes) -> None:
    canvas.add_text(4, y, RADIOLOGICAL, size_px=11)
    x = width - 4.0
    for region in reversed(_find_shown_regions(volumes)):
        name, colour = region.name, volumes.system.region_kinds[region.name].colour
        canvas.add_text(x, y, name, colour=colour, anchor="right", size_px=12)
        x -= 26 if len(name) <= 2 else 7 * len(name)  # noqa: PLR2004 - letters of a region's short name
    canvas.add_text(x, y, "contours:", anchor="right", size_px=11)
