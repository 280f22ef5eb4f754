"""The image under the conditions that callers make, and worse ones."""

import hashlib
import os
import pickle
import time

import pytest
import yaml

from image_support import NOBODY, Folders, assert_label_map, copy_case, may_chown, names, run, started, truncate
from support import write_bundle, write_case

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

CASE = "BraTS-MET-00001-000"
BUNDLE = {"METSEG_WEIGHTS": "/bundle"}
ENTRY = "/opt/venv/bin/metseg"


@pytest.fixture
def folders(tmp_path):
    return Folders.under(tmp_path)


@pytest.fixture
def infer(engine, image, bundle, folders):
    """Runs the image on `folders` with the small bundle; arguments as for `image_support.run`."""

    def call(command=None, *, environment=None, volumes=None, mounts=None, **options):
        own = {**folders.mounts(), str(bundle): {"bind": "/bundle", "mode": "ro"}} if volumes is None else volumes
        wanted = {**own, **(mounts or {})}
        return run(engine, image, command, environment={**BUNDLE, **(environment or {})}, volumes=wanted, **options)

    return call


def test_without_arguments_and_without_any_right(infer, folders):
    case = write_case(folders.data, CASE)
    ended = infer()
    assert ended.exit_code == 0, ended.log
    assert names(folders.output) == [f"{CASE}.nii.gz"]
    assert_label_map(folders.output / f"{CASE}.nii.gz", case / f"{CASE}-t1c.nii.gz", owner=NOBODY)


NOTHING_WRITABLE = {"ipc_mode": "none", "shm_size": None}
"""Without shared memory either: beside the mounted folders no place at all."""


@pytest.mark.parametrize("places", [{"tmpfs": {"/tmp": "size=256m"}}, {}, NOTHING_WRITABLE], ids=["tmp", "shm", "none"])
@pytest.mark.parametrize("user", [f"{NOBODY}:{NOBODY}", "0"])
def test_label_maps_and_a_report_wherever_may_be_written(infer, folders, tmp_path, places, user):
    """Every import does without a home and a temporary folder, and leaves nothing in the mounted folders."""
    write_case(folders.data, CASE)
    report = tmp_path / "report"
    report.mkdir()
    report.chmod(0o777)
    command = ["infer", "--data-path", "/input", "--output-path", "/output", "--report-dir", "/report"]
    mounts = {str(report): {"bind": "/report", "mode": "rw"}}
    ended = infer(command, mounts=mounts, environment={"HOME": ""}, user=user, **places)
    assert ended.exit_code == 0, ended.log
    assert "no report" not in ended.log
    assert names(folders.output) == [f"{CASE}.nii.gz"]
    assert names(report) == ["cases", "cases.csv", "lesions.csv", "report.html", "run.json"]
    assert any(path.suffix == ".webp" for path in report.rglob("*"))


def test_the_self_test_says_where_no_temporary_folder_is(engine, image):
    ended = run(engine, image, ["self-test"], **NOTHING_WRITABLE)
    assert ended.exit_code == 6, ended.log
    assert "TMPDIR" in ended.log
    assert "Traceback" not in ended.log


def test_as_root_with_docker_defaults(infer, folders):
    write_case(folders.data, CASE)
    ended = infer(user=None, read_only=None, cap_drop=None, security_opt=None)
    assert ended.exit_code == 0, ended.log
    assert (folders.output / f"{CASE}.nii.gz").stat().st_uid == 0


def test_a_temporary_folder_of_the_host(infer, folders, tmp_path):
    write_case(folders.data, CASE)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o777)
    ended = infer(mounts={str(temporary): {"bind": "/tmp", "mode": "rw"}})
    assert ended.exit_code == 0, ended.log
    assert names(folders.output) == [f"{CASE}.nii.gz"]


def test_a_cleared_environment_and_a_broken_case(infer, folders):
    """Apptainer with -e: nothing of what the image sets is left, the policy of blank maps included."""
    write_case(folders.data, CASE)
    broken = copy_case(folders.data / CASE, "BraTS-MET-00002-000")
    truncate(broken / "BraTS-MET-00002-000-t1n.nii.gz")
    command = ["-i", ENTRY, "infer", "--weights", "/bundle"]
    ended = infer(command, entrypoint="/usr/bin/env", working_dir="/proc")
    assert ended.exit_code == 0, ended.log
    assert names(folders.output) == [f"{CASE}.nii.gz", "BraTS-MET-00002-000.nii.gz"]


@pytest.mark.parametrize(("on_error", "exit_code", "written"), [("blank", 0, 3), ("skip", 10, 2), ("stop", 3, None)])
def test_a_broken_case_among_good_ones(infer, folders, on_error, exit_code, written):
    write_case(folders.data, "a-good")
    broken = copy_case(folders.data / "a-good", "b-broken")
    copy_case(folders.data / "a-good", "c-good")
    truncate(broken / "b-broken-t1c.nii.gz")
    ended = infer(environment={"METSEG_ON_ERROR": on_error})
    assert ended.exit_code == exit_code, ended.log
    assert "b-broken" in ended.log
    if written is not None:
        assert len(names(folders.output)) == written
    if on_error == "blank":
        assert "blank because failed" in ended.log


def test_nothing_but_broken_cases(infer, folders):
    broken = write_case(folders.data, CASE)
    truncate(broken / f"{CASE}-t1c.nii.gz")
    ended = infer()
    assert ended.exit_code == 10, ended.log


@pytest.mark.parametrize("case_id", ["a folder with spaces", "Fall-Müßig-Żółć-脑", "7"])
def test_any_folder_name(infer, folders, case_id):
    write_case(folders.data, case_id)
    ended = infer()
    assert ended.exit_code == 0, ended.log
    assert names(folders.output) == [f"{case_id}.nii.gz"]


