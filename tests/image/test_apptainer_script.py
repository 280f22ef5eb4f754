"""scripts/run-apptainer with stand-ins for Apptainer and Docker: the command line it makes, and converting once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/run-apptainer"

STAND_IN = """#!/bin/sh
printf '%s\\n' "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $1" in
  "docker save") : >"$3" ;;
  "apptainer build") : >"$2" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """The script in a checkout of its own, where what it converts lands, and programs that note how they are called."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    for name in ("bin", "in", "out"):
        (tmp_path / name).mkdir()
    for name in ("apptainer", "docker"):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def run(checkout, *arguments, **environment):
    calls = checkout / "calls"
    calls.write_text("")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("APPTAINER")}
    programs = {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
    command = [checkout / "scripts/run-apptainer", *arguments]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=checkout, env=inherited | programs | environment
    )
    return ended.returncode, calls.read_text().splitlines(), ended.stderr


def test_without_its_arguments_it_says_how_it_is_called(checkout):
    code, calls, said = run(checkout, "image.sif")
    assert code == 2
    assert calls == []
    assert said.startswith("run-apptainer IMAGE INPUT OUTPUT")


def test_a_docker_image_is_converted_once_and_run_as_the_callers_do(checkout):
    sif = checkout / "build/metseg_local.sif"
    wanted = (
        f"apptainer run -eC --net --network none --bind {checkout / 'in'}:/input:ro "
        f"--bind {checkout / 'out'}:/output:rw {sif}"
    )
    code, calls, said = run(checkout, "metseg:local", "in", "out")
    assert code == 0, said
    assert calls == [
        f"docker save --output {sif}.tar metseg:local",
        f"apptainer build {sif} docker-archive://{sif}.tar",
        wanted,
    ]
    assert not Path(f"{sif}.tar").exists(), "the archive is as large as the image"
    assert run(checkout, "metseg:local", "in", "out")[1] == [wanted]


def test_flags_and_arguments_are_passed_on(checkout):
    (checkout / "image.sif").write_text("")
    flags = {"APPTAINER_FLAGS": "--nv --userns"}
    code, calls, said = run(checkout, "image.sif", "in", "out", "infer", "--data_path=/input", **flags)
    assert code == 0, said
    (call,) = calls
    assert call.startswith("apptainer run --nv --userns -eC --net --network none ")
    assert call.endswith(f"{checkout / 'image.sif'} infer --data_path=/input")


def test_a_folder_that_is_not_there_stops_it(checkout):
    (checkout / "image.sif").write_text("")
    for folders in (("nowhere/at/all", "out"), ("in", "nowhere/at/all")):
        code, calls, _ = run(checkout, "image.sif", *folders)
        assert code != 0
        assert calls == []
