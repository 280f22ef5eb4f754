"""Which folders are cases, told by the images in them and not by what the folders are called."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from metseg.files.case import CaseFiles
from metseg.files.listing import Listing
from metseg.files.names import SUFFIXES, ImageName, fold, is_system_folder
from metseg.findings import Finding, listed, printable
from metseg.systems import SOURCE_MODALITY, Modality, is_complete


def case_of(listing: Listing, modalities: Sequence[Modality]) -> CaseFiles | None:
    """A folder as a case: it directly holds an image named after it, of whatever modality."""
    name = listing.name
    images = listing.images_of(name)
    if not images or is_system_folder(name):
        return None
    return _as_case(listing, name, images, modalities)


def failed_case_of(listing: Listing, modalities: Sequence[Modality]) -> CaseFiles | None:
    """A folder that must hold a case but can't be used: it can't be listed, or none of its images is named after it.

    A hidden folder that holds nothing named after it is some program's own, and no case.
    """
    name = listing.name
    if name.startswith(".") or is_system_folder(name) or listing.images_of(name):
        return None
    if listing.problem:
        what = f"the case's folder {printable(str(listing.path))} can't be listed: {listing.problem}"
        return _as_failed(listing, Finding(name, "error", "unreadable", what, f"Let user {os.getuid()} read it."))
    if not listing.images:
        return None
    found = [printable(image.name) for image in listing.images]
    what = f"no image is called {printable(name)}-<modality>{SUFFIXES[0]}, but {listed(found)}"
    return _as_failed(listing, Finding(name, "error", "file-name", what, _advise(listing, modalities)))


def cases_beside_each_other(
    listing: Listing, modalities: Sequence[Modality], *, has_failed: bool = False
) -> tuple[CaseFiles, ...]:
    """A folder's own images as cases: one case's folder by itself, or a flat folder of many.

    Args:
        listing: the folder that somebody gave as the folder of cases.
        modalities: the sequences to look for.
        has_failed: whether sub-folders seem to hold cases; then only one that is complete or named after the folder is
            taken.

    Returns:
        All cases, where each has the source image; else the one that is named after the folder, or the only one.
        Nothing where these rules leave doubt.
    """
    folder, sets = listing.name, listing.sets()
    cases = tuple(
        _as_case(
            listing,
            folder if fold(case_id) == fold(folder) else case_id,
            images,
            modalities,
            is_own=len(sets) == 1 or fold(case_id) == fold(folder),
        )
        for case_id, images in sets.items()
    )
    if not has_failed and cases and all(SOURCE_MODALITY in _found(case) for case in cases):
        return cases
    if len(cases) == 1 and is_complete(_found(cases[0])):
        return cases
    named = tuple(case for case in cases if case.case_id == folder)
    if named or has_failed or len(cases) != 1:
        return named
    found = _found(cases[0])
    return cases if SOURCE_MODALITY in found or len(found) > 1 else ()


def _found(case: CaseFiles) -> frozenset[Modality]:
    return frozenset({*case.images, *case.rivals})


def _as_case(
    listing: Listing, case_id: str, images: Sequence[ImageName], modalities: Sequence[Modality], *, is_own: bool = True
) -> CaseFiles:
    found: defaultdict[str | None, list[ImageName]] = defaultdict(list)
    for image in images:
        found[image.kind].append(image)
    single = {modality: found[modality][0] for modality in modalities if len(found[modality]) == 1}
    rivals = {modality: found[modality] for modality in modalities if len(found[modality]) > 1}
    return CaseFiles(
        case_id=case_id,
        folder=listing.path,
        images={modality: listing.path / image.name for modality, image in single.items()},
        rivals={modality: tuple(listing.path / image.name for image in both) for modality, both in rivals.items()},
        others=tuple(listing.path / image.name for image in listing.images if image.kind is None) if is_own else (),
        findings=_name_warnings(case_id, tuple(single.values())),
    )


def _as_failed(listing: Listing, finding: Finding) -> CaseFiles:
    images = tuple(listing.path / image.name for image in listing.images)
    return CaseFiles(listing.name, listing.path, {}, others=images, findings=(finding,))


_SHOWN_ALIASES: Final = 5
"""As many as there are modalities."""


def _name_warnings(case_id: str, images: Sequence[ImageName]) -> tuple[Finding, ...]:
    """One warning for all images of a case that are spelled in another way than its folder and docs/input.md."""
    others = [
        f"{printable(image.name)} as {image.kind}"
        for image in images
        if not (image.is_plain and _composed(image.case_id) == _composed(case_id))
    ]
    if not others:
        return ()
    what = (
        f"not called {printable(case_id)}-<modality>{SUFFIXES[0]}, read all the same: {listed(others, _SHOWN_ALIASES)}"
    )
    hint = "Rename a file that is taken for another modality than its own."
    return (Finding(case_id, "warning", "file-name", what, hint),)


def _composed(name: str) -> str:
    """One encoding of accents: macOS decomposes them, and a folder and its files then differ in bytes unseen."""
    return unicodedata.normalize("NFC", name)


def _advise(listing: Listing, modalities: Sequence[Modality]) -> str:
    """What to do about a folder with images of other names."""
    path, ids = printable(str(listing.path)), list(listing.sets())
    if len(ids) == 1:
        return f"Call the folder {printable(ids[0])}, or give {path} as the folder of cases."
    if cases_beside_each_other(listing, modalities):
        return (
            f"Give {path} as the folder of cases: it holds the images of {listed([printable(name) for name in ids])}."
        )
    return f"Call the images {printable(listing.name)}-<modality>{SUFFIXES[0]}."
