"""What is said about a folder's content that is no case: what was found, and which folder to give instead."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metseg.files.case import CaseFiles
from metseg.files.case_folders import case_of, cases_beside_each_other
from metseg.files.listing import Listing, try_to_list
from metseg.files.names import SUFFIXES, fold, is_system_folder
from metseg.findings import Finding, listed, printable
from metseg.systems import SOURCE_MODALITY, Modality

LAYOUT_HINT: Final = (
    "Lay the cases out as <folder>/<ID>/<ID>-<modality>.nii.gz: a file's name starts with its folder's."
)

LOOKS_DOWN: Final = 6
"""Levels: <download>/<archive>/<patient>/<session>/<kind of image> and one to spare."""

LOOKS_INTO: Final = 1000
"""Folders at most: a message is not worth the listing of a whole disk."""


def say_ignored(listings: Sequence[Listing], modalities: Sequence[Modality]) -> Iterable[Finding]:
    """Warnings for sub-folders that are no case, beside others that are."""
    empty = [printable(listing.name) for listing in listings if listing.is_empty]
    other = [listing for listing in listings if not listing.is_empty]
    if empty:
        what = f"ignored {len(empty)} folder{_s(empty)} without files: {listed(empty)}"
        yield Finding("", "warning", "ignored-folder", what)
    if other:
        deeper = _look_down(other, modalities)
        what = f"ignored {len(other)} folder{_s(other)} without an image named after the folder: {deeper.examples}"
        yield Finding("", "warning", "ignored-folder", what, deeper.hint)


def say_loose(own: Listing, cases: Sequence[CaseFiles]) -> Iterable[Finding]:
    """A warning for images beside the case folders; label maps of these cases may lie there."""
    used = {path.name for case in cases for path in _paths(case)}
    ids = {fold(case.case_id) for case in cases}
    loose = [printable(image.name) for image in own.images if image.name not in used and fold(image.stem) not in ids]
    if loose:
        what = f"ignored {len(loose)} image{_s(loose)} that belong{'s' if len(loose) == 1 else ''} to no case of the "
        what += f"folder: {listed(loose)}"
        yield Finding("", "warning", "ignored-file", what, LAYOUT_HINT)


def say_dead_links(own: Listing, cases: Sequence[CaseFiles]) -> Iterable[Finding]:
    """A warning for links that lead nowhere: a case may be behind them."""
    used = {path.name for case in cases for path in _paths(case)}
    dead = [printable(name) for name in own.dead_links if name not in used]
    if dead:
        what = f"ignored {len(dead)} link{_s(dead)} that lead{'s' if len(dead) == 1 else ''} nowhere: {listed(dead)}"
        yield Finding("", "warning", "ignored-folder", what, "Mount or copy what they point to.")


def say_no_case(own: Listing, listings: Sequence[Listing], modalities: Sequence[Modality]) -> Finding:
    """The error where a folder holds no case: what it holds, and where cases are."""
    empty = [printable(listing.name) for listing in listings if listing.is_empty]
    other = [listing for listing in listings if not listing.is_empty]
    deeper = _look_down(other, modalities)
    found = [f"{len(empty)} folder{_s(empty)} without files"] if empty else []
    found += [f"{len(other)} folder{_s(other)} with other files: {deeper.examples}"] if other else []
    found += _describe_own(own, modalities)
    return Finding(
        case_id="",
        severity="error",
        code="no-case",
        what=f"no case in {printable(str(own.path))}: looked for folders <ID> that hold <ID>-<modality>{SUFFIXES[0]} "
        f"or {SUFFIXES[1]} (modality: {', '.join(modalities)}), found {'; '.join(found) or 'nothing at all'}",
        hint=deeper.hint,
    )


@dataclass(frozen=True, slots=True)
class _Deeper:
    """What lies in folders that are no case.

    Attributes:
        examples: the first folders, each with one thing in it, an image where there is one.
        hint: which folders can be given as folders of cases; how to lay cases out where there is none.
    """

    examples: str
    hint: str


def _look_down(listings: Sequence[Listing], modalities: Sequence[Modality]) -> _Deeper:
    example_of = {listing.path: f"can't be listed: {listing.problem}" for listing in listings if listing.problem}
    usable: dict[Path, None] = {}
    for top, listing in _walk(listings):
        if listing.images:
            image = listing.path / listing.images[0].name
            example_of.setdefault(top, f"holds {image.relative_to(top)}")
        if is_system_folder(listing.name) or listing.name.startswith("."):
            continue
        if listing.path != top and case_of(listing, modalities) is not None:
            usable[listing.path.parent] = None
        elif cases_beside_each_other(listing, modalities):
            usable[listing.path] = None
    for listing in listings:
        held = (*listing.files, *(f"{folder.name}/" for folder in listing.folders))
        example_of.setdefault(listing.path, f"holds {''.join(held[:1])}")
    examples = [f"{printable(listing.name)} ({printable(example_of[listing.path])})" for listing in listings]
    folders = [printable(str(path)) for path in usable]
    hint = LAYOUT_HINT
    if folders:
        one_of, layout = ("one of ", f" {LAYOUT_HINT}") if len(folders) > 1 else ("", "")
        hint = f"Give {one_of}{listed(folders)} as the folder of cases.{layout}"
    return _Deeper(listed(examples), hint)


def _walk(listings: Sequence[Listing]) -> Iterator[tuple[Path, Listing]]:
    """The folders and what lies below them, level by level, each with the one of `listings` that it lies in."""
    level = [(listing.path, listing) for listing in listings]
    looked = 0
    for _ in range(LOOKS_DOWN):
        below = []
        for top, listing in level:
            yield top, listing
            looked += len(listing.folders)
            if looked <= LOOKS_INTO:
                below += [(top, try_to_list(folder)) for folder in listing.folders]
        level = below


def _describe_own(own: Listing, modalities: Sequence[Modality]) -> Iterable[str]:
    """What lies directly in the folder: images of cases that lack something, other images, other files."""
    sets = own.sets()
    lacking = []
    for case_id, images in sets.items():
        missing = [modality for modality in modalities if modality not in {image.kind for image in images}]
        lacking += [f"{printable(case_id)} lacks {', '.join(missing)}"] if SOURCE_MODALITY in missing else []
    if sets:
        whose = f"the images of {len(sets)} case{_s(list(sets))} beside each other"
        yield f"{whose}, not all with {SOURCE_MODALITY}: {listed(lacking)}" if lacking else whose
    known = {image.name for images in sets.values() for image in images}
    rest = [printable(name) for name in own.files if name not in known]
    if rest:
        yield f"{len(rest)} other file{_s(rest)}: {listed(rest)}"


def _paths(case: CaseFiles) -> Iterator[Path]:
    yield from case.images.values()
    for paths in case.rivals.values():
        yield from paths
    yield from case.others


def _s(things: Sequence[object]) -> str:
    return "" if len(things) == 1 else "s"
