"""scripts/pin-image: one name of the image in all three files that callers read, and one version."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PUBLISHED = f"registry.invalid:5000/team/metseg@sha256:{'0a' * 32}"
FILES = ("mlcube.yaml", "container_config.yaml", "metastases.yml")


def list_images(mlcube):
    """Every name of the image that a caller would read."""
    documents = [yaml.safe_load((mlcube / name).read_text()) for name in FILES]
    entries = documents[2]["algorithms"].values()
    return [documents[0]["docker"]["image"], documents[1]["image"], *(e["run_args"]["docker_image"] for e in entries)]


@pytest.fixture
def checkout(tmp_path):
    for folder in ("mlcube", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def pin(checkout, image):
    command = ["make", "--no-print-directory", "-C", checkout, "pin", f"IMAGE={image}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_file_names_the_published_image_and_nothing_else_changes(checkout):
    before = {name: (checkout / "mlcube" / name).read_text() for name in FILES}
    (own,) = set(list_images(checkout / "mlcube"))
    ended = pin(checkout, PUBLISHED)
    assert ended.returncode == 0, ended.stderr
    assert set(list_images(checkout / "mlcube")) == {PUBLISHED}
    for name, text in before.items():
        assert (checkout / "mlcube" / name).read_text() == text.replace(f"image: {own}", f"image: {PUBLISHED}")
    assert pin(checkout, PUBLISHED.replace("0a", "0b")).returncode == 0, "and again for the next build"
    assert set(list_images(checkout / "mlcube")) == {PUBLISHED.replace("0a", "0b")}


@pytest.mark.parametrize(
    "image",
    [
        "registry.invalid/metseg:0.1.0",
        PUBLISHED.replace("metseg@", "metseg:0.1.0@"),
        PUBLISHED[:-1],
        PUBLISHED.replace("0a", "0A"),
        f"'a name|x@sha256:{'0a' * 32}'",
    ],
)
def test_what_may_change_its_meaning_is_refused(checkout, image):
    before = list_images(checkout / "mlcube")
    ended = pin(checkout, image)
    assert ended.returncode != 0
    assert "sha256" in ended.stderr
    assert list_images(checkout / "mlcube") == before


def test_the_version_is_pyproject_s_everywhere():
    """The Dockerfile's is a label, which a build can't read from a file; the build stops where the two differ."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"^ARG VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE) == [version]
    (image,) = set(list_images(ROOT / "mlcube"))
    assert image == f"metseg:{version}" or "@sha256:" in image
    assert f"REGISTRY/metseg:{version} " in (ROOT / "docs/publish.md").read_text()