def test_symbolic_links(infer, folders, tmp_path):
    """A link inside the input is followed; one that points outside leads nowhere in a container and fails its case."""
    case = write_case(folders.data, CASE)
    (folders.data / "linked").symlink_to(CASE)
    outside = write_case(tmp_path, "outside")
    dangling = copy_case(case, "dangling")
    (dangling / "dangling-t1c.nii.gz").unlink()
    (dangling / "dangling-t1c.nii.gz").symlink_to(outside / "outside-t1c.nii.gz")
    ended = infer()
    assert ended.exit_code == 0, ended.log
    assert f"{CASE}.nii.gz" in names(folders.output)
    assert "dangling" in ended.log


def test_an_output_folder_of_somebody_else(infer, folders):
    write_case(folders.data, CASE)
    folders.output.chmod(0o755)
    ended = infer(user=f"{NOBODY + 1}:{NOBODY + 1}")
    assert ended.exit_code == 6, ended.log
    assert "/output" in ended.log
    assert len(ended.log.splitlines()) < 10, "one clear message, no traceback"
    assert names(folders.output) == []


def test_a_full_output_device(engine, image, bundle, folders):
    """The device holds some label maps but not all: those stay whole, the error is clear."""
    first = write_case(folders.data, "case-00")
    for number in range(1, 8):
        copy_case(first, f"case-{number:02d}")
    volume = engine.volumes.create(
        driver="local", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=16k,mode=1777"}
    )
    mounts = {
        str(folders.data): {"bind": "/input", "mode": "ro"},
        str(bundle): {"bind": "/bundle", "mode": "ro"},
        volume.name: {"bind": "/output", "mode": "rw"},
    }
    try:
        # A tmpfs lives as long as somebody mounts it: this container keeps it and lists it afterwards.
        with started(
            engine, image, ["-c", "import time; time.sleep(600)"], entrypoint="/opt/venv/bin/python", volumes=mounts
        ) as keeper:
            ended = run(engine, image, environment=BUNDLE, volumes=mounts)
            check = "import os, gzip; print({n: len(gzip.open('/output/' + n).read()) for n in os.listdir('/output')})"
            listed = keeper.exec_run(["/opt/venv/bin/python", "-c", check])
        assert ended.exit_code == 6, ended.log
        assert "No space left" in ended.log
        assert listed.exit_code == 0, listed.output
        finished = eval(listed.output)  # noqa: S307 - our own output
        assert 0 < len(finished) < 8
        assert all(name.startswith("case-") and name.endswith(".nii.gz") for name in finished)
        assert len(set(finished.values())) == 1, "every file is whole"
    finally:
        volume.remove(force=True)


def test_hundreds_of_empty_folders(infer, folders):
    for number in range(500):
        (folders.data / f"empty-{number:03d}").mkdir()
    ended = infer()
    assert ended.exit_code == 3, ended.log
    assert len(ended.log.splitlines()) < 20, "not one line for each of them"
    assert names(folders.output) == []


def test_no_case_at_all(infer):
    ended = infer()
    assert ended.exit_code == 3, ended.log
    assert "/input" in ended.log


def test_termination_after_the_first_case(engine, image, bundle, folders):
    first = write_case(folders.data, "case-00")
    for number in range(1, 40):
        copy_case(first, f"case-{number:02d}")
    mounts = {**folders.mounts(), str(bundle): {"bind": "/bundle", "mode": "ro"}}
    with started(engine, image, environment=BUNDLE, volumes=mounts) as container:
        deadline = time.monotonic() + 300
        while not names(folders.output) and time.monotonic() < deadline:
            container.reload()
            assert container.status != "exited", container.logs().decode()
            time.sleep(0.05)
        container.kill("SIGTERM")
        exit_code = container.wait(timeout=30)["StatusCode"]
        log = container.logs().decode()
    assert exit_code == 143, log
    finished = names(folders.output)
    assert 0 < len(finished) < 40
    for name in finished:
        case_id = name.removesuffix(".nii.gz")
        assert_label_map(folders.output / name, folders.data / case_id / f"{case_id}-t1c.nii.gz")


def test_the_caller_s_own_files(infer, folders):
    if not may_chown():
        pytest.skip("only root can give a folder away")
    write_case(folders.data, CASE)
    os.chown(folders.output, 1234, 5678)
    folders.output.chmod(0o700)
    ended = infer(user="1234:5678")
    assert ended.exit_code == 0, ended.log
    written = (folders.output / f"{CASE}.nii.gz").stat()
    assert (written.st_uid, written.st_gid) == (1234, 5678)


def test_the_device_is_chosen_and_said(infer, folders):
    write_case(folders.data, CASE)
    automatic = infer()
    assert automatic.exit_code == 0, automatic.log
    assert "networks in" in automatic.log, "the log names device and precision"
    forced = infer(["infer", "--device", "cuda"])
    assert forced.exit_code == 5, forced.log


class Canary:
    """Unpickling one makes a file."""

    def __reduce__(self):
        return (os.system, ("touch /tmp/canary /output/canary",))


def test_a_pickle_among_the_weights_is_refused_and_never_run(infer, folders, tmp_path):
    write_case(folders.data, CASE)
    planted = write_bundle(tmp_path / "planted")
    plan = yaml.safe_load((planted / "plan.yaml").read_text())
    content = pickle.dumps(Canary())
    (planted / plan["members"][0]["weights"]).write_bytes(content)
    plan["members"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    (planted / "plan.yaml").write_text(yaml.safe_dump(plan))
    ended = infer(volumes={**folders.mounts(), str(planted): {"bind": "/bundle", "mode": "ro"}})
    assert ended.exit_code == 4, ended.log
    assert names(folders.output) == []
