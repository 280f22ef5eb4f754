"""A picture made of grey-scale panels with outlines, letters and scale bars.

matplotlib (Agg) draws the lines, one artist after the other in pixels: a figure with an axes per panel takes ten times
as long. Pillow writes the texts, in matplotlib's font: there are sixty per case, and its layout is quicker.
"""

import importlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.collections import LineCollection
    from PIL.ImageFont import FreeTypeFont

DPI: Final = 100
POINTS_PER_PIXEL: Final = 72 / DPI
WEBP_QUALITY: Final = 80
INK: Final = "#e8e8e8"
FONT_PX: Final = 12

Pixels = NDArray[np.uint8]
"""Shape (rows, columns), grey."""

Anchor = Literal["left", "center", "right"]

PILLOWS_ANCHORS: Final = {"left": "lm", "center": "mm", "right": "rm"}
"""The second letter: `y` is the line's middle."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A line around a mask.

    Attributes:
        mask: what the line goes around; has the shape of the panel's image.
        colour: colour of the line.
        width_px: width of the line.
        dashed: whether the line is broken.
    """

    mask: NDArray[np.bool_]
    colour: str
    width_px: float = 1.2
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a panel lies on the canvas, in pixels from the top left."""

    left: int
    top: int
    width: int
    height: int


class Canvas:
    """A picture in the making; `to_webp` ends it."""

    def __init__(self, width: int, height: int) -> None:
        self._background = np.zeros((height, width), dtype=np.uint8)
        self._lines: dict[tuple[str, float, bool], list[NDArray[np.float64]]] = {}
        self._texts: list[tuple[float, float, str, str, Anchor, int]] = []

    def add_panel(self, image: Pixels, frame: Frame, outlines: Sequence[Outline] = ()) -> None:
        """Puts an image, stretched to its frame, and outlines of masks of its shape."""
        from PIL import Image  # noqa: PLC0415 - heavy

        stretched = Image.fromarray(np.ascontiguousarray(image)).resize(
            (frame.width, frame.height), Image.Resampling.BICUBIC
        )
        place = (slice(frame.top, frame.top + frame.height), slice(frame.left, frame.left + frame.width))
        self._background[place] = np.asarray(stretched)
        scale = np.array([frame.width / image.shape[1], frame.height / image.shape[0]])
        for outline in outlines:
            if outline.mask.any():
                key = (outline.colour, outline.width_px, outline.dashed)
                lines = (line * scale + (frame.left, frame.top) for line in trace_outline(outline.mask))
                self._lines.setdefault(key, []).extend(lines)

    def add_text(
        self, x: float, y: float, text: str, *, colour: str = INK, anchor: Anchor = "left", size_px: int = FONT_PX
    ) -> None:
        """Writes one line, `y` its middle."""
        self._texts.append((x, y, text, colour, anchor, size_px))

    def add_scale_bar(self, frame: Frame, px_per_mm: float, length_mm: float) -> None:
        """A bar with its length, at the bottom right of a panel."""
        right, y = frame.left + frame.width - 6, frame.top + frame.height - 7
        bar = np.array([[right - length_mm * px_per_mm, y], [right, y]])
        self._lines.setdefault((INK, 3.0, False), []).append(bar)
        self.add_text(right, y - 9, f"{length_mm:g} mm", anchor="right", size_px=10)

    def to_webp(self) -> bytes:
        """The picture as a WebP file."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - heavy
        from matplotlib.figure import Figure  # noqa: PLC0415
        from PIL import Image, ImageDraw  # noqa: PLC0415

        height, width = self._background.shape
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        renderer = canvas.get_renderer()
        renderer.draw_image(renderer.new_gc(), 0, 0, _make_opaque(self._background))
        for lines in self._list_lines(height):
            lines.set_figure(figure)
            lines.draw(renderer)
        image = Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3]))
        pen = ImageDraw.Draw(image)
        for x, y, text, colour, anchor, size_px in self._texts:
            pen.text(
                (x, y),
                text,
                fill=colour,
                font=_load_font(size_px),
                anchor=PILLOWS_ANCHORS[anchor],
                stroke_width=1,  # or it is lost on bright voxels
                stroke_fill="black",
            )
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=WEBP_QUALITY, method=2)
        return buffer.getvalue()

    def _list_lines(self, height: int) -> "Iterator[LineCollection]":
        """Lines of one colour, width and kind each, in pixels from the top left."""
        from matplotlib.collections import LineCollection  # noqa: PLC0415 - heavy
        from matplotlib.transforms import Affine2D  # noqa: PLC0415

        from_top = Affine2D().scale(1, -1).translate(0, height)
        for (colour, width_px, dashed), lines in self._lines.items():
            style = (0, (4, 3)) if dashed else "solid"
            width = width_px * POINTS_PER_PIXEL
            yield LineCollection(lines, colors=colour, linewidths=width, linestyles=[style], transform=from_top)


def load_matplotlib(report_dir: Path) -> None:
    """Loads matplotlib, which needs a writable folder, where the machine has none but the report's own.

    Elsewhere it does nothing: matplotlib is loaded when the first picture is drawn.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        with tempfile.TemporaryDirectory(prefix=".matplotlib-", dir=report_dir) as folder:
            os.environ["MPLCONFIGDIR"] = folder
            importlib.import_module("matplotlib.font_manager")  # writes its list of fonts there


@cache
def _load_font(size_px: int) -> "FreeTypeFont":
    """Loads DejaVu Sans, which matplotlib brings along."""
    from matplotlib import get_data_path  # noqa: PLC0415 - heavy
    from PIL import ImageFont  # noqa: PLC0415

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size_px)


def _make_opaque(grey: Pixels) -> NDArray[np.uint8]:
    """RGBA, the last row first, as the renderer takes it."""
    rgba = np.full((*grey.shape, 4), 255, dtype=np.uint8)
    rgba[:, :, :3] = grey[::-1, :, None]
    return rgba


def trace_outline(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The closed lines half-way between a mask's voxels and their neighbours.

    Args:
        mask: shape (rows, columns).

    Returns:
        Shape (points, 2) each: column and row, where 0 is the outer border of the first voxel and 0.5 its centre.
    """
    from contourpy import contour_generator  # noqa: PLC0415 - heavy

    padded = np.pad(mask, 1).astype(np.float64)
    # Padding moved the first voxel's centre to 1.
    return [np.asarray(line) - 0.5 for line in contour_generator(z=padded).lines(0.5)]
