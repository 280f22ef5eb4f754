"""What the self-test should find: a file beside a bundle's weights, written once when the bundle is frozen."""

import hashlib
import math
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Base64Bytes, BaseModel, ConfigDict, ValidationError, model_validator

from metseg.errors import WeightsError
from metseg.files.atomic import write_atomically
from metseg.labels import BACKGROUND, LabelMap

EXPECTED_FILE: Final = "self-test.json"
MARGIN: Final = 1e-3
"""Probability. Another number of threads changes float32 probabilities by up to 7e-5 (measured on the first bundle)."""

HINT: Final = "Write it with scripts/make-self-test, once the bundle is frozen."


class Expected(BaseModel):
    """The stored result.

    Attributes:
        schema_version: of this file.
        phantom_sha256: of the phantom's voxels.
        plan_sha256: of the plan that the self-test ran (`metseg.selftest.verdict.shorten_plan`).
        lesions: 26-connected components of the bundle's largest region.
        shape: of the phantom.
        labels_zlib_base64: the label map, uint8 in C order.
        undecided_zlib_base64: voxels where some member's probability came within MARGIN of the threshold, one bit each:
            which side they fall to depends on how a processor rounds.
        decided_sha256: hash of the label map with 0 in those voxels: the same in float32 on every CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    phantom_sha256: str
    plan_sha256: str
    lesions: int
    shape: tuple[int, int, int]
    labels_zlib_base64: Base64Bytes
    undecided_zlib_base64: Base64Bytes
    decided_sha256: str

    @property
    def labels(self) -> LabelMap:
        """The label map, shape `shape`."""
        return _unpack(self.labels_zlib_base64).reshape(self.shape)

    @property
    def undecided(self) -> NDArray[np.bool_]:
        """The undecided voxels, shape `shape`."""
        bits = np.unpackbits(_unpack(self.undecided_zlib_base64), count=math.prod(self.shape))
        return bits.astype(np.bool_).reshape(self.shape)

    @model_validator(mode="after")
    def _check_hash(self) -> Self:
        if self.hash_decided(self.labels) != self.decided_sha256:
            raise ValueError("the stored label map does not have its hash")
        return self

    def hash_decided(self, labels: LabelMap) -> str:
        """Hash of a label map's voxels, the undecided ones set to 0."""
        return _hash(labels, self.undecided)


def make_expected(
    labels: LabelMap, undecided: NDArray[np.bool_], *, lesions: int, phantom_sha256: str, plan_sha256: str
) -> Expected:
    """What is stored of a result; both arrays have the phantom's shape."""
    return Expected.model_validate(
        {
            "phantom_sha256": phantom_sha256,
            "plan_sha256": plan_sha256,
            "lesions": lesions,
            "shape": labels.shape,
            "labels_zlib_base64": b64encode(zlib.compress(labels.tobytes(), level=9)),
            "undecided_zlib_base64": b64encode(zlib.compress(np.packbits(undecided).tobytes(), level=9)),
            "decided_sha256": _hash(labels, undecided),
        }
    )


def _hash(labels: LabelMap, undecided: NDArray[np.bool_]) -> str:
    return hashlib.sha256(np.where(undecided, BACKGROUND, labels).astype(np.uint8).tobytes()).hexdigest()


def _unpack(content: bytes) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(zlib.decompress(content), dtype=np.uint8)
    except zlib.error as error:
        raise ValueError(f"a stored map is damaged: {error}") from error


def write_expected(folder: Path, expected: Expected) -> Path:
    """Writes the file into a bundle's folder and returns its path."""
    path = folder / EXPECTED_FILE
    write_atomically(path, (expected.model_dump_json(indent=1) + "\n").encode())
    return path


def read_expected(folder: Path) -> Expected:
    """Reads the file of a bundle.

    Raises:
        WeightsError: there is none, it is not one, or it is damaged.
    """
    path = folder / EXPECTED_FILE
    try:
        return Expected.model_validate_json(path.read_bytes())
    except OSError as error:
        raise WeightsError(
            f"{path}: can't be read: {error.strerror}: no self-test for this bundle", hint=HINT
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WeightsError(f"{path}: {place + ': ' if place else ''}{first['msg']}", hint=HINT) from error
