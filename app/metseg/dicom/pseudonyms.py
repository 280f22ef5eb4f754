"""Salted hashes in place of identifiers: they match for who has the salt, and tell nothing to who has not.

DICOM's unique identifiers hold dates and the scanner's number, and any archive finds the patient by them. What an
import writes therefore names them by HMAC-SHA256 under a secret salt.
"""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from metseg.errors import InputError, OutputError

SALT_FILE: Final = ".metseg-salt"
"""In the output folder, where the caller gives no salt of his own."""

SALT_BYTES: Final = 32

MIN_SALT_BYTES: Final = 16
"""Of a caller's file: shorter ones can be guessed."""

HASH_DIGITS: Final = 32
"""Hexadecimal digits of a hash: 128 bits."""

CASE_DIGITS: Final = 10
"""Of a case's name: short enough to read aloud; two of a thousand cases share one with a chance below 1e-6."""


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Makes the hashes.

    Attributes:
        salt: secret; never printed or written elsewhere.
    """

    salt: bytes = field(repr=False)

    def of(self, identifier: str) -> str:
        """The hash of an identifier, such as a SeriesInstanceUID."""
        return hmac.new(self.salt, identifier.encode(), hashlib.sha256).hexdigest()[:HASH_DIGITS]

    def name_case(self, study_uid: str) -> str:
        """A case ID: `case-` and digits."""
        return f"case-{self.of(f'case {study_uid}')[:CASE_DIGITS]}"

    @property
    def check(self) -> str:
        """Tells whether another salt is the same one."""
        return self.of("metseg salt")


def open_salt(output_path: Path, salt_file: Path | None) -> Pseudonyms:
    """The caller's salt, or the one of the output folder, which is drawn when it is needed first.

    Args:
        output_path: the folder of cases; it exists.
        salt_file: the caller's file; its bytes are the salt.

    Raises:
        InputError: the caller's file can't be read or is too short.
        OutputError: no salt can be written into the output folder.
    """
    if salt_file is not None:
        try:
            salt = salt_file.read_bytes().strip()
        except OSError as error:
            raise InputError(f"salt file {salt_file}: can't be read: {error.strerror or error}") from error
        if len(salt) < MIN_SALT_BYTES:
            raise InputError(
                f"salt file {salt_file}: {len(salt)} bytes, expected {MIN_SALT_BYTES} at least",
                hint="Draw one: head -c 32 /dev/urandom | base64 > FILE.",
            )
        return Pseudonyms(salt)
    path = output_path / SALT_FILE
    try:
        if not path.exists():
            _draw(path)
        return Pseudonyms(path.read_bytes().strip())
    except OSError as error:
        raise OutputError(f"salt file {path}: {error.strerror or error}") from error


def _draw(path: Path) -> None:
    """Only its owner may read it; where two processes start together, the first one's stays."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, secrets.token_hex(SALT_BYTES).encode())
        os.fsync(file)
        os.close(file)
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
