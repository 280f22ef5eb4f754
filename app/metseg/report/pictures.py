"""Pictures of a case: three planes through its largest lesion, and a thumbnail of every lesion."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metseg.labels import ET, METASTASIS, NETC, RC, LabelMap, whole_tumour
from metseg.report.canvas import Canvas, Frame, Outline, Pixels
from metseg.report.lesions import Lesion
from metseg.report.slices import LETTERS, RADIOLOGICAL, PlaneName, View, cut, plan_view, plane_spacing_mm
from metseg.space.components import bounding_box
from metseg.space.grid import FloatVolume, Grid
from metseg.systems import Modality, SystemName

SHOWN_MODALITIES: Final[tuple[Modality, ...]] = ("t1c", "t2f", "ct")
"""Enhancing lesions show on the first, oedema on the second; on the CT one sees whether it was registered well."""

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

COLOURS: Final = {"WT": "#56b4e9", "TC": "#f0e442", "ET": "#d55e00", "RC": "#cc79a7", "metastasis": "#d55e00"}
"""Okabe and Ito's palette, told apart by colour-blind readers too."""
LINE_PX: Final = {"WT": 1.2, "TC": 2.6, "ET": 1.2, "RC": 1.2, "metastasis": 1.2}
"""TC and ET often end in the same place: the wider line shows on both sides of the narrower one."""
REFERENCE_COLOUR: Final = "#ffffff"


@dataclass(frozen=True, slots=True)
class Scene:
    """What the pictures of a case are made of, all on one grid.

    Attributes:
        grid: of everything else.
        images: by modality; at least one.
        labels: the segmentation.
        lesions: measured on `labels`, the largest first.
        reference: the label map to compare with, where there is one.
        system: what the labels mean.
    """

    grid: Grid
    images: Mapping[Modality, FloatVolume]
    labels: LabelMap
    lesions: tuple[Lesion, ...]
    reference: LabelMap | None = None
    system: SystemName = "brats"


