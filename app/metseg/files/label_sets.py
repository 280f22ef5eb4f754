"""What label 4 means in the label maps of one source, which are judged together.

The challenges up to 2021 wrote ET as 4 and had no 3; in those from 2025 on, 4 is RC. Label maps with a 4, of which none
holds a 3, could be either: nobody guesses, and the user says which (`--labels`). Label maps with labels above 4, which
`metseg fuse` takes, are of no challenge.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from metseg.errors import InputError
from metseg.files.read import examine_label_map
from metseg.findings import listed, printable
from metseg.labels import ET, MAX_LABEL, RC, LabelConvention, LabelMap, settles_rc

_READINGS: Final = f"label {RC} is enhancing tumour in challenges up to 2021, a resection cavity in those from 2025 on"
_HINT: Final = (
    f"Say which it is: --labels brats2021 takes {RC} for enhancing tumour, --labels brats2025 for a resection cavity."
)


def require_clear_files(paths: Iterable[Path], what: str, convention: LabelConvention | None) -> None:
    """Makes sure that label 4 of some files can be read in one way.

    Files are read until one settles it, which is mostly the first. One that can't be read is left to its own reader.

    Args:
        paths: the label maps of one source.
        what: that source in words.
        convention: what the user says; then no file is read.

    Raises:
        InputError: some hold a 4, none a 3, and the user says nothing.
    """
    if convention is None:
        require_clear_maps(_read(paths), what, None)


def require_clear_maps(maps: Iterable[tuple[Path, LabelMap]], what: str, convention: LabelConvention | None) -> None:
    """As `require_clear_files`, for label maps that are read already."""
    if convention is not None:
        return
    count, with_rc = 0, []
    for path, labels in maps:
        if settles_rc(labels):
            return
        count += 1
        if (labels == RC).any():
            with_rc.append(printable(path.name))
    if not with_rc:
        return
    where = f"{len(with_rc)} of {count} label maps hold {RC} ({listed(with_rc)}), none {ET}"
    raise InputError(f"{what}: {where if count > 1 else f'holds {RC} and no {ET}'}; {_READINGS}", hint=_HINT)


def _read(paths: Iterable[Path]) -> Iterator[tuple[Path, LabelMap]]:
    for path in paths:
        try:
            yield path, examine_label_map(path, highest_label=MAX_LABEL).labels
        except InputError:
            continue
