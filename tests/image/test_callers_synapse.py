"""The challenge's Synapse queues: scripts/run-as-synapse, which also applies the official validator's rules."""

import subprocess
from pathlib import Path

import pytest

from image_support import Folders, copy_case, names, truncate
from support import write_case

pytestmark = [pytest.mark.callers, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).parents[2] / "scripts/run-as-synapse"
CASE = "BraTS-MET-00001-000"


def run_as_synapse(year, image, folders):
    command = [str(SCRIPT), year, image, str(folders.data), str(folders.output)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.parametrize("year", ["2025", "2026"])
def test_a_folder_that_only_root_may_write_to(image, tmp_path, year):
    """The queue passes no user; a broken case gets its file too: one missing file fails the whole submission."""
    folders = Folders.under(tmp_path)
    folders.output.chmod(0o700)
    first = write_case(folders.data, CASE)
    broken = copy_case(first, "BraTS-MET-00002-000")
    truncate(broken / "BraTS-MET-00002-000-t2f.nii.gz")
    ended = run_as_synapse(year, image, folders)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert names(folders.output) == [f"{CASE}.nii.gz", "BraTS-MET-00002-000.nii.gz"]


def test_the_check_refuses_what_the_validator_refuses(image, tmp_path):
    folders = Folders.under(tmp_path)
    write_case(folders.data, CASE)
    (folders.output / "notes.txt").write_text("not an image")
    ended = run_as_synapse("2026", image, folders)
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "notes.txt" in ended.stdout + ended.stderr
