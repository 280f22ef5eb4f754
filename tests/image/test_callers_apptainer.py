"""Apptainer, where there is one (make apptainer). Its conditions imposed with Docker: test_image_conditions.py."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from image_support import Folders, assert_label_map, copy_case, names, truncate
from support import write_case

pytestmark = [pytest.mark.callers, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CASE = "BraTS-MET-00001-000"


@pytest.fixture(scope="module")
def apptainer():
    own = ROOT / ".cache/apptainer/apptainer"
    program = os.environ.get("APPTAINER") or (str(own) if own.exists() else shutil.which("apptainer"))
    if program is None:
        pytest.skip("no Apptainer here; make apptainer gets one on Debian")
    return program


@pytest.fixture(scope="module")
def sandbox(image, apptainer, tmp_path_factory):
    """The image converted from a Docker archive; unpacked rather than packed into a .sif, which takes minutes."""
    folder = tmp_path_factory.mktemp("apptainer")
    archive = folder / "image.tar"
    subprocess.run(["docker", "save", "--output", archive, image], check=True)
    build = [apptainer, "build", "--sandbox", str(folder / "image"), f"docker-archive://{archive}"]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    archive.unlink()
    yield folder / "image"
    shutil.rmtree(folder)


def run(apptainer, sandbox, folders, *arguments):
    command = [str(ROOT / "scripts/run-apptainer"), str(sandbox), str(folders.data), str(folders.output), *arguments]
    environment = {
        **os.environ,
        "APPTAINER": apptainer,
        "APPTAINER_FLAGS": os.environ.get("APPTAINER_FLAGS", "--userns"),
    }
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)


def test_run(apptainer, sandbox, tmp_path):
    """No arguments, nothing of the environment, another HOME, a read-only image; a broken case gets a blank map."""
    folders = Folders.under(tmp_path)
    case = write_case(folders.data, CASE)
    broken = copy_case(case, "BraTS-MET-00002-000")
    truncate(broken / "BraTS-MET-00002-000-t1n.nii.gz")
    ended = run(apptainer, sandbox, folders)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert names(folders.output) == [f"{CASE}.nii.gz", "BraTS-MET-00002-000.nii.gz"]
    assert_label_map(folders.output / f"{CASE}.nii.gz", case / f"{CASE}-t1c.nii.gz")


def test_the_2024_convention(apptainer, sandbox, tmp_path):
    folders = Folders.under(tmp_path)
    write_case(folders.data, CASE)
    ended = run(apptainer, sandbox, folders, "infer", "--data_path=/input", "--output_path=/output")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert names(folders.output) == [f"{CASE}.nii.gz"]
