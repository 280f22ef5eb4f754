"""How a volume was acquired, as far as its headers say: numbers, codes and words."""

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from metseg.dicom.reading import can_decode, find_in_frame
from metseg.dicom.study import Stack
from metseg.dicom.tags import UNREADABLE, find_value

KEYWORDS: Final = (
    "Modality",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "RepetitionTime",
    "InversionTime",
    "ScanningSequence",
    "MRAcquisitionType",
    "VolumetricProperties",
    "AngioFlag",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ConvolutionKernel",
    "BurnedInAnnotation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
)
"""Tags of the header that `describe_stack` reads, beside those of `metseg.dicom.study`."""

Contrast = Literal["with", "without", "unknown"]

WITHOUT_WORDS: Final = re.compile(
    r"(?<![a-z])(pre(?! ?op)|nativ[eao]?s?|plain|unenhanced|non ?con(trast)?|w ?o|vor km|avant|prima|"
    r"no (gd|gad|contrast|km)|without|ohne|sans|sin|senza|sem|zonder|bez)(?![a-z])|平扫|単純|без контраст"
)
"""Acquired before contrast agent, in descriptions: English, German, French, Spanish, Italian, Portuguese, Dutch,
Polish, Chinese, Japanese, Russian. Looked for before the words of `WITH_WORDS`."""

WITH_WORDS: Final = re.compile(
    r"(?<![a-z])(post(?! ?(op|rt|srs|tx|treat|surg))|gd|gad\w*|dotarem|clariscan|prohance|multihance|magnevist|"
    r"omniscan|km|mdc|contrast\w*|kontras\w*|injecte\w*|inj|apres (inj\w*|produit)|enhanced|ce|"
    r"t1 ?(ce|gd|c|km))(?![a-z])|"
    r"\+ ?(c|gd|km|k|gad)(?![a-z])|(?<![a-z0-9])c ?\+|t1 ?\w* ?\+|增强|造影|контраст"
)
"""Acquired after contrast agent, in the same languages."""

NO_AGENT: Final = frozenset({"", "no", "none", "n", "0", "non", "nein", "without", "w/o", "ohne", "sans", "null"})
"""What consoles write into the tag of the contrast agent where none was given."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What the headers of a stack say. Numbers are None where they say nothing.

    Attributes:
        modality: DICOM's, such as MR or CT.
        words: series description and protocol name, folded (`fold_words`).
        body_part: folded.
        image_type: values of ImageType and of the frames' type, upper case.
        sequence: codes of the scanning sequence (SE, GR, IR, EP).
        is_3d: whether it was acquired as a volume.
        tr_ms: repetition time.
        te_ms: echo time.
        ti_ms: inversion time; None also where it is 0.
        contrast: whether contrast agent was given.
        contrast_from: where that is said: `description`, `agent` (its tag), or nothing.
        kernel: of a CT's reconstruction, folded.
        is_angiography: the header says so.
        is_burnt_in: whether the pixels hold burnt-in text.
        is_grey: one sample per pixel.
        decodable: whether this program can read its pixel data.
        voxels: how many.
        slices: how many.
        step_mm: from slice to slice, across them.
        pixel_mm: the larger side of a pixel.
        height_mm: what the slices cover.
    """

    modality: str
    words: str
    body_part: str
    image_type: tuple[str, ...]
    sequence: frozenset[str]
    is_3d: bool
    tr_ms: float | None
    te_ms: float | None
    ti_ms: float | None
    contrast: Contrast
    contrast_from: str
    kernel: str
    is_angiography: bool
    is_burnt_in: bool
    is_grey: bool
    decodable: bool
    voxels: int
    slices: int
    step_mm: float
    pixel_mm: float
    height_mm: float


