"""Which series of a study is which modality, and why: the rules applied, and one series chosen for each modality."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from metseg.dicom.acquisition import Acquisition, describe_stack
from metseg.dicom.sequence_rules import THICK_MM, Weighting, find_exclusion, find_rule
from metseg.dicom.study import Stack, Study
from metseg.errors import InputError
from metseg.findings import Finding, listed, plain_number, warning
from metseg.systems import OWN_GRID, SOURCE_MODALITY, Modality

SHARP_KERNELS: Final = ("bone", "sharp", "lung", "knochen", "edge", "detail", "h6", "h7", "b6", "b7", "hr6", "br6")
"""Of a CT's reconstruction: such images are noisy; a soft one is preferred."""

SAME_STEP_MM: Final = 0.1
"""Two series whose slices lie apart by so much the same are equally good."""

CHOSEN_IN_ORDER: Final[tuple[Modality, ...]] = (SOURCE_MODALITY, "t1n", "t2w", "t2f", "ct")
"""The source image first: the others should be of its study."""

Rank = tuple[float, ...]
"""The smaller, the better; two series of the same rank fit equally."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one stack.

    Attributes:
        stack: the images.
        seen: what their headers say.
        modality: what they could serve as; None where nothing.
        rule: name of the rule or exclusion that decided; empty where none fits.
        reason: in words.
        is_chosen: whether they serve as it.
        rank: among those of the same modality.
    """

    stack: Stack
    seen: Acquisition
    modality: Modality | None
    rule: str
    reason: str
    is_chosen: bool = False
    rank: Rank = ()


@dataclass(frozen=True, slots=True)
class Recognition:
    """A study with a series for each modality that was found.

    Attributes:
        path: the study's folder.
        verdicts: of every stack, in the study's order.
        findings: about the choice, and files that were passed over.
        problem: why no case can be made of it: there is no t1c, or two series fit equally. None where one can.
    """

    path: Path
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]
    problem: InputError | None = None

    @property
    def chosen(self) -> Mapping[Modality, Verdict]:
        """The series taken, by modality."""
        return {item.modality: item for item in self.verdicts if item.is_chosen and item.modality is not None}


def recognise(study: Study, named: Mapping[Modality, str] | None = None) -> Recognition:
    """Chooses a series for each modality.

    Args:
        study: from `read_study`.
        named: the series that the user says, by its name (`Stack.name`); the rules decide the rest.

    Raises:
        InputError: a named series is not there, or can't be used.
    """
    named = named or {}
    verdicts = [_judge(stack) for stack in study.stacks]
    _refuse_unknown_names(named, verdicts)
    verdicts = _settle_contrast([_name(verdict, named) for verdict in verdicts])
    problem = hint = ""
    for modality in CHOSEN_IN_ORDER:
        equal = _find_best(modality, verdicts)
        if len(equal) > 1:
            problem = f"{modality}: series {', '.join(_show(item.stack) for item in equal)} fit equally"
            hint = "Say which: " + " or ".join(f"--series {modality}={item.stack.name}" for item in equal) + "."
            break
        if not equal and modality == SOURCE_MODALITY:
            problem, hint = _say_no_source(verdicts), _advise_source(verdicts)
            break
        if equal:
            (best,) = equal
            verdicts = [_take(item, best) for item in verdicts]
            if modality == SOURCE_MODALITY:
                verdicts = [_refuse_other_study(item, best.stack.study_uid) for item in verdicts]
    result = Recognition(
        study.path,
        tuple(verdicts),
        study.findings,
        InputError(f"study {study.path}: {problem}", hint=hint) if problem else None,
    )
    return replace(result, findings=(*study.findings, *_warn(result)))


def _refuse_other_study(item: Verdict, source_study: str) -> Verdict:
    """A sequence of another day does not belong to t1c; a CT of another day does."""
    is_other = item.stack.study_uid != source_study and item.rule != "named" and item.modality not in OWN_GRID
    if item.modality is None or not is_other:
        return item
    return replace(item, modality=None, reason=f"{item.reason}; of another study than {SOURCE_MODALITY}")


def _take(item: Verdict, best: Verdict) -> Verdict:
    """A verdict after the best series of a modality was taken."""
    if item is best:
        return replace(item, is_chosen=True)
    if item.modality == best.modality:
        return replace(item, reason=f"{item.reason}; series {_show(best.stack)} fits better")
    return item


def _judge(stack: Stack) -> Verdict:
    seen = describe_stack(stack)
    if seen.modality not in {"MR", "CT"}:
        return Verdict(stack, seen, None, "other", f"{seen.modality or 'no modality'}: neither MR nor CT")
    if stack.problem:
        return Verdict(stack, seen, None, "no-volume", stack.problem)
    exclusion = find_exclusion(seen)
    if exclusion is not None:
        return Verdict(stack, seen, None, exclusion.name, exclusion.why)
    rule = find_rule(seen)
    if rule is None:
        return Verdict(stack, seen, None, "", f"fits no rule ({_say_times(seen)})")
    modality, why = _modality_of(rule.weighting, seen)
    rank = (rule.certainty, *_rank(seen))
    return Verdict(stack, seen, modality, rule.name, f"{rule.why} ({_say_times(seen)}){why}", rank=rank)


