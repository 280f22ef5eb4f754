"""The way back: the series that a case's image was imported from, found in its study again, and how it lies to t1c."""

from pathlib import Path

import numpy as np

from metseg.dicom.export import Destination
from metseg.dicom.import_json import ImageFacts, ImportJson, read_import_json
from metseg.dicom.pseudonyms import SALT_FILE, Pseudonyms, open_salt
from metseg.dicom.series import read_series
from metseg.errors import InputError
from metseg.systems import OWN_GRID, Modality


def find_destination(study: Path, import_json: Path, modality: Modality, salt_file: Path | None = None) -> Destination:
    """Finds a series by its salted hash.

    Args:
        study: the folder that was imported, or one that holds the series.
        import_json: of the case.
        modality: the image whose series is wanted.
        salt_file: the secret of the hashes, where the import had one of the caller's.

    Raises:
        InputError: a file can't be read, the salt is another one, the case has no such image from DICOM, or none of
            the study's series is the one.
    """
    facts = read_import_json(import_json)
    image = _find_image(facts, modality, import_json)
    pseudonyms = _find_salt(facts, import_json, salt_file)
    series = read_series(study, lambda uid: pseudonyms.of(uid) == image.series)
    matrix = None if image.alignment is None else np.array(image.alignment.matrix, dtype=np.float64)
    return Destination(series, matrix, may_hold_labels=modality in OWN_GRID)


def _find_image(facts: ImportJson, modality: Modality, path: Path) -> ImageFacts:
    image = facts.images.get(modality)
    if image is None or image.series is None:
        known = ", ".join(name for name, other in facts.images.items() if other.series is not None)
        raise InputError(
            f"{path}: no {modality} from DICOM; from DICOM are: {known or 'none'}", hint="Name one of these: --onto."
        )
    return image


def _find_salt(facts: ImportJson, path: Path, salt_file: Path | None) -> Pseudonyms:
    cases = path.absolute().parent.parent
    if salt_file is None and not (cases / SALT_FILE).exists():
        raise InputError(
            f"{cases}: no {SALT_FILE} in it, without which no series can be found by its hash",
            hint="Give the import's secret: --salt-file FILE; or name the series' own folder without --import-json.",
        )
    pseudonyms = open_salt(cases, salt_file)
    if pseudonyms.check != facts.salt_check:
        raise InputError(
            f"{path}: made with another salt than {salt_file or cases / SALT_FILE}",
            hint="Give the secret of that import: --salt-file FILE.",
        )
    return pseudonyms