def describe_stack(stack: Stack) -> Acquisition:
    """Collects what the header of a stack's first image says, and what its grid is like."""
    data = stack.first.dataset
    description, protocol = (fold_words(find_value(data, key)) for key in ("SeriesDescription", "ProtocolName"))
    contrast, source = find_contrast(data, description, protocol)
    step_mm = pixel_mm = 0.0
    if stack.grid is not None:
        column_mm, row_mm, _ = stack.grid.spacing_mm
        step_mm, pixel_mm = stack.grid.voxel_volume_mm3 / (column_mm * row_mm), max(column_mm, row_mm)
    return Acquisition(
        modality=str(find_value(data, "Modality") or "").upper(),
        words=" ".join(dict.fromkeys((description, protocol))).strip(),
        body_part=fold_words(find_value(data, "BodyPartExamined")),
        image_type=tuple(
            str(part).upper() for key in ("ImageType", "FrameType") for part in _as_list(find_in_frame(data, key))
        ),
        sequence=_find_sequence(data),
        is_3d="3D" in {str(find_in_frame(data, key)) for key in ("MRAcquisitionType", "MRAcquisitionFrameType")},
        tr_ms=_find_number(data, "RepetitionTime"),
        te_ms=_find_number(data, "EffectiveEchoTime") or _find_number(data, "EchoTime"),
        ti_ms=_find_number(data, "InversionTime") or _find_number(data, "InversionTimes"),
        contrast=contrast,
        contrast_from=source,
        kernel=fold_words(find_in_frame(data, "ConvolutionKernel")),
        is_angiography=str(find_value(data, "AngioFlag")) == "Y",
        is_burnt_in=str(find_value(data, "BurnedInAnnotation")).upper() == "YES",
        is_grey=(find_value(data, "SamplesPerPixel") or 1) == 1
        and str(find_value(data, "PhotometricInterpretation") or "MONOCHROME2").startswith("MONOCHROME"),
        decodable=can_decode(data),
        voxels=0 if stack.grid is None else math.prod(stack.grid.shape),
        slices=len(stack.slices),
        step_mm=step_mm,
        pixel_mm=pixel_mm,
        height_mm=step_mm * len(stack.slices),
    )


def fold_words(text: Any) -> str:
    """A description in lower case, without accents, its words parted by single blanks; `+` and `*` stay."""
    value = " ".join(map(str, _as_list(text)))
    plain = "".join(c for c in unicodedata.normalize("NFKD", value.casefold()) if not unicodedata.combining(c))
    return " ".join(re.sub(r"[^\w+*]|_", " ", plain).split())


def find_contrast(data: Any, description: str, protocol: str) -> tuple[Contrast, str]:
    """Whether contrast agent was given, and what says so.

    The words count before the agent's tag: consoles carry the agent on to the whole examination.

    A protocol's name is read where the description says nothing: it may name what comes later in the examination.
    """
    for words in (description, protocol):
        if WITHOUT_WORDS.search(words):
            return "without", "description"
        if WITH_WORDS.search(words):
            return "with", "description"
    agents = [fold_words(part) for part in _as_list(find_value(data, "ContrastBolusAgent"))]
    if find_value(data, "ContrastBolusAgentSequence") is not None or any(agent not in NO_AGENT for agent in agents):
        return "with", "agent"
    return ("without", "agent") if agents else ("unknown", "")


def _find_sequence(data: Any) -> frozenset[str]:
    codes = {str(part).upper() for part in _as_list(find_value(data, "ScanningSequence"))}
    pulse = str(find_in_frame(data, "EchoPulseSequence") or "").upper()  # an enhanced image's words
    codes |= {code for code, word in (("SE", "SPIN"), ("GR", "GRADIENT")) if pulse in {word, "BOTH"}}
    if str(find_in_frame(data, "InversionRecovery")).upper() == "YES":
        codes.add("IR")
    if str(find_in_frame(data, "EchoPlanarPulseSequence")).upper() == "YES":
        codes.add("EP")
    return frozenset(codes - {""})


def _find_number(data: Any, keyword: str) -> float | None:
    for part in _as_list(find_in_frame(data, keyword)):
        try:
            value = float(part)
        except UNREADABLE:
            return None
        return value if np.isfinite(value) and value > 0 else None
    return None


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [value]
