"""What a file is that is no NIfTI image, told by its first bytes."""

from typing import Final

SNIFFED_BYTES: Final = 512
"""Enough for the mark of every format below: a tar archive's stands at byte 257."""

GZIP: Final = b"\x1f\x8b"

_DOWNLOAD: Final = "Download the file again: what came is the server's answer and not the image."
_UNPACK: Final = "Unpack it and give the NIfTI file in it."
_CONVERT: Final = "Convert the image to NIfTI."

_MARKS: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (0, b"version https://git-lfs", "a Git LFS pointer in the place of the image", "Fetch the image: git lfs pull."),
    (0, b"/annex/objects/", "a git-annex pointer in the place of the image", "Fetch the image: git annex get."),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (0, b"BZh", "a bzip2 file", "Decompress it with bunzip2."),
    (0, b"\xfd7zXZ\x00", "an xz file", "Decompress it with unxz."),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", "Decompress it with unzstd."),
    (0, b"\x1f\x9d", "a compress (.Z) file", "Decompress it with uncompress."),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (128, b"DICM", "a DICOM file", _CONVERT),
    (0, b"NRRD", "an NRRD file", _CONVERT),
    (0, b"ObjectType", "a MetaImage header", _CONVERT),
    (0, b"NDims", "a MetaImage header", _CONVERT),
    (0, b"\x89HDF", "an HDF5 or MINC file", _CONVERT),
    (0, b"\x89PNG", "a PNG picture", _CONVERT),
    (0, b"\xff\xd8\xff", "a JPEG picture", _CONVERT),
    (0, b"%PDF", "a PDF document", _DOWNLOAD),
    (0, b"\x00\x05\x16\x07", "macOS's AppleDouble file beside another", "Give the file whose name lacks the `._`."),
)
"""Place, mark, what it is, what to do."""

_HTML: Final = (b"<!doctype html", b"<html", b"<head", b"<body")
"""How a page begins once spaces are gone, in lower case."""

_SHOWN_CHARACTERS: Final = 40


def name_format(start: bytes, *, is_inside_gzip: bool) -> tuple[str, str] | None:
    """What a file is, and what to do with it; None where nobody can tell.

    Args:
        start: its first SNIFFED_BYTES, decompressed; fewer where it is shorter.
        is_inside_gzip: whether they were compressed.
    """
    if is_inside_gzip and start.startswith(GZIP):
        return "it is compressed twice", "Decompress it once, with gunzip."
    known = next(((words, hint) for place, mark, words, hint in _MARKS if start.startswith(mark, place)), None)
    words, hint = known or _name_text(start) or ("", "")
    if not words:
        return None
    return (f"the gzip file holds {words}" if is_inside_gzip else f"it is {words}"), hint


def _name_text(start: bytes) -> tuple[str, str] | None:
    text = start.removeprefix(b"\xef\xbb\xbf").strip()
    if text.lower().startswith(_HTML):
        return "an HTML page", _DOWNLOAD
    line = text.split(b"\n", 1)[0].rstrip()
    if line and line.isascii() and line.decode("ascii").isprintable():
        return f"a text that begins with {line.decode('ascii')[:_SHOWN_CHARACTERS]!r}", _DOWNLOAD
    if len(start) == SNIFFED_BYTES and not any(start):
        return "full of zeros", "Copy or download the file again: it is not complete."
    return None
