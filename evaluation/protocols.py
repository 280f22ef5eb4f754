"""The protocols by name, and the one function that most callers need."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, overload

from numpy.typing import NDArray

from evaluation.brats2023 import Brats2023, Brats2023Scores
from evaluation.brats2026 import Brats2026, Brats2026Scores
from evaluation.hu2019 import Hu2019, Hu2019Scores
from evaluation.results import CaseScores, ScoringProtocol
from metseg.errors import UsageError

ProtocolName = Literal["brats2023", "brats2026", "hu2019"]

PROTOCOLS: Final[Mapping[ProtocolName, Callable[[], ScoringProtocol]]] = {
    "brats2023": Brats2023,
    "brats2026": Brats2026,
    "hu2019": Hu2019,
}
"""Name to protocol with its official METS parameters."""


@overload
def score_case(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    spacing: Sequence[float],
    protocol: Literal["brats2023"] | Brats2023,
) -> Brats2023Scores: ...
@overload
def score_case(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    spacing: Sequence[float],
    protocol: Literal["brats2026"] | Brats2026,
) -> Brats2026Scores: ...
@overload
def score_case(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    spacing: Sequence[float],
    protocol: Literal["hu2019"] | Hu2019,
) -> Hu2019Scores: ...
@overload
def score_case(
    reference: NDArray[Any], prediction: NDArray[Any], spacing: Sequence[float], protocol: str | ScoringProtocol
) -> CaseScores: ...
def score_case(
    reference: NDArray[Any], prediction: NDArray[Any], spacing: Sequence[float], protocol: str | ScoringProtocol
) -> CaseScores:
    """Scores one prediction; a pure function of arrays.

    Args:
        reference: shape (x, y, z), labels 0..4 of any data type.
        prediction: the same shape.
        spacing: voxel size along x, y, z in millimetres.
        protocol: `brats2023` or `brats2026` with METS parameters, `hu2019`, or a configured `Brats2023(...)`,
            `Brats2026(...)`, `Hu2019(...)`.

    Returns:
        `Brats2023Scores`, `Brats2026Scores` or `Hu2019Scores`.

    Raises:
        UsageError: no protocol has this name.
        InputError: shapes differ, the spacing is not three positive numbers, or a value is no label.
    """
    chosen = find_protocol(protocol) if isinstance(protocol, str) else protocol
    x, y, z = spacing
    return chosen.score(reference, prediction, (float(x), float(y), float(z)))


def find_protocol(name: str) -> ScoringProtocol:
    """The protocol of this name with its official METS parameters.

    Raises:
        UsageError: there is none.
    """
    for known, build in PROTOCOLS.items():
        if known == name:
            return build()
    raise UsageError(f"unknown protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
