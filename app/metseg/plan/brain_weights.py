"""The networks of the brain extraction on disk: where they come from, and their hashes."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from metseg.errors import UsageError, WeightsError
from metseg.plan.bundle import bundles_root
from metseg.plan.document import Section, read_document

BRAIN_FOLDER: Final = "brain"
"""Beside the bundles."""

BRAIN_FILE: Final = "brain.yaml"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ConvertedWeights(Section):
    """One network's weights, converted once from a file of another package.

    Attributes:
        weights: the safetensors file beside the document.
        sha256: of that file.
        source_file: where the original lies in its package.
        source_sha256: of the original.
    """

    weights: Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")]
    sha256: Sha256
    source_file: str
    source_sha256: Sha256


class BrainPlan(Section):
    """The two networks of deepbet: the first locates the brain in the field of view, the second segments it there.

    Attributes:
        package: name and version of the package that the weights come from.
        licence: of the package and its weights.
        locate: the first network.
        segment: the second network.
    """

    package: str
    licence: str
    locate: ConvertedWeights
    segment: ConvertedWeights


def brain_folder() -> Path:
    """The folder of the brain extraction's weights: `/opt/metseg/weights/brain` in the image."""
    return bundles_root() / BRAIN_FOLDER


def load_brain_plan(folder: Path) -> BrainPlan:
    """Reads `brain.yaml` of a folder.

    Raises:
        WeightsError: missing, not YAML, or breaks the schema.
    """
    try:
        return read_document(
            folder / BRAIN_FILE, BrainPlan, what="weights", hint="Copy the folder again, or give a mask: --brain-mask."
        )
    except UsageError as error:
        raise WeightsError(str(error), hint=error.hint) from error
