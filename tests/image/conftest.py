"""The engine, the image under test (METSEG_IMAGE) and a small bundle for it."""

import os

import docker
import pytest

from support import ALL, SUB, write_bundle


@pytest.fixture(scope="session")
def engine():
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker engine answers ({error}); scripts/start-engine starts one")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine):
    """The image's tag; `make image-test` and `make callers-test` build it and set METSEG_IMAGE."""
    tag = os.environ.get("METSEG_IMAGE", "metseg:local")
    try:
        engine.images.get(tag)
    except docker.errors.ImageNotFound:
        pytest.fail(f"there is no image {tag}: make image")
    return tag


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """Two untrained networks, one window, one pass: quick, and their output is not empty."""
    window = {"size": (48, 48, 32), "overlap": 0.5}
    folder = write_bundle(
        tmp_path_factory.mktemp("bundle") / "small", channels=(ALL, SUB), window=window, tta={"variant": "none"}
    )
    folder.chmod(0o755)
    return folder
