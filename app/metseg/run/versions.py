"""Versions of the program and of what it runs on."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

PACKAGES: Final = (
    "torch", "monai", "openvino", "numpy", "nibabel", "connected-components-3d", "scipy", "safetensors", "SimpleITK"
)  # fmt: skip
"""Packages whose version can change a voxel."""


def package_versions() -> Mapping[str, str | None]:
    """Version of each of PACKAGES; None where it isn't installed."""
    return {name: _version(name) for name in PACKAGES}


def python_version() -> str:
    """Such as 3.11.2."""
    return platform.python_version()


def platform_name() -> str:
    """Operating system and processor."""
    return platform.platform()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
