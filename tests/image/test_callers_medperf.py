"""MedPerf: the real client where there is one, and everywhere the `docker run` that it makes of container_config.yaml.

The client is not on the package index: $MEDPERF names it, or it is on the PATH. `run_test` needs no account. Without it
its runner's rules are applied here to our file: only five run arguments are allowed, inputs are mounted read-only and
must exist, outputs read-write, and the runner adds the user, a host folder over /tmp, `--network none` and `--rm`. The
command is then run by the Docker client, literally. The client makes the folder of additional files, but a parameters
file only where one is registered.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from image_support import Folders, assert_label_map, may_chown, names
from support import write_case

pytestmark = [pytest.mark.callers, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CASE = "BraTS-MET-00001-000"
ALLOWED = {"shm_size", "gpus", "command", "entrypoint", "environment"}


@pytest.fixture(scope="module")
def task():
    config = yaml.safe_load((ROOT / "mlcube/container_config.yaml").read_text())
    assert config["container_type"] == "DockerImage"
    task = config["tasks"]["infer"]
    for volume in [*task["input_volumes"].values(), *task["output_volumes"].values()]:
        assert volume.keys() == {"mount_path", "type"}
        assert volume["type"] in {"file", "directory"}
    assert task["run_args"].keys() <= ALLOWED
    return task


def medperf_command(task, image, mounts, temporary, user):
    """The command line, in the order in which MedPerf's runner puts it together."""
    command = ["docker", "run", "--rm", "-u", user]
    for name, volume in task["input_volumes"].items():
        assert mounts[name].exists(), f"input volume should exist: {mounts[name]}"
        command += ["--volume", f"{mounts[name]}:{volume['mount_path']}:ro"]
    for name, volume in task["output_volumes"].items():
        command += ["--volume", f"{mounts[name]}:{volume['mount_path']}:rw"]
    command += ["--volume", f"{temporary}:/tmp:rw", "--network", "none"]
    if "shm_size" in task["run_args"]:
        command += ["--shm-size", task["run_args"]["shm_size"]]
    return [*command, image, *shlex.split(task["run_args"].get("command", ""))]


@pytest.fixture
def mounts(tmp_path):
    """What MedPerf can mount when the configuration alone is registered; the additional files are an empty folder."""
    folders = Folders.under(tmp_path)
    additional = tmp_path / "additional_files"
    additional.mkdir()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o777)
    return {
        "data_path": folders.data,
        "output_path": folders.output,
        "parameters_file": tmp_path / "parameters.yaml",
        "additional_files": additional,
        "tmp": temporary,
    }


def run_as_medperf(task, image, mounts, user="54321:54321"):
    command = medperf_command(task, image, mounts, mounts["tmp"], user)
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_the_bundled_weights(image, task, mounts):
    case = write_case(mounts["data_path"], CASE)
    ended = run_as_medperf(task, image, mounts)
    assert ended.returncode == 0, ended.stderr
    assert names(mounts["output_path"]) == [f"{CASE}.nii.gz"]
    assert_label_map(mounts["output_path"] / f"{CASE}.nii.gz", case / f"{CASE}-t1c.nii.gz", owner=54321)


def test_weights_from_additional_files(image, task, mounts, bundle):
    """The archive of scripts/pack-additional-files, unpacked as MedPerf does."""
    archive = mounts["tmp"].parent / "additional_files.tar.gz"
    pack = [str(ROOT / "scripts/pack-additional-files"), str(bundle), str(archive)]
    first = subprocess.run(pack, capture_output=True, text=True, check=True).stdout
    again = subprocess.run(
        pack, capture_output=True, text=True, check=True, env={**os.environ, "TZ": "Asia/Tokyo"}
    ).stdout
    assert first == again, "the same bundle gives the same archive"
    subprocess.run(["tar", "-xzf", archive, "-C", mounts["additional_files"]], check=True)
    write_case(mounts["data_path"], CASE)
    ended = run_as_medperf(task, image, mounts)
    assert ended.returncode == 0, ended.stderr
    assert "/metseg/additional_files/weights" in ended.stdout + ended.stderr, "the log says which weights"
    assert names(mounts["output_path"]) == [f"{CASE}.nii.gz"]


def test_a_user_without_rights_elsewhere(image, task, mounts):
    if not may_chown():
        pytest.skip("only root can give a folder away")
    for name in ("output_path", "tmp"):
        os.chown(mounts[name], 1234, 1234)
        mounts[name].chmod(0o700)
    write_case(mounts["data_path"], CASE)
    ended = run_as_medperf(task, image, mounts, user="1234:1234")
    assert ended.returncode == 0, ended.stderr
    assert (mounts["output_path"] / f"{CASE}.nii.gz").stat().st_uid == 1234


def test_the_client_itself(image, mounts):
    """`medperf container run_test`, as documented, on our file with the image under test."""
    client = os.environ.get("MEDPERF") or shutil.which("medperf")
    if client is None:
        pytest.skip("no MedPerf client here; MEDPERF names one")
    config = yaml.safe_load((ROOT / "mlcube/container_config.yaml").read_text()) | {"image": image}
    home = mounts["tmp"]
    (home / "container_config.yaml").write_text(yaml.safe_dump(config))
    write_case(mounts["data_path"], CASE)
    paths = f"data_path={mounts['data_path']},output_path={mounts['output_path']}"
    command = [client, "container", "run_test", "--container", home / "container_config.yaml", "--task", "infer"]
    environment = {**os.environ, "HOME": str(home)}
    ended = subprocess.run(
        [*command, "--mounts", paths], capture_output=True, text=True, timeout=600, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert names(mounts["output_path"]) == [f"{CASE}.nii.gz"]
