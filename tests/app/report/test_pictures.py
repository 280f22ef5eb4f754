import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from metseg.labels import ET, NETC, SNFH
from metseg.report.canvas import Canvas, Frame, Outline, trace_outline
from metseg.report.case_volumes import CaseVolumes
from metseg.report.lesions import measure_lesions
from metseg.report.pictures import draw_planes, draw_thumbnails, show_volume
from metseg.report.slices import choose_view, cut, measure_pixel
from metseg.space.grid import Grid
from metseg.systems import BRATS
from phantoms import LPS, REPORT_SHAPE, lesion_map, phantom


def opened(content):
    image = Image.open(io.BytesIO(content))
    assert image.format == "WEBP"
    return np.asarray(image.convert("RGB")).astype(int)


def near(pixels, colour, tolerance=70):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(pixels - wanted).sum(axis=-1) < tolerance


AFFINES = {
    "RAS": np.diag([1.0, 1.0, 2.0, 1]),
    "LPS": np.diag([-1.0, -1.0, 2.0, 1]),
    "PSR": np.array([[0, 0, 1.0, 0], [-1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("name", AFFINES)
def test_planes_are_shown_in_radiological_orientation(name):
    grid = Grid((9, 8, 7), AFFINES[name])
    volume = np.zeros(grid.shape)
    # The voxel that lies furthest to the patient's right, front and top.
    corners = np.indices(grid.shape).reshape(3, -1)
    place = (grid.affine[:3, :3] @ corners).sum(axis=0).argmax()
    volume[tuple(corners[:, place])] = 1
    view = choose_view(grid)
    turned = view.turn(volume)
    for plane, index in (("axial", 0), ("coronal", 0), ("sagittal", 0)):
        shown = cut(turned, plane, index)
        assert shown[0, 0] == 1, plane  # right or anterior on the left; anterior or superior at the top
        assert shown.sum() == 1
    assert view.turn_index(tuple(corners[:, place])) == (0, 0, 0)
    assert measure_pixel(view, "coronal") == (2, 1)
    assert measure_pixel(view, "axial") == (1, 1)


@pytest.mark.parametrize("writable", [True, False])
def test_matplotlib_uses_the_report_s_folder_only_where_there_is_no_other(tmp_path, writable):
    program = (
        "import sys, tempfile, pathlib; from metseg.report.canvas import Canvas, load_matplotlib; "
        f"tempfile._candidate_tempdir_list = lambda: {[str(tmp_path)] if writable else []}; "
        f"load_matplotlib(pathlib.Path({str(tmp_path)!r})); "
        f"assert ('matplotlib' in sys.modules) is {not writable}; "
        "Canvas(20, 10).to_webp()"
    )
    nowhere = {"MPLCONFIGDIR": "/dev/null/nowhere", "HOME": "/dev/null/nowhere", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=nowhere)
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.iterdir()) == [], "nothing stays"


def test_an_outline_runs_half_way_between_voxels():
    mask = np.zeros((5, 6), dtype=bool)
    mask[2, 3] = True
    (line,) = trace_outline(mask)
    assert sorted({tuple(point) for point in line}) == [(3, 2.5), (3.5, 2), (3.5, 3), (4, 2.5)]
    assert len(trace_outline(np.ones((2, 2), dtype=bool))) == 1


def test_a_canvas_puts_outlines_where_the_mask_is():
    canvas = Canvas(200, 100)
    mask = np.zeros((10, 10), dtype=bool)
    mask[2:5, 6:9] = True
    canvas.add_panel(np.zeros((10, 10), dtype=np.uint8), Frame(100, 0, 100, 100), [Outline(mask, "#ff0000", 2)])
    rows, columns = np.nonzero(near(opened(canvas.to_webp()), "#ff0000", 120))
    assert (rows.min(), rows.max()) == pytest.approx((20, 50), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((160, 190), abs=2)


def volumes(labels=None, reference=None, modalities=("t1c", "t2f")):
    images = {name: image for name, image in phantom(REPORT_SHAPE).items() if name in modalities}
    labels = lesion_map() if labels is None else labels
    grid = Grid(labels.shape, LPS)
    return CaseVolumes(grid, labels, BRATS, images, reference=reference)


def lesions(case):
    return measure_lesions(case.labels, case.grid, case.system.regions)


def planes(case):
    return opened(draw_planes(case, lesions(case)))


def thumbnails(case):
    return opened(draw_thumbnails(case, lesions(case)))


def test_the_planes_show_contours_of_every_region():
    labels = lesion_map()
    labels[19:24, 21:31, 15:25] = NETC  # where core and enhancement end apart
    red, green, blue = np.moveaxis(planes(volumes(labels))[:-30], -1, 0)
    assert (blue - red > 40).sum() > 20  # WT
    assert ((red - blue > 60) & (green - blue > 60)).sum() > 20  # TC
    assert ((red - green > 60) & (red - blue > 60)).sum() > 20  # ET


def test_a_reference_adds_a_row_and_its_broken_lines():
    compared = volumes(reference=np.roll(lesion_map(), 3, axis=0))
    heights = [planes(case).shape[0] - 24 for case in (volumes(), compared)]
    assert heights[1] == heights[0] / 2 * 3
    assert near(thumbnails(compared), "#ffffff", 60).sum() > near(thumbnails(volumes()), "#ffffff", 60).sum() + 50


def test_every_lesion_has_a_thumbnail():
    few = thumbnails(volumes())
    boxes = tuple((x, y, 15, 2) for x in range(4, 34, 5) for y in range(4, 40, 5))
    many = thumbnails(volumes(lesion_map(boxes=boxes)))
    rows = -(-len(boxes) // 8)
    assert many.shape[0] - 24 == rows * (few.shape[0] - 24)


@pytest.mark.parametrize("modalities", [("t1c",), ("t2f",), ("t1n",)])
def test_one_image_is_enough(modalities):
    assert planes(volumes(modalities=modalities)).size


def test_a_case_without_lesion_is_shown_in_the_middle():
    empty = volumes(np.zeros((40, 48, 32), dtype=np.uint8))
    assert draw_thumbnails(empty, ()) is None
    assert not near(planes(empty)[:-30], BRATS.region_kinds["ET"].colour, 30).any()


def test_an_empty_image_can_be_drawn():
    labels = np.zeros((10, 10, 10), dtype=np.uint8)
    labels[5, 5, 5] = ET
    grid = Grid(labels.shape, np.eye(4))
    empty = CaseVolumes(grid, labels, BRATS, {"t1c": np.zeros((10, 10, 10), np.float32)})
    assert planes(empty).size
    assert thumbnails(empty).size


def test_the_same_case_gives_the_same_picture():
    case = volumes()
    assert draw_planes(case, lesions(case)) == draw_planes(case, lesions(case))


def test_no_volume_is_written_with_an_exponent():
    shown = {999.6: "1000 mm³", 1.5e6: "1500 cm³", 1_523_400: "1523 cm³", 999_960: "1000 cm³", 0.00012: "0.00012 mm³"}
    assert {volume: show_volume(volume) for volume in shown} == shown
    assert not any("e" in show_volume(float(f"{digits}e{power}")) for digits in (1, 9.996) for power in range(-9, 12))


def test_a_thumbnail_of_oedema_alone_says_that_there_is_no_core(monkeypatch):
    texts = []
    monkeypatch.setattr(Canvas, "add_text", lambda _self, _x, _y, text, **_kwargs: texts.append(text))
    labels = lesion_map()
    labels[labels > 0] = SNFH
    draw_thumbnails(volumes(labels), lesions(volumes(labels)))
    captions = [text for text in texts if "m³" in text]
    assert captions == ["1.33 cm³, no core", "64 mm³, no core"]


def test_volumes_read_well():
    assert [show_volume(volume) for volume in (0, 27, 999, 1250, 123456)] == [
        "0 mm³", "27 mm³", "999 mm³", "1.25 cm³", "123 cm³",
    ]  # fmt: skip
