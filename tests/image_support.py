"""Runs the built image with docker-py: strictly by default, each test loosening what it is about."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import nibabel as nib
import numpy as np
import yaml
from docker.models.containers import Container

CHECKOUT = Path(__file__).parents[1]

NOBODY = 54321
"""A uid that no passwd file has."""

STRICT: Mapping[str, object] = {
    "user": f"{NOBODY}:{NOBODY}",
    "network_mode": "none",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "shm_size": "64m",
    "mem_limit": "4g",
    "memswap_limit": "4g",
    "nano_cpus": 10**9,
}
"""The hardest conditions that a caller may make: no right, no network, no writable place but what is mounted."""

TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Run:
    """How a container ended: its exit code, and stdout and stderr together."""

    exit_code: int
    log: str


@dataclass(frozen=True, slots=True)
class Folders:
    """Host folders of one run, with modes that any uid can work with."""

    data: Path
    output: Path

    @classmethod
    def under(cls, root: Path) -> "Folders":
        data, output = root / "in", root / "out"
        data.mkdir(mode=0o755)
        output.mkdir()
        output.chmod(0o777)
        return cls(data, output)

    def mounts(self, data: str = "/input", output: str = "/output") -> dict[str, dict[str, str]]:
        return {str(self.data): {"bind": data, "mode": "ro"}, str(self.output): {"bind": output, "mode": "rw"}}


@contextmanager
def started(
    engine: docker.DockerClient, image: str, command: Sequence[str] | None = None, **options: object
) -> Iterator[Container]:
    """A running container, strict unless `options` say otherwise; gone afterwards. An option of None is left out."""
    wanted = {key: value for key, value in {**STRICT, **options}.items() if value is not None}
    container = engine.containers.run(image, command, detach=True, **wanted)
    try:
        yield container
    finally:
        container.remove(force=True)


def run(engine: docker.DockerClient, image: str, command: Sequence[str] | None = None, **options: object) -> Run:
    """Runs a container to its end."""
    with started(engine, image, command, **options) as container:
        exit_code = container.wait(timeout=TIMEOUT_S)["StatusCode"]
        return Run(exit_code, container.logs().decode("utf-8", errors="replace"))


def assert_label_map(path: Path, t1c: Path, *, owner: int | None = None) -> None:
    """A label map as the challenge wants it: t1c's header but for the type, labels 0 to 3, owned by the caller."""
    written, source = nib.load(path), nib.load(t1c)
    assert written.shape == source.shape
    assert written.get_data_dtype() == np.uint8
    assert set(np.unique(np.asanyarray(written.dataobj))) <= {0, 1, 2, 3}
    for field in (
        "pixdim",
        "qform_code",
        "sform_code",
        "srow_x",
        "srow_y",
        "srow_z",
        "xyzt_units",
        "quatern_b",
        "qoffset_x",
    ):
        assert written.header[field].tobytes() == source.header[field].tobytes(), field
    if owner is not None:
        assert path.stat().st_uid == owner


def write_registry(image: str, folder: Path) -> Path:
    """The orchestrator's registry with our entries, the image under test in them."""
    registry = yaml.safe_load((CHECKOUT / "mlcube/metastases.yml").read_text())
    for entry in registry["algorithms"].values():
        entry["run_args"]["docker_image"] = image
    path = folder / "metastases.yml"
    path.write_text(yaml.safe_dump(registry))
    return path


def names(folder: Path) -> list[str]:
    """Every entry of a folder, hidden ones included."""
    return sorted(entry.name for entry in folder.iterdir())


def may_chown() -> bool:
    """Whether this process can give files away, which some tests need."""
    return os.geteuid() == 0


def truncate(image: Path) -> None:
    """Cuts a file in half, as an interrupted copy does."""
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])


def copy_case(source: Path, target_id: str) -> Path:
    """The same case under another name, beside it."""
    target = source.with_name(target_id)
    target.mkdir()
    for image in source.iterdir():
        shutil.copy(image, target / image.name.replace(source.name, target_id))
    return target
