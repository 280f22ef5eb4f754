"""The BraTS orchestrator: the real `brats` package on mlcube/metastases.yml, in both of its conventions."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from image_support import assert_label_map, copy_case, names
from support import write_case

pytestmark = [pytest.mark.callers, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".cache/tools/brats/bin/python"
CONVENTIONS = ["metseg", "metseg_2024_convention"]
MET, GLI = "BraTS-MET-00001-000", "BraTS-GLI-00002-000"


@pytest.fixture
def orchestrate(image, tmp_path):
    """Runs the orchestrator on our registry entry, the image under test in it."""
    if not PYTHON.exists():
        pytest.fail("make callers-test installs brats")
    registry = yaml.safe_load((ROOT / "mlcube/metastases.yml").read_text())
    for entry in registry["algorithms"].values():
        entry["run_args"]["docker_image"] = image
    path = tmp_path / "metastases.yml"
    path.write_text(yaml.safe_dump(registry))

    def call(convention, mode, source, target):
        command = [
            str(PYTHON),
            str(ROOT / "tests/image/orchestrate.py"),
            str(path),
            convention,
            mode,
            str(source),
            str(target),
        ]
        environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)

    return call


def test_our_entry_asks_for_nothing_special():
    """No root, a CPU will do, and no shared memory: what users of the orchestrator ask for in their issues."""
    for entry in yaml.safe_load((ROOT / "mlcube/metastases.yml").read_text())["algorithms"].values():
        assert entry["run_args"]["requires_root"] is False
        assert entry["run_args"]["cpu_compatible"] is True
        assert "additional_files" not in entry


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_single_case(orchestrate, tmp_path, convention):
    case = write_case(tmp_path, MET)
    ended = orchestrate(convention, "single", case, tmp_path / "labels.nii.gz")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert_label_map(tmp_path / "labels.nii.gz", case / f"{MET}-t1c.nii.gz", owner=os.getuid())


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_batch(orchestrate, tmp_path, convention):
    """The orchestrator renames the cases on the way in and back on the way out."""
    data, output = tmp_path / "data", tmp_path / "labels"
    first = write_case(data, MET)
    copy_case(first, GLI)
    ended = orchestrate(convention, "batch", data, output)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert names(output) == [f"{GLI}.nii.gz", f"{MET}.nii.gz"]
    assert (output / f"{GLI}.nii.gz").read_bytes() == (output / f"{MET}.nii.gz").read_bytes(), "a name changes nothing"
