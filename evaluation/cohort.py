"""Which prediction belongs to which reference."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from metseg.errors import InputError
from metseg.files.listing import find_file
from metseg.files.names import REFERENCE_KIND, ImageName, fold, read_name


@dataclass(frozen=True, slots=True)
class CasePair:
    """One case to score.

    Attributes:
        case_id: the reference's name without `-seg.nii.gz`, or its folder's name.
        reference: file of the reference.
        prediction: file of the prediction; None when it is missing.
    """

    case_id: str
    reference: Path
    prediction: Path | None


@dataclass(frozen=True, slots=True)
class Cohort:
    """All cases of a folder, sorted by ID.

    Attributes:
        cases: one per reference.
        unknown: predictions without a reference.
    """

    cases: tuple[CasePair, ...]
    unknown: tuple[Path, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """IDs of the cases without prediction."""
        return tuple(case.case_id for case in self.cases if case.prediction is None)


def find_cohort(reference_path: Path, prediction_path: Path) -> Cohort:
    """Pairs references and predictions.

    Args:
        reference_path: folder of `<ID>-seg.nii.gz` or `<ID>/<ID>-seg.nii.gz` (both may occur), or one such file.
        prediction_path: folder of `<ID>.nii.gz`, or the one file that belongs to the one reference.

    Raises:
        InputError: a path doesn't exist, no reference was found, none has a prediction, or an ID occurs twice.
    """
    references = _find_references(reference_path)
    if prediction_path.is_file():
        if len(references) != 1:
            raise InputError(f"{prediction_path} is one file, but {reference_path} holds {len(references)} references")
        predictions = {next(iter(references)): _Named(prediction_path.name, prediction_path)}
    else:
        predictions = _find_predictions(prediction_path)
    paths = {key: found.path for key, found in predictions.items()}
    pairs = (CasePair(found.case_id, found.path, paths.get(key)) for key, found in references.items())
    cases = tuple(sorted(pairs, key=lambda pair: pair.case_id))
    unknown = tuple(sorted(path for key, path in paths.items() if key not in references))
    if all(case.prediction is None for case in cases):
        raise InputError(
            f"none of the {len(cases)} cases of {reference_path} has a prediction in {prediction_path}"
            f" ({len(unknown)} label maps of other names lie there)",
            hint=f"the prediction of {cases[0].case_id} is called {cases[0].case_id}.nii.gz",
        )
    return Cohort(cases, unknown)


class _Named(NamedTuple):
    """A label map and the ID in its name; where many are looked up, their keys are folded IDs."""

    case_id: str
    path: Path


def _find_references(path: Path) -> dict[str, _Named]:
    found: dict[str, _Named] = {}
    if path.is_file():
        name = read_name(path.name) or ImageName(path.name, path.name)
        _enter(found, name.case_id if name.kind == REFERENCE_KIND else name.stem, path)
        return found
    for name, file in _list_label_maps(path):
        if name.kind == REFERENCE_KIND:
            _enter(found, name.case_id, file)
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        inside = find_file(folder, folder.name, REFERENCE_KIND)
        if inside is not None:
            _enter(found, folder.name, inside)
    if not found:
        raise InputError(
            f"no reference in {path}: expected <ID>-seg.nii.gz or <ID>/<ID>-seg.nii.gz",
            hint="give the folder that directly holds the references or the cases' folders",
        )
    return found


def _find_predictions(path: Path) -> dict[str, _Named]:
    found: dict[str, _Named] = {}
    for name, file in _list_label_maps(path):
        _enter(found, name.stem, file)
    return found


def _list_label_maps(folder: Path) -> Iterator[tuple[ImageName, Path]]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such file or folder")
    for entry in sorted(folder.iterdir()):
        # Hidden files are not label maps: macOS leaves `._<name>.nii.gz` beside each file it copies.
        name = read_name(entry.name)
        if name is not None and not entry.name.startswith(".") and entry.is_file():
            yield name, entry


def _enter(found: dict[str, _Named], case_id: str, path: Path) -> None:
    first = found.setdefault(fold(case_id), _Named(case_id, path))
    if first.path != path:
        raise InputError(f"case {case_id} occurs twice: {first.path} and {path}", hint="remove one of them")
