"""MLCube: the real `mlcube` and `mlcube_docker` 0.0.9 on mlcube/mlcube.yaml."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from image_support import Folders, assert_label_map, may_chown, names, truncate
from support import write_case

pytestmark = [pytest.mark.callers, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
MLCUBE = ROOT / ".cache/tools/mlcube/bin/mlcube"
CASE = "BraTS-MET-00001-000"


@pytest.fixture
def folders(tmp_path):
    return Folders.under(tmp_path)


@pytest.fixture
def mlcube(image, tmp_path):
    """Runs `mlcube` with our YAML, on the image under test."""
    if not MLCUBE.exists():
        pytest.fail("make callers-test installs mlcube")
    environment = {**os.environ, "PATH": f"{MLCUBE.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def call(*arguments, settings=()):
        command = [
            str(MLCUBE),
            arguments[0],
            f"--mlcube={ROOT / 'mlcube'}",
            "--platform=docker",
            f"-Pdocker.image={image}",
        ]
        command += [f"-P{setting}" for setting in settings] + list(arguments[1:])
        return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=environment)

    return call


def said(ended):
    return ended.stdout + ended.stderr


def test_run_infer(mlcube, folders):
    case = write_case(folders.data, CASE)
    ended = mlcube("run", "--task=infer", f"data_path={folders.data}", f"output_path={folders.output}")
    assert ended.returncode == 0, said(ended)
    assert names(folders.output) == [f"{CASE}.nii.gz"]
    assert_label_map(folders.output / f"{CASE}.nii.gz", case / f"{CASE}-t1c.nii.gz")
    assert names(folders.data) == [CASE], "the input is mounted read-only"


def test_run_as_another_user_with_other_parameters(mlcube, folders, tmp_path, bundle):
    """`N` of /mlcube_ioN follows the order in the YAML, and a file's parent folder is mounted with it."""
    if not may_chown():
        pytest.skip("only root can give a folder away")
    os.chown(folders.output, 1234, 5678)
    folders.output.chmod(0o700)
    write_case(folders.data, CASE)
    parameters = tmp_path / "parameters"
    parameters.mkdir(mode=0o755)
    shutil.copytree(bundle, parameters / "bundle")
    (parameters / "mine.yaml").write_text("weights: bundle\non_error: skip\n")
    ended = mlcube(
        "run",
        "--task=infer",
        f"data_path={folders.data}",
        f"output_path={folders.output}",
        f"parameters_file={parameters / 'mine.yaml'}",
        settings=["docker.cpu_args=--rm --network=none -u 1234:5678"],
    )
    assert ended.returncode == 0, said(ended)
    written = (folders.output / f"{CASE}.nii.gz").stat()
    assert (written.st_uid, written.st_gid) == (1234, 5678)


def test_a_wrong_path_is_not_a_success(mlcube, folders, tmp_path):
    """MLCube makes the folder that it doesn't find and runs on it."""
    ended = mlcube("run", "--task=infer", f"data_path={tmp_path / 'mistyped'}", f"output_path={folders.output}")
    assert ended.returncode != 0
    assert "no case" in said(ended).lower()


def test_check_and_check_labels(mlcube, folders):
    case = write_case(folders.data, CASE)
    good = mlcube("run", "--task=check", f"data_path={folders.data}")
    assert good.returncode == 0, said(good)
    labels = mlcube("run", "--task=check_labels", f"data_path={folders.data}", f"prediction_path={folders.output}")
    assert labels.returncode != 0, "the label map is missing"
    assert "missing" in said(labels)
    truncate(case / f"{CASE}-t1c.nii.gz")
    broken = mlcube("run", "--task=check", f"data_path={folders.data}")
    assert broken.returncode != 0, said(broken)


def test_configure_builds_the_image(mlcube, engine):
    """`-Pdocker.build_strategy=always`: from the layers that `make image` left, on the base that it found."""
    base, runtime = "python:3.11-slim-bookworm", "python:3.11-slim-bookworm"
    if not engine.images.list(name=base):
        base, runtime = "metseg-base:local", "metseg-base:local-runtime"
    arguments = f"--network=host --build-arg=BASE_IMAGE={base} --build-arg=RUNTIME_IMAGE={runtime}"
    settings = ["docker.image=metseg:built-by-mlcube", "docker.build_strategy=always", f"docker.build_args={arguments}"]
    ended = mlcube("configure", settings=settings)
    assert ended.returncode == 0, said(ended)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    labels = engine.images.get("metseg:built-by-mlcube").labels
    assert labels["org.opencontainers.image.version"] == version
    assert "org.opencontainers.image.revision" not in labels, "MLCube passes no commit"
    engine.images.remove("metseg:built-by-mlcube")