def draw_planes(scene: Scene) -> bytes:
    """Axial, coronal and sagittal slices through the largest lesion, or through the brain's middle where there is none.

    One row a modality with the segmentation's contours; below them the first modality with the reference's.

    Returns:
        A WebP file.
    """
    view = plan_view(scene.grid)
    shown = [modality for modality in SHOWN_MODALITIES if modality in scene.images] or list(scene.images)[:1]
    images = {modality: view.turn(scene.images[modality]) for modality in shown}
    labels = view.turn(scene.labels)
    rows: list[tuple[Modality, str, LabelMap]] = [(modality, modality, labels) for modality in shown]
    if scene.reference is not None:
        rows.append((shown[0], "reference", view.turn(scene.reference)))
    box = _brain_box(images.values(), view)
    px_per_mm = _scale(box, view)
    sizes = {plane: _size_px(box, view, plane, px_per_mm) for plane in PLANES}
    width = sum(size[0] for size in sizes.values()) + GAP_PX * (len(PLANES) - 1)
    height = max(size[1] for size in sizes.values()) + GAP_PX
    canvas = Canvas(width, height * len(rows) + FOOTER_PX)
    at = _planes_through(scene, view, box)
    for number, (modality, title, shown_labels) in enumerate(rows):
        window = _window(images[modality])
        left = 0
        for plane in PLANES:
            frame = Frame(left, number * height, *sizes[plane])
            part = _crop(box, plane)
            image = cut(images[modality], plane, at[plane])[part]
            outlines = region_outlines(cut(shown_labels, plane, at[plane])[part], scene.system)
            canvas.add_panel(_grey(image, window), frame, outlines)
            _annotate(canvas, frame, plane, f"{title}, {plane}", px_per_mm)
            left += sizes[plane][0] + GAP_PX
    _add_footer(canvas, width, height * len(rows) + FOOTER_PX // 2, _shown_regions(scene))
    return canvas.to_webp()


def draw_thumbnails(scene: Scene) -> bytes | None:
    """Every lesion in its axial slice, ordered by volume; the reference's whole tumour and core as broken white lines.

    Returns:
        A WebP file; None where there is no lesion.
    """
    if not scene.lesions:
        return None
    view = plan_view(scene.grid)
    modality = next((name for name in SHOWN_MODALITIES if name in scene.images), next(iter(scene.images)))
    volumes = _Turned(
        view=view,
        image=view.turn(scene.images[modality]),
        labels=view.turn(scene.labels),
        reference=None if scene.reference is None else view.turn(scene.reference),
        window=_window(scene.images[modality]),
        system=scene.system,
    )
    shown = scene.lesions[:MAX_THUMBNAILS]
    columns = min(THUMBNAIL_COLUMNS, max(4, len(shown)))
    rows = -(-len(shown) // columns)
    cell = THUMBNAIL_PX + CAPTION_PX
    width = columns * (THUMBNAIL_PX + GAP_PX) - GAP_PX
    canvas = Canvas(width, rows * cell + FOOTER_PX)
    for place, lesion in enumerate(shown):
        row, column = divmod(place, columns)
        frame = Frame(column * (THUMBNAIL_PX + GAP_PX), row * cell, THUMBNAIL_PX, THUMBNAIL_PX)
        _draw_thumbnail(canvas, frame, lesion, volumes)
    left_out = len(scene.lesions) - len(shown)
    more = f"; {left_out} smaller lesions are not shown" if left_out else ""
    dashes = "; white broken lines: reference" if scene.reference is not None else ""
    text = f"{modality}, axial, the patient's right on the left{dashes}{more}"
    canvas.add_text(4, rows * cell + FOOTER_PX // 2, text, size_px=11)
    return canvas.to_webp()


def region_outlines(labels: NDArray[np.uint8], system: SystemName = "brats") -> tuple[Outline, ...]:
    """Contours of WT, TC, ET and RC of one slice of a label map, or of its metastases."""
    if system == "radiosurgery":
        name = "metastasis"
        return (Outline(labels == METASTASIS, COLOURS[name], LINE_PX[name]),)
    wt = whole_tumour(labels)
    masks = {"WT": wt, "TC": (labels == ET) | (labels == NETC), "ET": labels == ET, "RC": labels == RC}
    return tuple(Outline(mask, COLOURS[name], LINE_PX[name]) for name, mask in masks.items())


def _reference_outlines(labels: NDArray[np.uint8]) -> tuple[Outline, ...]:
    wt = whole_tumour(labels)
    core = (labels == ET) | (labels == NETC)
    return tuple(Outline(mask, REFERENCE_COLOUR, dashed=True) for mask in (wt, core))


@dataclass(frozen=True, slots=True)
class _Turned:
    """Volumes as a reader looks at them, for the thumbnails."""

    view: View
    image: FloatVolume
    labels: LabelMap
    reference: LabelMap | None
    window: tuple[float, float]
    system: SystemName


def _draw_thumbnail(canvas: Canvas, frame: Frame, lesion: Lesion, volumes: _Turned) -> None:
    view = volumes.view
    first, last = (np.array(view.turn_index(corner)) for corner in (lesion.box_first_voxel, lesion.box_last_voxel))
    low, high = np.minimum(first, last), np.maximum(first, last)
    place = [0.0, 0.0, 0.0]
    axial = view.axes[2]
    place[axial] = lesion.axial_slice
    index = int(view.turn_index((place[0], place[1], place[2]))[2])
    spacing = np.array(view.spacing_mm)
    side_mm = max(THUMBNAIL_MIN_MM, THUMBNAIL_MARGIN * float(((high - low + 1) * spacing)[:2].max()))
    parts = [_around((low[axis] + high[axis]) / 2, side_mm / spacing[axis]) for axis in (0, 1)]
    area = (parts[1], parts[0])

    def layer(volume: NDArray[np.generic]) -> NDArray[np.generic]:
        return _cut_padded(cut(volume, "axial", index), area)

    shown_labels = layer(volumes.labels).astype(np.uint8)
    outlines = region_outlines(shown_labels, volumes.system)
    if volumes.reference is not None:
        outlines += _reference_outlines(layer(volumes.reference).astype(np.uint8))
    canvas.add_panel(_grey(layer(volumes.image).astype(np.float32), volumes.window), frame, outlines)
    canvas.add_text(frame.left + 5, frame.top + 9, f"{lesion.number}", size_px=12)
    width_mm = (parts[0][1] - parts[0][0]) * spacing[0]
    canvas.add_scale_bar(frame, THUMBNAIL_PX / float(width_mm), THUMBNAIL_BAR_MM)
    caption = f"{volume_text(lesion.wt_volume_mm3)}, {lesion.longest_axial_diameter_mm:.1f} mm"
    middle = frame.left + THUMBNAIL_PX / 2
    canvas.add_text(middle, frame.top + THUMBNAIL_PX + CAPTION_PX // 2, caption, anchor="center", size_px=10)


def volume_text(volume_mm3: float) -> str:
    """A volume in the unit that reads best: 27 mm3, 1.25 cm3."""
    return f"{volume_mm3 / 1000:.3g} cm³" if volume_mm3 >= 1000 else f"{volume_mm3:.3g} mm³"  # noqa: PLR2004 - mm3 per cm3


def _around(centre: float, length: float) -> tuple[int, int]:
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


def _brain_box(images: Iterable[FloatVolume], view: View) -> tuple[slice, ...]:
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


def _scale(box: tuple[slice, ...], view: View) -> float:
    """Pixels per millimetre with which the three planes fill the width."""
    width_mm = sum(_size_mm(box, view, plane)[0] for plane in PLANES)
    low, high = PX_PER_MM_RANGE
    return min(max(WIDTH_PX / width_mm, low), high)


def _size_mm(box: tuple[slice, ...], view: View, plane: PlaneName) -> tuple[float, float]:
    rows, columns = _crop(box, plane)
    row_mm, column_mm = plane_spacing_mm(view, plane)
    return (columns.stop - columns.start) * column_mm, (rows.stop - rows.start) * row_mm


def _size_px(box: tuple[slice, ...], view: View, plane: PlaneName, px_per_mm: float) -> tuple[int, int]:
    width, height = _size_mm(box, view, plane)
    return max(1, round(width * px_per_mm)), max(1, round(height * px_per_mm))


def _crop(box: tuple[slice, ...], plane: PlaneName) -> tuple[slice, slice]:
    """Rows and columns of the box in a slice."""
    x, y, z = box
    return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]


def _planes_through(scene: Scene, view: View, box: tuple[slice, ...]) -> dict[PlaneName, int]:
    """For each plane the slice with most of the largest lesion's core, or of its oedema where it has none.

    Where there is no lesion: the brain's middle.
    """
    if not scene.lesions:
        x, y, z = ((part.start + part.stop - 1) // 2 for part in box)
        return {"sagittal": x, "coronal": y, "axial": z}
    first, last = scene.lesions[0].box_first_voxel, scene.lesions[0].box_last_voxel
    place = tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))
    # Within its box the largest lesion may have neighbours, which hardly matter for choosing a slice.
    inner = scene.labels[place]
    core = (inner == ET) | (inner == NETC)
    mask = core if core.any() else whole_tumour(inner)
    best = [first[axis] + _fullest(mask.sum(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    x, y, z = (int(index) for index in view.turn_index((best[0], best[1], best[2])))
    return {"sagittal": x, "coronal": y, "axial": z}


def _fullest(areas: NDArray[np.intp]) -> int:
    """The slice with the largest area, of equal ones the middle one."""
    equal = np.flatnonzero(areas == areas.max())
    return int(equal[equal.size // 2])


def _window(image: FloatVolume) -> tuple[float, float]:
    values = image[::2, ::2, ::2]
    values = values[values != 0]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def _grey(image: NDArray[np.float32], window: tuple[float, float]) -> Pixels:
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


def _shown_regions(scene: Scene) -> Sequence[str]:
    if scene.system == "radiosurgery":
        return ("metastasis",)
    return ("WT", "TC", "ET", "RC") if (scene.labels == RC).any() else ("WT", "TC", "ET")


def _add_footer(canvas: Canvas, width: int, y: int, names: Sequence[str]) -> None:
    canvas.add_text(4, y, RADIOLOGICAL, size_px=11)
    x = width - 4.0
    for name in reversed(names):
        canvas.add_text(x, y, name, colour=COLOURS[name], anchor="right", size_px=12)
        x -= 26 if len(name) <= 2 else 7 * len(name)  # noqa: PLR2004 - letters of a region's short name
    canvas.add_text(x, y, "contours:", anchor="right", size_px=11)
