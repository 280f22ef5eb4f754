"""Which series is which: the rules as data. Changed here, they change everywhere.

Two kinds: an `Exclusion` leaves a series out whatever else it is; a `SequenceRule` says what an image of one kind looks
like. The numbers are ranges in clinical use at 1.5 and 3 T, wide enough for every vendor's protocols of the head
(Siemens and GE give the inversion time of a T1 gradient echo in other ways, Philips rounds echo times).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from metseg.dicom.acquisition import Acquisition
from metseg.files.header import MAX_VOXELS

Weighting = Literal["t1", "t2w", "t2f", "ct"]
"""What a rule recognises; T1 becomes t1n or t1c by contrast agent."""

Range = tuple[float, float]

MIN_SLICES: Final = 10
"""A head in fewer slices than this is a localiser, or no volume."""

MIN_HEIGHT_MM: Final = 80.0
"""Of what the slices cover: a slab of the inner ear or the pituitary is thinner, a brain is not."""

THICK_MM: Final = 6.0
"""From slice to slice: beyond it a metastasis of a few millimetres can lie between two slices."""


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z])({pattern})(?![a-z])")


FLAIR_WORDS: Final = _words(r"\w*flair\w*|dark ?fl\w*|tirm|fluid att\w*")
T1_WORDS: Final = _words(r"\w*t1\w*|mprage|mpr|bravo|fspgr|spgr|tfe|vibe|thrive|lava|flash")
T2_WORDS: Final = _words(r"\w*t2\w*|pd\w*|ciss|fiesta\w*")


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Series that are never taken by themselves; `--series` takes them all the same, where `is_final` is not set.

    Attributes:
        name: short.
        why: for the table.
        applies: whether it applies.
        is_final: nothing can be made of such a series.
    """

    name: str
    why: str
    applies: Callable[[Acquisition], bool]
    is_final: bool = False


def _says(pattern: str) -> Callable[[Acquisition], bool]:
    words = _words(pattern)
    return lambda seen: bool(words.search(seen.words))


def _either(*tests: Callable[[Acquisition], bool]) -> Callable[[Acquisition], bool]:
    return lambda seen: any(test(seen) for test in tests)


def _is_elsewhere(seen: Acquisition) -> bool:
    return bool(seen.body_part and not HEAD_PARTS.search(seen.body_part))


def _is_type(*kinds: str) -> Callable[[Acquisition], bool]:
    return lambda seen: bool(set(kinds) & set(seen.image_type))


LOCALISER: Final = (
    r"locali[sz]\w*|loc|scout|survey|(3|three|tri) ?plan\w*|pilot|topogram|reperage|lokali\w*|aahead\w*|aascout|"
    r"ubersicht\w*|uebersicht\w*|plan ?scan|cal(ibration)?|asset cal|ref ?scan|定位"
)
OTHER_PARTS: Final = (
    r"[cltsh]? ?spine|spinal|lumb\w*|cervical\w*|thora\w*|sacr\w*|rachis|columna|colonna|coluna|wirbel\w*|[hlb]ws|"
    r"myelo\w*|knee|shoulder|abdom\w*|pelvi\w*|breast|mamma|prostat\w*|liver|leber|cardiac|heart"
)
HEAD_PARTS: Final = _words(
    r"\w*head\w*|\w*brain\w*|skull|cranium|neuro\w*|kopf|schadel|tete|crane|cabeza|testa|encephal\w*|iac|orbit\w*|"
    r"sella|unknown|whole ?body"
)
DIFFUSION: Final = r"\w*dwi\w*|diff\w*|adc|\w*dti\w*|trace\w*|resolve|hardi|b ?1000|tensor"
PERFUSION: Final = r"perf\w*|dsc|dce|asl|pasl|pcasl|r?cb[fv]|mtt|tmax|ttp|dynamic\w*|ktrans"
SUSCEPTIBILITY: Final = r"swi\w*|swan\w*|venobold|hemo\w*|haemo\w*|t2 ?\*|\w*t2 ?star|\w*t2s|ffe t2|swp|qsm|\w*medic"
ANGIOGRAPHY: Final = r"\w*tof\w*|\w*mra|\w*mrv|angio\w*|venogra\w*|pc ?3d|inhance"
MAPS: Final = r"spectro\w*|csi|mrs|svs|press|field ?map\w*|b[01] ?map|t[12] ?map|gre field\w*|phase ?map"
DERIVED: Final = r"mip|mpr (tra|sag|cor|ax|range|thick)\w*|reformat\w*|subtract\w*|sub|rekon\w*|curved|fused?|fusion"
DERIVED_TYPES: Final = (
    "MPR",
    "CSA MPR",
    "MIP",
    "PROJECTION IMAGE",
    "MNIP",
    "REFORMATTED",
    "SUBTRACTION",
    "SUB",
    "AVERAGE",
    "3DRECON",
)

