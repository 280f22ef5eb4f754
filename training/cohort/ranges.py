"""The types of settings: what is drawn uniformly, and what happens with a chance."""

from typing import Annotated

from pydantic import AfterValidator, Field


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"a range runs from low to high, found {value}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""Lower and upper end of a uniform distribution."""

Probability = Annotated[float, Field(ge=0, le=1)]
"""Chance that something is there."""
