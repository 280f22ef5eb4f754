"""What lies in one folder: images by whose they are, other files, sub-folders."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metseg.errors import InputError
from metseg.files.names import REFERENCE_KIND, SUFFIXES, ImageName, Kind, fold, is_packed_image, read_name, read_names
from metseg.findings import printable


@dataclass(frozen=True)
class Listing:
    """The content of a folder.

    Attributes:
        path: the folder.
        files: names of all entries but folders, sorted; a link that leads nowhere counts.
        folders: sub-folders, sorted; a link to one counts.
        dead_links: names of the links among `files` that lead nowhere.
        problem: why the folder can't be listed; empty where it can.
    """

    path: Path
    files: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    dead_links: tuple[str, ...] = ()
    problem: str = ""

    @cached_property
    def name(self) -> str:
        """The folder's own name, which "." does not tell."""
        return os.path.basename(os.path.abspath(self.path))  # noqa: PTH100, PTH119 - a link's target has another

    @cached_property
    def images(self) -> tuple[ImageName, ...]:
        """The images among the files, references left out; packed ones count, whose names tell nothing."""
        packed = tuple(ImageName(name, name) for name in self.files if is_packed_image(name))
        return (*(image for image in read_names(self.files) if image.kind != REFERENCE_KIND), *packed)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all lies in it, as far as is known."""
        return not (self.files or self.folders or self.problem)

    def images_of(self, case_id: str) -> tuple[ImageName, ...]:
        """The images of one case."""
        return tuple(image for image in self.images if image.is_of(case_id))

    def sets(self) -> Mapping[str, Sequence[ImageName]]:
        """The images of each case that names in the folder speak of, by ID in the spelling of the first one."""
        found: defaultdict[str, list[ImageName]] = defaultdict(list)
        for image in self.images:
            if image.kind is not None:
                found[fold(image.case_id)].append(image)
        return {images[0].case_id: images for images in found.values()}


def list_folder(path: Path) -> Listing:
    """Lists a folder.

    Raises:
        OSError: it can't be listed.
    """
    with os.scandir(path) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    folders = {entry.name: Path(entry.path) for entry in found if _is_folder(entry)}
    files = [entry for entry in found if entry.name not in folders]
    dead = tuple(entry.name for entry in files if entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110 - False for a loop, too
    return Listing(path, tuple(entry.name for entry in files), tuple(folders.values()), dead)


def try_to_list(path: Path) -> Listing:
    """As `list_folder`, but a folder that can't be listed says why."""
    try:
        return list_folder(path)
    except OSError as error:
        return Listing(path, problem=error.strerror or str(error))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder, as far as anybody can tell: one that can't be followed must not cost the others."""
    try:
        return entry.is_dir()
    except PermissionError:  # a link into a folder that is closed; what has no image's name may be a case's folder
        return read_name(entry.name) is None
    except OSError:
        return False


def find_file(folder: Path, case_id: str, kind: Kind) -> Path | None:
    """A case's reference or image in a folder, in any spelling that `metseg.files.names.read_name` knows.

    Returns:
        The file that is spelled as docs/input.md says, where there is one, `.nii.gz` before `.nii`; None without any.

    Raises:
        InputError: there are several, all in other spellings; or the folder can't be listed.
    """
    plain = (folder / f"{case_id}-{kind}{suffix}" for suffix in SUFFIXES)
    found = next((path for path in plain if os.path.isfile(path)), None)  # noqa: PTH113 - False in a closed folder, too
    if found is not None:
        return found
    try:
        images = read_names(list_folder(folder).files)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(
            f"folder {printable(str(folder))} can't be listed: {error.strerror or error}",
            hint=f"Let user {os.getuid()} read it.",
        ) from error
    others = [folder / image.name for image in images if image.kind == kind and image.is_of(case_id)]
    if len(others) > 1:
        names = " and ".join(printable(path.name) for path in others)
        raise InputError(
            f"case {printable(case_id)}: {kind} exists {len(others)} times: {names}", hint="Keep one of them."
        )
    return others[0] if others else None