def _modality_of(weighting: Weighting, seen: Acquisition) -> tuple[Modality | None, str]:
    """The modality, and what contrast agent says to it; None for a T1 of which nobody knows."""
    if weighting != "t1":
        return weighting, ""
    if seen.contrast == "with":
        return "t1c", f", contrast agent by its {seen.contrast_from}"
    if seen.contrast == "without":
        return "t1n", f", no contrast agent by its {seen.contrast_from}"
    return None, ", contrast unknown"


def _settle_contrast(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """A T1 that says nothing of contrast agent is t1n where another one of its study is t1c."""
    with_contrast = {item.stack.study_uid: item.stack for item in verdicts if item.modality == "t1c"}
    settled = []
    for item in verdicts:
        other = with_contrast.get(item.stack.study_uid)
        is_unknown = item.rule.startswith("t1") and item.seen.contrast == "unknown"
        if item.modality is None and is_unknown and other is not None:
            reason = f"{item.reason}, but series {_show(other)} is t1c"
            settled.append(replace(item, modality="t1n", reason=reason, rank=(item.rank[0] + 1, *item.rank[1:])))
        else:
            settled.append(item)
    return settled


def _rank(seen: Acquisition) -> Rank:
    return (
        any(sharp in seen.kernel for sharp in SHARP_KERNELS),
        not (seen.is_3d or seen.modality == "CT"),
        "ND" in seen.image_type,  # without distortion correction; the scanner often saves both
        round(seen.step_mm / SAME_STEP_MM),
        round(seen.pixel_mm / SAME_STEP_MM),
    )


def _name(verdict: Verdict, named: Mapping[Modality, str]) -> Verdict:
    for modality, name in named.items():
        if verdict.stack.name == name:
            if verdict.stack.problem:
                raise InputError(f"series {name}: {verdict.stack.problem}", hint="Export the series again.")
            exclusion = find_exclusion(verdict.seen)
            if exclusion is not None and exclusion.is_final:
                raise InputError(f"series {name}: {exclusion.why}", hint="Export it again, as slices, uncompressed.")
            return replace(verdict, modality=modality, rule="named", reason="named by the user", rank=(-1,))
    taken = verdict.modality in named
    return replace(verdict, modality=None, reason=f"{verdict.reason}; another was named") if taken else verdict


def _refuse_unknown_names(named: Mapping[Modality, str], verdicts: Sequence[Verdict]) -> None:
    known = {item.stack.name for item in verdicts}
    for modality, name in named.items():
        if name not in known:
            parts = sorted(other for other in known if other.startswith(f"{name}/"))
            raise InputError(
                f"--series {modality}={name}: the study has no such series",
                hint=f"It has parts: {listed(parts)}." if parts else "Take a UID from the table of series.",
            )


def _find_best(modality: Modality, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The best series of a modality, or all that are equally good."""
    found = [item for item in verdicts if item.modality == modality]
    best = min((item.rank for item in found), default=())
    return [item for item in found if item.rank == best]


def _say_no_source(verdicts: Sequence[Verdict]) -> str:
    unknown = [item for item in verdicts if item.modality is None and item.rule.startswith("t1")]
    if unknown:
        names = listed([_show(item.stack) for item in unknown])
        return f"no t1c: nothing says whether T1 series {names} was acquired with contrast agent"
    plain = [item for item in verdicts if item.modality == "t1n"]
    if plain:
        return f"no t1c: T1 series {listed([_show(item.stack) for item in plain])} is without contrast agent"
    broken = [item for item in verdicts if item.rule in {"no-volume", "compressed", "mosaic"}]
    if broken:
        return f"no t1c; series {_show(broken[0].stack)} can't be used: {broken[0].reason}"
    reasons = listed(list(dict.fromkeys(item.reason for item in verdicts)))
    return f"no t1c among {len(verdicts)} series ({reasons})"


def _advise_source(verdicts: Sequence[Verdict]) -> str:
    candidates = [item for item in verdicts if item.rule.startswith("t1") and item.modality is None]
    if candidates:
        return f"If one was, say so: --series {SOURCE_MODALITY}={candidates[0].stack.name}."
    return f"Name it: --series {SOURCE_MODALITY}=UID."


def _warn(result: Recognition) -> Iterable[Finding]:
    for modality, item in result.chosen.items():
        if item.seen.step_mm > THICK_MM:
            yield warning(
                "thick-slices",
                f"{modality}: slices lie {plain_number(item.seen.step_mm)} mm apart, more than {THICK_MM:g} mm: "
                "metastases of a few millimetres can lie between two",
            )
        if item.seen.is_burnt_in:
            yield warning("burnt-in", f"{modality}: the header says that text is burnt into the pixels")


def _say_times(seen: Acquisition) -> str:
    """TR, TE and TI in milliseconds, and the slices."""
    times = (("TR", seen.tr_ms), ("TE", seen.te_ms), ("TI", seen.ti_ms))
    parts = [f"{name} {plain_number(value)}" for name, value in times if value is not None]
    return ", ".join([*parts, f"{seen.slices} slices of {plain_number(seen.step_mm)} mm"])


def _show(stack: Stack) -> str:
    """A series as the table shows it."""
    number = "?" if stack.number is None else str(stack.number)
    return f"{number}/{stack.part}" if stack.part else number
