"""What the tests of the report share: small cases with known lesions, and a browser where there is one."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import pytest

from phantoms import LPS, REPORT_SHAPE, TWO_LESIONS, lesion_map, phantom
from support import write_case as write_any_case


def write_case(folder: Path, case_id: str, **options) -> Path:
    """A case whose images fit the label maps."""
    return write_any_case(folder, case_id, **({"images": phantom(REPORT_SHAPE)} | options))


def write_labels(path: Path, labels, affine=LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


def write_cohort(folder: Path, count=2) -> tuple[Path, Path]:
    """Cases c0, c1, ... and a folder of label maps, the first with two lesions, the others with none."""
    for number in range(count):
        write_case(folder / "data", f"c{number}", images=phantom(REPORT_SHAPE, number))
        write_labels(
            folder / "maps" / f"c{number}.nii.gz",
            lesion_map(boxes=() if number else TWO_LESIONS),
        )
    return folder / "data", folder / "maps"


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def open_browser(*, width=1300, height=1000):
    """A headless Chromium with WebGL in software; skips the test where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no headless browser here: install chromium and chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader", "--hide-scrollbars", f"--window-size={width},{height}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    browser.set_script_timeout(240)  # a busy machine is slow, not broken
    try:
        yield browser
    finally:
        browser.quit()


def prefer(browser, *, dark: bool) -> None:
    """Lets pages see a dark or a light system."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def requested_urls(browser) -> list[str]:
    """Everything the browser asked for since the last call."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [item["params"]["request"]["url"] for item in messages if item["method"] == "Network.requestWillBeSent"]


def serious_findings(browser) -> list[str]:
    """What axe finds, but for what it calls minor or moderate."""
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
    found = axe.Axe().run(browser)
    return [
        f"{item['id']}: {item['help']}: {[node['target'] for node in item['nodes']][:3]}"
        for item in found["violations"]
        if item["impact"] in {"serious", "critical"}
    ]