EXCLUSIONS: Final = (
    Exclusion("colour", "colour pictures", lambda seen: not seen.is_grey, is_final=True),
    Exclusion("compressed", "in a compression that can't be read", lambda seen: not seen.decodable, is_final=True),
    Exclusion("mosaic", "a mosaic: many slices in one image", _is_type("MOSAIC"), is_final=True),
    Exclusion("too-large", f"more than {MAX_VOXELS} voxels", lambda seen: seen.voxels > MAX_VOXELS, is_final=True),
    Exclusion("burnt-in", "text is burnt into the pixels", lambda seen: seen.is_burnt_in),
    Exclusion("localiser", "a localiser", _either(_is_type("LOCALIZER"), _says(LOCALISER))),
    Exclusion("body-part", "another part of the body", _either(_is_elsewhere, _says(OTHER_PARTS))),
    Exclusion(
        "diffusion",
        "diffusion",
        _either(_is_type("DIFFUSION", "ADC", "TRACEW", "FA", "DIFFUSION_ANISO"), _says(DIFFUSION)),
    ),
    Exclusion("perfusion", "perfusion", _says(PERFUSION)),
    Exclusion("functional", "functional imaging", _says(r"f ?mri|bold|rest ?state|moco|ep2d\w*")),
    Exclusion("susceptibility", "susceptibility-weighted or T2*", _says(SUSCEPTIBILITY)),
    Exclusion("angiography", "angiography", _either(lambda seen: seen.is_angiography, _says(ANGIOGRAPHY))),
    Exclusion("map", "spectroscopy or a map", _says(MAPS)),
    Exclusion("phase", "a phase image", _is_type("P", "PHASE", "PHASE MAP", "R", "I", "VELOCITY")),
    Exclusion(
        "derived",
        "derived: a reformat, projection, subtraction or map",
        _either(
            lambda seen: {"DERIVED", "SECONDARY"} <= set(seen.image_type), _is_type(*DERIVED_TYPES), _says(DERIVED)
        ),
    ),
    Exclusion("few-slices", f"fewer than {MIN_SLICES} slices", lambda seen: seen.slices < MIN_SLICES),
    Exclusion(
        "slab",
        f"covers less than {MIN_HEIGHT_MM:g} mm: a part of the head",
        lambda seen: seen.height_mm < MIN_HEIGHT_MM,
    ),
)
"""In this order; the first that applies gives the reason."""


