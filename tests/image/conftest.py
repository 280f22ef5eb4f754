"""The engine, the image under test (METSEG_IMAGE) and a small bundle for it."""

import os

import docker
import pytest

from support import write_bundle


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
    """Untrained networks with small windows: quick, and their output is not empty."""
    folder = write_bundle(tmp_path_factory.mktemp("bundle") / "small")
    folder.chmod(0o755)
    return folder
