"""A frozen member's weights file: the recipe in its metadata, and how it is written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from metseg.errors import UsageError
from metseg.plan.bundle import read_metadata
from training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


def read_member_recipe(weights: Path) -> Recipe:
    """Reads the recipe that a frozen member was trained with.

    Raises:
        UsageError: there is no such file, or no recipe in it.
    """
    try:
        return Recipe.model_validate(json.loads(read_metadata(weights.read_bytes(), weights)["recipe"]))
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(
            f"weights {weights}: no recipe in them: {error!r:.200}",
            hint="Name a member's file of a bundle that `freeze` made, or a run's folder.",
        ) from error


def pack_weights(state: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> bytes:
    """Makes a safetensors file whose bytes depend on its content alone: the library writes metadata in random order."""
    from safetensors.torch import save  # noqa: PLC0415 - needs torch

    content = save(dict(state), metadata=dict(metadata))
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]
