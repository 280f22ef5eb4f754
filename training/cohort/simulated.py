"""A simulated case as it is written to disk, whichever images it has."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from training.cohort.lesions import Lesion
from training.cohort.settings import CohortSettings


class StoredVolume(NamedTuple):
    """Voxels, shape (x, y, z), and their affine, shape (4, 4), to RAS millimetres."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]


class SimulatedCase(Protocol):
    """A complete case."""

    @property
    def case_id(self) -> str:
        """Its identifier, which ends in the timepoint."""

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """What was placed."""

    @property
    def volumes(self) -> Mapping[str, StoredVolume]:
        """What goes on disk, by the end of the file's name; the reference last: a case that has it is complete."""

    @property
    def matrices(self) -> Mapping[str, NDArray[np.float64]]:
        """Known transforms that go beside them as text, shape (4, 4) each; may be empty."""


Simulator = Callable[[CohortSettings, int, int], SimulatedCase]
"""Makes a case from the cohort's settings, its seed, and the case's number from 0."""
