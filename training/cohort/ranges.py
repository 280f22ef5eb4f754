"""The type of a setting that is drawn uniformly."""

from typing import Annotated

from pydantic import AfterValidator


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"a range runs from low to high, found {value}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""Lower and upper end of a uniform distribution."""
