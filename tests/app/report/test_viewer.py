import http.client
import json
import threading
import time
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from metseg.errors import InputError
from metseg.report.folder_report import report_label_maps
from metseg.report.server import Site, ViewerServer
from metseg.report.viewer import collect_cases, find_paths
from phantoms import lesion_map
from report_support import (
    open_browser,
    prefer,
    requested_urls,
    serious_findings,
    write_case,
    write_cohort,
    write_labels,
)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    data, maps = write_cohort(folder, 2)
    write_case(data, "c ü#1")
    write_labels(maps / "c ü#1.nii", lesion_map())
    report_label_maps(data, maps, folder / "r", reference_path=maps)
    return folder


@pytest.fixture(scope="module")
def server(reported):
    paths = find_paths(reported / "r", None, None, None)
    with ViewerServer(Site(reported / "r", collect_cases(reported / "r", paths))) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def get(server, path, host=None):
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)) as connection:
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers


def secret(server):
    return urlsplit(server.url).path


def test_the_report_its_pictures_and_volumes_are_served(server, reported):
    status, page, headers = get(server, secret(server))
    assert status == 200
    assert b'data-viewer="yes"' in page
    assert headers["Cache-Control"] == "no-store"
    assert get(server, secret(server) + "cases/c0/planes.webp")[1][:4] == b"RIFF"
    volume = get(server, secret(server) + "viewer/c0/volumes/t1c.nii.gz")[1]
    assert volume == (reported / "data/c0/c0-t1c.nii.gz").read_bytes()
    assert get(server, secret(server) + "viewer/c%20%C3%BC%231/volumes/segmentation.nii")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "", "viewer/c0", "viewer/nobody/", "viewer/c0/volumes/ct.nii.gz", "viewer/c0/volumes/../../../run.json",
        "cases/c0/case.json", "cases/../run.json", "cases/%2e%2e/run.json", "cases/c0/..%2f..%2frun.json", "run.json",
        "assets/report.html", "assets/__init__.py", "assets/%2fetc%2fpasswd",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server, path):
    assert get(server, secret(server)[:-1] + "x/" + path)[0] == 404
    if path:
        assert get(server, secret(server) + path)[0] == 404


def test_another_host_name_or_secret_gets_nothing(server):
    assert get(server, secret(server), host="evil.example")[0] == 404
    assert get(server, "/")[0] == 404
    assert get(server, secret(server), host=f"localhost:{server.server_port}")[0] == 200


def test_the_server_listens_to_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_paths_come_from_the_report_unless_named(reported, tmp_path):
    paths = find_paths(reported / "r", None, None, None)
    assert (paths.data, paths.predictions, paths.references) == (
        reported / "data", reported / "maps", reported / "maps",
    )  # fmt: skip
    with pytest.raises(InputError, match="is not there"):
        find_paths(reported / "r", tmp_path / "none", None, None)
    with pytest.raises(InputError, match="is not known"):
        find_paths(tmp_path, None, None, None)
    with pytest.raises(InputError, match=r"cases\.csv"):
        collect_cases(tmp_path, paths)


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


def wait(condition, seconds=90):
    for _ in range(seconds * 5):
        if condition():
            return
        time.sleep(0.2)
    pytest.fail("waited in vain")


def ready(browser):
    return browser.execute_script("return document.documentElement.dataset.ready")


def crosshair_mm(browser):
    return json.loads(browser.find_element("id", "place").get_attribute("data-mm"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_click_on_a_lesion_moves_the_crosshair_there(browser, server, dark):
    prefer(browser, dark=dark)
    browser.get(server.url)
    browser.get(browser.find_element("css selector", "#case-1 .viewer-link").get_attribute("href"))
    wait(lambda: ready(browser) is not None)
    assert ready(browser) == "yes", browser.find_element("id", "place").text
    first, second = browser.find_elements("css selector", "[data-lesion]")
    # LPS on disk: the smaller cube's voxels (10..13, 20..23, 16..19) lie around R -11.5, A 217.5, S 17.5.
    second.find_elements("tag name", "td")[0].click()
    wait(lambda: second.get_attribute("aria-current") == "true")
    assert crosshair_mm(browser) == pytest.approx([-11.5, 217.5, 17.5], abs=0.6)
    assert "R -11" in browser.find_element("id", "place").text
    first.find_element("tag name", "button").send_keys("\ue007")  # Enter
    assert crosshair_mm(browser) == pytest.approx([-23, 214, 19], abs=0.6)
    assert "enhancing" in browser.find_element("id", "place").text
    canvas = browser.find_element("id", "gl")
    canvas.send_keys("\ue013")  # arrow up
    assert crosshair_mm(browser) == pytest.approx([-23, 215, 19], abs=0.6)

    assert serious_findings(browser) == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    asked = [url for url in requested_urls(browser) if not url.startswith(("data:", "blob:"))]
    assert asked
    assert [url for url in asked if not url.startswith(server.url)] == []


def test_image_overlay_and_opacity_can_be_changed(browser, server):
    browser.get(server.url + "viewer/c0/")
    wait(lambda: ready(browser) == "yes")
    here = crosshair_mm(browser)
    for control, value in (("image", "t2f"), ("overlay", "reference"), ("overlay", "")):
        browser.execute_script(
            "const [id, value] = arguments; const field = document.getElementById(id); field.value = value;"
            "field.dispatchEvent(new Event('change', {bubbles: true}));",
            control,
            value,
        )
        wait(lambda: "t2f" in browser.find_element("id", "place").text)
    wait(lambda: "enhancing" not in browser.find_element("id", "place").text)
    assert crosshair_mm(browser) == pytest.approx(here, abs=0.6)
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    assert len(browser.find_element("id", "gl").screenshot_as_png) > 5000  # something is drawn
