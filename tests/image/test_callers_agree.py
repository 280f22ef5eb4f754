"""Through MLCube and through the orchestrator the label maps are those of `metseg infer` outside, to the voxel.

With the image's own weights. On three of the real cases in METSEG_REAL_CASES where that is set, else on two small
synthetic ones.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from image_support import names, write_registry

pytestmark = [pytest.mark.callers, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".cache/tools"
REAL = ("BraTS-MET-00110-000", "BraTS-GLI-00008-000", "BraTS-GLI-00009-000")
MODALITIES = ("t1n", "t1c", "t2w", "t2f")


def call(*command, **environment):
    ended = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
        # One thread here, and as many as there are in the containers, which don't inherit this: the bits are the same.
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """A folder of cases without references: callers have none."""
    folder = tmp_path_factory.mktemp("agree") / "cases"
    source = os.environ.get("METSEG_REAL_CASES")
    if source:
        for case_id in REAL:
            (folder / case_id).mkdir(parents=True)
            for modality in MODALITIES:
                name = f"{case_id}-{modality}.nii.gz"
                shutil.copyfile(Path(source) / case_id / name, folder / case_id / name)
        return folder
    call(sys.executable, "-m", "training", "cohort", "--cases", 2, "--seed", 3, "--size", "tiny", "--output", folder)
    for path in [*folder.rglob("*-seg.nii.gz"), *(entry for entry in folder.iterdir() if entry.is_file())]:
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def expected(cases, tmp_path_factory):
    """Label maps of `metseg infer` in this checkout."""
    output = tmp_path_factory.mktemp("outside") / "labels"
    # The image's weights by name: METSEG_WEIGHTS may be set here, and is not in the containers.
    weights = ("--weights", ROOT / "weights/mets")
    command = (sys.executable, "-m", "metseg", "infer", "--device", "cpu", *weights)
    call(*command, "--data-path", cases, "--output-path", output)
    return read(output)


def read(folder):
    return {path.name: np.asanyarray(nib.load(path).dataobj) for path in folder.iterdir()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    differing = {name: int(np.count_nonzero(found[name] != expected[name])) for name in expected}
    assert set(differing.values()) == {0}, f"voxels that differ: {differing}"
    assert any(labels.any() for labels in expected.values()), "empty maps would agree too"


def test_through_mlcube(image, cases, expected, tmp_path):
    output = tmp_path / "labels"
    command = [TOOLS / "mlcube/bin/mlcube", "run", f"--mlcube={ROOT / 'mlcube'}", "--platform=docker", "--task=infer"]
    paths = [f"-Pdocker.image={image}", f"data_path={cases}", f"output_path={output}"]
    call(*command, *paths, HOME=str(tmp_path), PATH=f"{TOOLS / 'mlcube/bin'}:{os.environ['PATH']}")
    assert_equal(read(output), expected)


@pytest.fixture
def orchestrate(image, tmp_path):
    path = write_registry(image, tmp_path)

    def run(*arguments):
        python, program = TOOLS / "brats/bin/python", ROOT / "tests/image/orchestrate.py"
        call(python, program, path, *arguments, HOME=str(tmp_path), TMPDIR=str(tmp_path))

    return run


def test_through_the_orchestrator(orchestrate, cases, expected, tmp_path):
    orchestrate("metseg", "batch", cases, tmp_path / "labels")
    assert_equal(read(tmp_path / "labels"), expected)


def test_one_case_through_the_orchestrator_in_the_2024_convention(orchestrate, cases, expected, tmp_path):
    segmented = [name.removesuffix(".nii.gz") for name, labels in expected.items() if labels.any()]
    case = cases / (REAL[0] if REAL[0] in names(cases) else min(segmented))
    orchestrate("metseg_2024_convention", "single", case, tmp_path / "single" / f"{case.name}.nii.gz")
    assert_equal(read(tmp_path / "single"), {f"{case.name}.nii.gz": expected[f"{case.name}.nii.gz"]})
