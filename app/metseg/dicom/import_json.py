"""`import.json`: what a case was made from, by which rule, and what was checked. No names, dates, paths or UIDs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

import metseg
from metseg.errors import InputError
from metseg.findings import FindingCode
from metseg.systems import Modality, SystemName

FILE_NAME: Final = "import.json"

SCHEMA_VERSION: Final = "1.0"


class Part(BaseModel):
    """Base of every part: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class AlignmentFacts(Part):
    """How an image was brought to t1c; see metseg.prepare.registration.Registration."""

    matrix: tuple[tuple[float, float, float, float], ...]
    is_identity: bool
    shift_mm: float
    rotation_degrees: float
    overlap: float
    gain: float


class ImageFacts(Part):
    """One image of the case.

    Attributes:
        series: salted hash of the SeriesInstanceUID; None of an image from a NIfTI file.
        study: of the StudyInstanceUID.
        frame_of_reference: of its UID; None where the series states none.
        part: of the series, from 1; 0 where the series is one volume.
        rule: that recognised it; `named` where the user said it.
        reason: in words.
        shape: voxels along the source's columns, rows and slices.
        affine: 4 rows: these voxels to RAS+ millimetres, before registration.
        alignment: None for t1c, and where no registration was asked for.
        sha256: of the file written.
    """

    series: str | None
    study: str | None
    frame_of_reference: str | None
    part: int
    rule: str
    reason: str
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, float, float, float], ...]
    alignment: AlignmentFacts | None
    sha256: str


class SeriesFacts(Part):
    """One series of the study, taken or not."""

    series: str
    part: int
    images: int
    modality: Modality | None
    is_chosen: bool
    rule: str
    reason: str


class BrainFacts(Part):
    """The brain's mask."""

    source: str
    volume_ml: float


class FindingFacts(Part):
    """A remark; see metseg.findings."""

    severity: Literal["error", "warning", "note"]
    code: FindingCode
    what: str


class ImportJson(Part):
    """The whole of `import.json`.

    Attributes:
        schema_version: the first number changes when a reader of the old schema would break.
        version: of this program.
        salt_check: a hash that tells whether another salt is the one used here.
        images: what was written, by modality.
        left_out: modalities that were found and not written, with the reason.
        study: every series; empty for NIfTI.
        brain: None where the system works on whole heads.
        stage_s: seconds by step.
    """

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    version: str = metseg.__version__
    case_id: str
    system: SystemName
    salt_check: str
    images: Mapping[Modality, ImageFacts]
    left_out: Mapping[Modality, str]
    study: tuple[SeriesFacts, ...]
    brain: BrainFacts | None
    findings: tuple[FindingFacts, ...]
    stage_s: Mapping[str, float]


def read_import_json(path: Path) -> ImportJson:
    """Reads it.

    Raises:
        InputError: it can't be read, or is none.
    """
    try:
        return ImportJson.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{path}: {where}: {first['msg']}", hint="Import the study again.") from None
