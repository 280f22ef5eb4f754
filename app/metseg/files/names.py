"""What the name of an image file says, in the spellings that people use: `<ID>-<modality>.nii.gz`."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from metseg.systems import MODALITY_ALIASES, Modality

SUFFIXES: Final = (".nii.gz", ".nii")
"""A file's name without its suffix, and without the modality where it is an image, is the case's ID."""

REFERENCE_KIND: Final = "seg"
"""In the place of the modality: the file is the case's reference."""

Kind = Modality | Literal["seg"]

_PACKED: Final = re.compile(r"\.nii(\.gz\.gz|(\.gz)?\.(bz2|xz|zst|lzma|zip|7z|z))$", re.IGNORECASE)
"""Endings that no reader here decompresses."""

_SEPARATORS: Final = ("-", "_")
_KINDS: Final[dict[str, Kind]] = {**{name: name for name in get_args(Modality)}, **MODALITY_ALIASES, "seg": "seg"}


@dataclass(frozen=True, slots=True)
class ImageName:
    """The name of an image file, taken apart.

    Attributes:
        name: as the file system spells it.
        stem: without the suffix; of a label map, that is the case's ID.
        case_id: what stands before the kind; empty where the name states none that is known.
        kind: the modality, or that it is a reference; None where the name states none that is known.
        is_plain: whether the name is spelled as docs/input.md says.
    """

    name: str
    stem: str
    case_id: str = ""
    kind: Kind | None = None
    is_plain: bool = False

    def is_of(self, case_id: str) -> bool:
        """Whether it names an image or the reference of this case."""
        return self.kind is not None and fold(self.case_id) == fold(case_id)


def read_name(name: str) -> ImageName | None:
    """Takes a file's name apart; None where it is no image's.

    The kind is what follows the last `-` or `_`, in any letter case, by its own name or by another one that people use.
    `._<name>` is macOS's own file beside another and no image.
    """
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    if suffix is None or name.startswith("._"):
        return None
    stem = name[: -len(suffix)]
    cut = max(stem.rfind(separator) for separator in _SEPARATORS)
    kind = _KINDS.get(stem[cut + 1 :].lower())
    if kind is None or cut < 1:
        return ImageName(name, stem)
    case_id = stem[:cut]
    return ImageName(name, stem, case_id, kind, is_plain=name == f"{case_id}-{kind}{suffix}")


def read_names(names: Iterable[str]) -> tuple[ImageName, ...]:
    """The images among a folder's files."""
    return tuple(image for image in map(read_name, names) if image is not None)


def is_packed_image(name: str) -> bool:
    """Whether a file must be unpacked before it is an image."""
    return _PACKED.search(name) is not None and not name.startswith("._")


def fold(name: str) -> str:
    """One spelling for IDs that count as equal: those that differ in letter case or in the encoding of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_system_folder(name: str) -> bool:
    """Whether a folder is an operating system's own and not a user's."""
    return name.startswith("._") or name in {"__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
