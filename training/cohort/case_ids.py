"""The identifiers of synthetic cases."""

from typing import Final

STRIPPED_PREFIX: Final = "SYN-MET"
"""Of cases in the challenge's layout."""

HEAD_PREFIX: Final = "SYN-SRS"
"""Of whole heads with a planning CT."""

ALL_IMAGES_PREFIX: Final = "SYN-HEAD"
"""Of whole heads with every image: four MR sequences and a planning CT."""


def format_case_id(prefix: str, index: int) -> str:
    """The identifier of a cohort's n-th case, counted from 0: patient and first timepoint."""
    return f"{prefix}-{index + 1:05d}-000"
