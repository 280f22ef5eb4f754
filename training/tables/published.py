"""What Erdur et al. 2023 (arXiv 2310.02829) published, and the names of methods and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal, get_args

Metric = Literal["lDSC", "cDSC", "lHD95", "cHD95", "FP", "FN"]
"""The paper's names. l = lesion-wise, c = conventional, whole masks; FP, FN a patient; each the mean of WT, TC, ET."""
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)

Method = Literal["baseline", "blob", "sub", "tta", "mean", "simple", "small", "simple_small", "centred", "frozen"]
TITLES: Final[dict[str, str]] = {
    "baseline": "baseline",
    "blob": "+ blob loss",
    "sub": "+ subtraction",
    "tta": "+ TTA",
    "mean": "mean of the four",
    "simple": "SIMPLE of the four",
    "small": "small-lesion model alone",
    "simple_small": "SIMPLE + small-lesion model",
    "centred": "baseline, crops on lesions",
    "frozen": "the bundle with its plan",
}

Figures = tuple[float, float, float, float, float, float]
"""In the order of METRICS."""


@dataclass(frozen=True, slots=True)
class Row:
    """A published row.

    Attributes:
        method: whose.
        postprocessed: with the size rules of section 2.8.
        figures: in the order of METRICS.
    """

    method: Method
    postprocessed: bool
    figures: Figures


_WITHOUT: Final[dict[Method, Figures]] = {
    "baseline": (0.38, 0.69, 286, 28, 2.00, 0.48),
    "blob": (0.35, 0.70, 281, 28, 2.46, 0.49),
    "sub": (0.38, 0.72, 270, 27, 1.94, 0.52),
    "tta": (0.41, 0.72, 257, 25, 1.49, 0.55),
    "mean": (0.41, 0.73, 269, 24, 1.56, 0.35),
    "simple": (0.43, 0.74, 261, 23, 1.40, 0.34),
}
_WITH: Final[dict[Method, Figures]] = {
    "baseline": (0.43, 0.69, 267, 32, 0.75, 0.63),
    "blob": (0.46, 0.70, 249, 23, 0.69, 0.63),
    "sub": (0.47, 0.72, 249, 24, 0.50, 0.69),
    "tta": (0.47, 0.71, 250, 24, 0.41, 0.72),
    "mean": (0.47, 0.72, 261, 30, 0.59, 0.51),
    "simple": (0.49, 0.74, 254, 23, 0.57, 0.45),
    "small": (0.27, 0.27, 334, 67, 0.80, 1.52),
    "simple_small": (0.48, 0.74, 239, 24, 0.84, 0.37),
}
PUBLISHED: Final[dict[tuple[str, bool], Row]] = {
    (method, postprocessed): Row(method, postprocessed, figures)
    for postprocessed, rows in ((False, _WITHOUT), (True, _WITH))
    for method, figures in rows.items()
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows whose difference is a claim: `after` against `before`, each a method and whether postprocessed."""

    before: tuple[str, bool]
    after: tuple[str, bool]


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its rows, and the differences that are tested.

    Attributes:
        number: in the paper; None for our own.
        title: what it shows.
        rows: method, or an experiment's variant, and whether postprocessed.
        pairs: claims; where the paper has no figure the difference is shown without a verdict.
        titles: of rows that are no `Method`.
    """

    number: int | None
    title: str
    rows: tuple[tuple[str, bool], ...]
    pairs: tuple[Pair, ...]
    titles: Mapping[str, str] = field(default_factory=dict)


_STEPS: Final[tuple[Method, ...]] = ("baseline", "blob", "sub", "tta", "simple")
_ALL: Final[tuple[Method, ...]] = ("baseline", "blob", "sub", "tta", "mean", "simple")

TABLES: Final[tuple[Table, ...]] = (
    Table(
        number=3,
        title="what each step adds, postprocessed",
        rows=tuple((method, True) for method in _STEPS),
        pairs=tuple(Pair((one, True), (other, True)) for one, other in pairwise(_STEPS)),
    ),
    Table(
        number=4,
        title="without and with postprocessing",
        rows=tuple((method, postprocessed) for method in _ALL for postprocessed in (False, True)),
        pairs=tuple(Pair((method, False), (method, True)) for method in _ALL),
    ),
    Table(
        number=5,
        title="mean and SIMPLE, postprocessed",
        rows=(("mean", True), ("simple", True)),
        pairs=(Pair(("mean", True), ("simple", True)),),
    ),
    Table(
        number=6,
        title="the small-lesion model, postprocessed; alone on the cases with a small lesion only",
        rows=(("small", True), ("simple", True), ("simple_small", True)),
        pairs=(Pair(("simple", True), ("simple_small", True)),),
    ),
    Table(
        number=None,
        title="crops drawn uniformly, as in the paper, and crops centred on lesions (not in the paper), postprocessed",
        rows=(("baseline", True), ("centred", True)),
        pairs=(Pair(("baseline", True), ("centred", True)),),
    ),
    Table(
        number=None,
        title="the bundle with its own plan: every member with TTA (not in the paper), postprocessed",
        rows=(("simple", True), ("frozen", True)),
        pairs=(Pair(("simple", True), ("frozen", True)),),
    ),
)
