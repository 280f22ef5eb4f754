"""Apptainer, where there is one (make apptainer): as MedPerf runs it, and as the BraTS orchestrator does.

The conditions of the first imposed with Docker: test_image_conditions.py.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from image_support import Folders, assert_label_map, copy_case, names, truncate, write_registry
from support import write_case

pytestmark = [pytest.mark.callers, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CASE = "BraTS-MET-00001-000"
ORCHESTRATED = {
    "metseg": "",
    "metseg_2024_convention": (
        " infer --data_path=/mlcube_io0 --output_path=/mlcube_io2 --parameters_file=/mlcube_io3/dummy.yml"
    ),
}
"""Each entry of the registry with the arguments that the orchestrator gives."""

FLAGS = os.environ.get("APPTAINER_FLAGS", "--userns")
SINGULARITY = """#!/bin/sh
# The orchestrator calls `singularity`, Apptainer's other name, and gives no flag for root without all of its rights.
printf '%s\\n' "$*" >>"$CALLS"
[ "$1" = --quiet ] && shift
command=$1
shift
[ "$command" != run ] || exec "$APPTAINER" run $APPTAINER_FLAGS "$@"
exec "$APPTAINER" "$command" "$@"
"""


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
        "APPTAINER_FLAGS": FLAGS,
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


@pytest.mark.parametrize("entry", ORCHESTRATED)
def test_through_the_orchestrator(image, apptainer, sandbox, tmp_path, entry):
    """An overlay and the host's environment, home and network: neither -e nor -C nor --net."""
    case = write_case(tmp_path, CASE)
    images = tmp_path / "brats_singularity_images"  # where it keeps what it has pulled
    images.mkdir()
    (images / image.replace(":", "_")).symlink_to(sandbox)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "singularity").write_text(SINGULARITY)
    (programs / "singularity").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "APPTAINER": apptainer,
        "APPTAINER_FLAGS": FLAGS,
        # What may be set on the host and must not matter.
        "MPLCONFIGDIR": "/nowhere",
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": "",
    }
    python, program = ROOT / ".cache/tools/brats/bin/python", ROOT / "tests/image/orchestrate.py"
    command = [python, program, "--backend=singularity", write_registry(image, tmp_path), entry, "single"]
    paths = [case, tmp_path / "labels.nii.gz"]
    ended = subprocess.run(
        [*command, *paths], capture_output=True, text=True, timeout=600, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert_label_map(tmp_path / "labels.nii.gz", case / f"{CASE}-t1c.nii.gz")
    (call,) = [line for line in (tmp_path / "calls").read_text().splitlines() if re.match(r"(--quiet )?run ", line)]
    place = images / image.replace(":", "_")
    assert re.search(
        rf"run (--bind \S+ )+--cwd \. --overlay {place}_overlay.img {place}{ORCHESTRATED[entry]}$", call
    ), call
