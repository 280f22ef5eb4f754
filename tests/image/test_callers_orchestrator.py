"""The BraTS orchestrator: the real `brats` package on mlcube/metastases.yml, in both of its conventions."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from image_support import assert_label_map, copy_case, names, write_registry
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
    path = write_registry(image, tmp_path)

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


def test_the_entry_in_the_orchestrator_s_own_files(image, tmp_path):
    """docs/publish.md: the entry appended to its registry, the member added to its constants, a user's call."""
    (member,) = re.findall(r'^    (METSEG = "metseg")$', (ROOT / "docs/publish.md").read_text(), flags=re.MULTILINE)
    (installed,) = PYTHON.parents[1].glob("lib/python3*/site-packages/brats")
    shutil.copytree(installed, tmp_path / "brats")
    registry, constants = tmp_path / "brats/data/meta/metastases.yml", tmp_path / "brats/constants.py"
    registry.write_text(registry.read_text() + entry_text(image))
    head, members = constants.read_text().split("class MetastasesAlgorithms(Algorithms):\n")
    constants.write_text(f"{head}class MetastasesAlgorithms(Algorithms):\n    {member}\n{members}")
    case = write_case(tmp_path, MET)
    program = (
        "from brats import MetastasesSegmenter; from brats.constants import MetastasesAlgorithms; "
        "MetastasesSegmenter(algorithm=MetastasesAlgorithms.METSEG, force_cpu=True).infer_single("
        + "".join(f"{name}={str(case / f'{MET}-{name}.nii.gz')!r}, " for name in ("t1c", "t1n", "t2f", "t2w"))
        + f"output_file={str(tmp_path / 'labels.nii.gz')!r})"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    command = [str(PYTHON), "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert_label_map(tmp_path / "labels.nii.gz", case / f"{MET}-t1c.nii.gz", owner=os.getuid())


def entry_text(image):
    """The entry `metseg` as it stands in mlcube/metastases.yml, with the image under test."""
    text = (ROOT / "mlcube/metastases.yml").read_text()
    entry = text[text.index("  metseg:\n") : text.index("  metseg_2024_convention:\n")]
    return "\n" + re.sub(r"docker_image: .*", f"docker_image: {image}", entry)