@dataclass(frozen=True, slots=True)
class SequenceRule:
    """What an image of one kind looks like. Every condition that is given must hold.

    Attributes:
        name: in `import.json`.
        weighting: what it recognises.
        why: for the table.
        modality: DICOM's.
        tr_ms: range of the repetition time; None does not ask.
        te_ms: of the echo time.
        ti_ms: of the inversion time.
        no_ti: whether an inversion time speaks against it.
        sequence: one of these codes, where the header states any.
        not_sequence: none of these codes.
        words: that the description must hold.
        not_words: that it must not hold.
        without_numbers: whether it is for headers without echo or repetition time alone.
        certainty: 0 the numbers say it, 1 numbers and name together, 2 the name alone.
    """

    name: str
    weighting: Weighting
    why: str
    modality: str = "MR"
    tr_ms: Range | None = None
    te_ms: Range | None = None
    ti_ms: Range | None = None
    no_ti: bool = False
    sequence: frozenset[str] = frozenset()
    not_sequence: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    not_words: re.Pattern[str] | None = None
    without_numbers: bool = False
    certainty: int = 0

    def fits(self, seen: Acquisition) -> bool:
        """Whether a stack looks like this."""
        asked = ((self.tr_ms, seen.tr_ms), (self.te_ms, seen.te_ms), (self.ti_ms, seen.ti_ms))
        return (
            seen.modality == self.modality
            and all(span is None or (value is not None and span[0] <= value <= span[1]) for span, value in asked)
            and not (self.no_ti and seen.ti_ms is not None)
            and not (self.sequence and seen.sequence and not self.sequence & seen.sequence)
            and not self.not_sequence & seen.sequence
            and (self.words is None or bool(self.words.search(seen.words)))
            and not (self.not_words and self.not_words.search(seen.words))
            and not (self.without_numbers and (seen.te_ms is not None and seen.tr_ms is not None))
        )


_GRADIENT, _SPIN, _PLANAR = frozenset({"GR", "RM"}), frozenset({"SE", "RM"}), frozenset({"EP"})

SEQUENCE_RULES: Final = (
    SequenceRule("ct", "ct", "CT", modality="CT"),
    SequenceRule(
        "flair", "t2f", "T2 with inversion at the time of CSF",
        te_ms=(60, 700), tr_ms=(3500, 20000), ti_ms=(1400, 3300), not_sequence=_PLANAR,
    ),
    SequenceRule(
        "flair-named", "t2f", "T2 by its times, called FLAIR",
        te_ms=(60, 700), tr_ms=(3500, 20000), no_ti=True, words=FLAIR_WORDS, not_sequence=_PLANAR, certainty=1,
    ),
    SequenceRule(
        "t2", "t2w", "long echo and repetition, no inversion",
        te_ms=(60, 700), tr_ms=(1500, 20000), no_ti=True, sequence=_SPIN, not_words=FLAIR_WORDS, not_sequence=_PLANAR,
    ),
    SequenceRule(
        "t1-inversion", "t1", "short echo after an inversion",
        te_ms=(1, 40), tr_ms=(3, 4500), ti_ms=(300, 1400), not_sequence=_PLANAR,
    ),
    SequenceRule(
        "t1-gradient", "t1", "gradient echo with short echo and repetition",
        te_ms=(1, 12), tr_ms=(3, 400), no_ti=True, sequence=_GRADIENT, not_words=T2_WORDS, not_sequence=_PLANAR,
    ),
    SequenceRule(
        "t1-spin", "t1", "spin echo with short echo and repetition",
        te_ms=(5, 40), tr_ms=(250, 1300), no_ti=True, sequence=_SPIN, not_words=T2_WORDS, not_sequence=_PLANAR,
    ),
    SequenceRule(
        "flair-by-name", "t2f", "called FLAIR; the header has no times",
        words=FLAIR_WORDS, not_words=_words(r"\w*t1\w*"), without_numbers=True, certainty=2,
    ),
    SequenceRule(
        "t1-by-name", "t1", "called T1; the header has no times",
        words=T1_WORDS, not_words=_words(r"\w*t2\w*"), without_numbers=True, certainty=2,
    ),
    SequenceRule(
        "t2-by-name", "t2w", "called T2; the header has no times",
        words=T2_WORDS, not_words=_words(r"\w*t1\w*|\w*flair\w*"), without_numbers=True, certainty=2,
    ),
)  # fmt: skip
"""In this order; the first that fits counts."""


def find_exclusion(seen: Acquisition) -> Exclusion | None:
    """The first exclusion that applies."""
    return next((item for item in EXCLUSIONS if item.applies(seen)), None)


def find_rule(seen: Acquisition) -> SequenceRule | None:
    """The first rule that fits."""
    return next((rule for rule in SEQUENCE_RULES if rule.fits(seen)), None)
