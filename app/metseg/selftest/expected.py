"""What the self-test should find: a file beside a bundle's weights, written once when the bundle is frozen."""

import base64
import hashlib
import zlib
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from metseg.atomic import write_atomically
from metseg.errors import WeightsError
from metseg.labels import LabelMap
from metseg.selftest.phantom import SHAPE

EXPECTED_FILE: Final = "self-test.json"
HINT: Final = "Write it with scripts/make-self-test, once the bundle is frozen."


class Expected(BaseModel):
    """The stored result.

    Attributes:
        schema_version: of this file.
        phantom_sha256: of the phantom's voxels.
        plan_sha256: of the plan that the self-test ran (`metseg.selftest.run.self_test_plan`).
        lesions: 26-connected components of WT.
        labels_sha256: of the label map's bytes, uint8 in C order.
        labels_zlib_base64: the label map itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    phantom_sha256: str
    plan_sha256: str
    lesions: int
    labels_sha256: str
    labels_zlib_base64: str

    @property
    def labels(self) -> LabelMap:
        """Shape SHAPE of the phantom.

        Raises:
            WeightsError: the stored map is damaged.
        """
        try:
            content = zlib.decompress(base64.b64decode(self.labels_zlib_base64, validate=True))
            labels = np.frombuffer(content, dtype=np.uint8).reshape(SHAPE)
        except (ValueError, zlib.error) as error:
            raise WeightsError(f"{EXPECTED_FILE}: the stored label map is damaged: {error}", hint=HINT) from error
        if labels_sha256(labels) != self.labels_sha256:
            raise WeightsError(f"{EXPECTED_FILE}: the stored label map does not have its hash", hint=HINT)
        return labels


def labels_sha256(labels: LabelMap) -> str:
    """Hash of a label map's voxels in C order."""
    return hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()


def make_expected(labels: LabelMap, *, lesions: int, phantom_sha256: str, plan_sha256: str) -> Expected:
    """What is stored of a result."""
    packed = zlib.compress(np.ascontiguousarray(labels).tobytes(), level=9)
    return Expected(
        phantom_sha256=phantom_sha256,
        plan_sha256=plan_sha256,
        lesions=lesions,
        labels_sha256=labels_sha256(labels),
        labels_zlib_base64=base64.b64encode(packed).decode("ascii"),
    )


def write_expected(folder: Path, expected: Expected) -> Path:
    """Writes the file into a bundle's folder and returns its path."""
    path = folder / EXPECTED_FILE
    write_atomically(path, (expected.model_dump_json(indent=1) + "\n").encode())
    return path


def read_expected(folder: Path) -> Expected:
    """Reads the file of a bundle.

    Raises:
        WeightsError: there is none, or it is not one.
    """
    path = folder / EXPECTED_FILE
    try:
        return Expected.model_validate_json(path.read_bytes())
    except OSError as error:
        raise WeightsError(
            f"{path}: can't be read: {error.strerror}: no self-test for this bundle", hint=HINT
        ) from error
    except ValidationError as error:
        raise WeightsError(f"{path}: {str(error).splitlines()[0]}", hint=HINT) from error
