"""Which prediction belongs to which reference."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metseg.errors import InputError

REFERENCE_SUFFIX = "-seg"
FILE_SUFFIXES = (".nii.gz", ".nii")


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
        predictions = {next(iter(references)): prediction_path}
    else:
        predictions = _find_predictions(prediction_path)
    cases = tuple(CasePair(case_id, path, predictions.get(case_id)) for case_id, path in sorted(references.items()))
    unknown = tuple(path for case_id, path in sorted(predictions.items()) if case_id not in references)
    if all(case.prediction is None for case in cases):
        raise InputError(
            f"none of the {len(cases)} cases of {reference_path} has a prediction in {prediction_path}"
            f" ({len(unknown)} label maps of other names lie there)",
            hint=f"the prediction of {cases[0].case_id} is called {cases[0].case_id}.nii.gz",
        )
    return Cohort(cases, unknown)


def _find_references(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {_strip_ending(path).removesuffix(REFERENCE_SUFFIX): path}
    found: dict[str, Path] = {}
    for file in _list_label_maps(path):
        if _strip_ending(file).endswith(REFERENCE_SUFFIX):
            _enter(found, _strip_ending(file).removesuffix(REFERENCE_SUFFIX), file)
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        for suffix in FILE_SUFFIXES:
            file = folder / f"{folder.name}{REFERENCE_SUFFIX}{suffix}"
            if file.is_file():
                _enter(found, folder.name, file)
    if not found:
        raise InputError(
            f"no reference in {path}: expected <ID>-seg.nii.gz or <ID>/<ID>-seg.nii.gz",
            hint="give the folder that directly holds the references or the cases' folders",
        )
    return found


def _find_predictions(path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in _list_label_maps(path):
        _enter(found, _strip_ending(file), file)
    return found


def _list_label_maps(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such file or folder")
    for entry in sorted(folder.iterdir()):
        # Hidden files are not label maps: macOS leaves `._<name>.nii.gz` beside each file it copies.
        if entry.name.endswith(FILE_SUFFIXES) and not entry.name.startswith(".") and entry.is_file():
            yield entry


def _enter(found: dict[str, Path], case_id: str, path: Path) -> None:
    if case_id in found:
        raise InputError(f"case {case_id} occurs twice: {found[case_id]} and {path}", hint="remove one of them")
    found[case_id] = path


def _strip_ending(path: Path) -> str:
    for suffix in FILE_SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name
