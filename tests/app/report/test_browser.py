"""The report in a real browser: accessible, quick, and asking the network for nothing."""

import re

import pytest
from selenium.webdriver.common.by import By

from metseg.report.folder_report import report_label_maps
from report_support import open_browser, prefer, requested_urls, serious_findings, write_cohort

pytest.importorskip("selenium", reason="selenium is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    data, maps = write_cohort(folder, 4)
    (maps / "c3.nii.gz").unlink()
    (data / "c2/c2-t2w.nii.gz").unlink()
    report_label_maps(data, maps, folder / "r", reference_path=maps)
    return folder / "r" / "report.html"


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


def visible_cases(browser):
    rows = browser.find_elements(By.CSS_SELECTOR, "#table tbody tr")
    return [row.find_element(By.TAG_NAME, "th").text for row in rows if row.is_displayed()]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_serious_finding_no_message_and_no_request_leaves_the_page(browser, page, dark):
    prefer(browser, dark=dark)
    requested_urls(browser)  # forget the earlier ones
    browser.get(page.as_uri())
    assert serious_findings(browser) == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    asked = [url for url in requested_urls(browser) if not url.startswith("data:")]
    assert asked == [page.as_uri()]


def test_pictures_beside_the_page_are_shown_when_scrolled_to(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("metseg.report.report_files.MAX_PAGE_BYTES", 1000)
    data, maps = write_cohort(tmp_path, 1)
    report_label_maps(data, maps, tmp_path / "r")
    requested_urls(browser)
    browser.get((tmp_path / "r/report.html").as_uri())
    picture = browser.find_element(By.CSS_SELECTOR, ".case img")
    browser.execute_script("arguments[0].scrollIntoView()", picture)
    browser.execute_async_script("const [image, done] = arguments; image.decode().then(done, done)", picture)
    assert browser.execute_script("return arguments[0].naturalWidth", picture) > 100
    assert all(url.startswith((tmp_path / "r").as_uri()) for url in requested_urls(browser) if url[:5] != "data:")


def test_the_table_sorts_and_filters_by_keyboard_and_mouse(browser, page):
    browser.get(page.as_uri())
    assert visible_cases(browser) == ["c0", "c1", "c2", "c3"]
    headings = browser.find_elements(By.CSS_SELECTOR, "#table thead th")
    case, lesions = headings[0], headings[2]
    case.find_element(By.TAG_NAME, "button").click()
    case.find_element(By.TAG_NAME, "button").send_keys("\ue007")  # Enter
    assert case.get_attribute("aria-sort") == "descending"
    assert visible_cases(browser) == ["c3", "c2", "c1", "c0"]
    lesions.find_element(By.TAG_NAME, "button").click()
    assert visible_cases(browser) == ["c0", "c1", "c2", "c3"]  # no number last, ties as they were in the input
    assert case.get_attribute("aria-sort") is None

    search = browser.find_element(By.ID, "search")
    search.send_keys("missing T2W")
    assert visible_cases(browser) == ["c2"]
    assert browser.find_element(By.ID, "count").text == "1 of 4 shown"
    search.clear()
    search.send_keys(" ")
    option = browser.find_element(By.XPATH, "//select[@id='flag']/option[.='no label map']")
    option.click()
    assert visible_cases(browser) == ["c3"]
    browser.find_element(By.ID, "sections").click()
    sections = browser.find_elements(By.CSS_SELECTOR, "section.case")
    assert sum(section.is_displayed() for section in sections) == len(visible_cases(browser))


def test_everything_is_there_without_scripts(page):
    content = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    for name in ("c0", "c1", "c2", "c3"):
        assert f">{name}</a></th>" in content
