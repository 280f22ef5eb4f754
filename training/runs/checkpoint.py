"""A run's state on disk: one safetensors file, written as a whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from metseg.errors import UsageError, WeightsError
from metseg.files.atomic import write_atomically
from metseg.plan.bundle import read_metadata

FORMAT = "metseg-checkpoint-1"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        elapsed_s: seconds of training, all sessions together.
        best_score: of the validations so far; None before the first.
        validated_step: the last step that was followed by a validation.
        recipe_sha256: a run continues with the recipe that it began with.
        validated_elapsed_s: seconds of training before the last validation.
    """

    step: int = 0
    elapsed_s: float = 0.0
    best_score: float | None = None
    validated_step: int = 0
    recipe_sha256: str = ""
    validated_elapsed_s: float = 0.0


def save_checkpoint(
    path: Path, network: nn.Module, average: dict[str, Tensor] | None, optimizer: Optimizer, progress: Progress
) -> None:
    """Writes weights, their moving average, the optimiser's moments and the progress."""
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in (average or {}).items()}
    names = _names_by_index(network, optimizer)
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{names[index]}.{key}": torch.as_tensor(value) for key, value in state.items()}
    content = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        metadata={"format": FORMAT, "progress": json.dumps(asdict(progress))},
    )
    write_atomically(path, content)


def load_checkpoint(
    path: Path, network: nn.Module, average: dict[str, Tensor] | None, optimizer: Optimizer
) -> Progress:
    """Restores what `save_checkpoint` wrote, exactly.

    Raises:
        WeightsError: the file is damaged or belongs to another network.
        UsageError: it is a kept run's (`training.runs.kept`), which can't go on.
    """
    tensors, progress = read_checkpoint(path)
    if progress.step and not has_optimizer(tensors):
        raise UsageError(
            f"checkpoint {path}: holds a finished run's weights alone, without the optimiser's state",
            hint="Begin another run with it (--init), in another folder.",
        )
    try:
        network.load_state_dict(_part(tensors, "model."), strict=True)
        if average is not None:
            for name, tensor in _part(tensors, "average.").items():
                average[name].copy_(tensor)
        names = _names_by_index(network, optimizer)
        content = optimizer.state_dict()
        for index, name in names.items():
            state = _part(tensors, f"optimizer.{name}.")
            if state:
                content["state"][index] = state
        optimizer.load_state_dict(content)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"checkpoint {path}: does not fit the recipe's network: {error}") from error
    return progress


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Progress]:
    """A checkpoint's tensors and progress.

    Raises:
        WeightsError: it can't be read or is none.
    """
    try:
        content = path.read_bytes()
        metadata = read_metadata(content, path)
        if metadata.get("format") != FORMAT:
            raise WeightsError(f"checkpoint {path}: format is {metadata.get('format')}, expected {FORMAT}")
        return load(content), Progress(**json.loads(metadata["progress"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"checkpoint {path}: can't be read: {error}") from error


def has_optimizer(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint's tensors hold the state that a run needs to go on."""
    return any(name.startswith("optimizer.") for name in tensors)


def trained_weights(path: Path) -> dict[str, Tensor]:
    """The network's weights in a checkpoint, VAE branch included: the moving average where there is one."""
    tensors, _ = read_checkpoint(path)
    weights = _part(tensors, "average.") or _part(tensors, "model.")
    return {name.removeprefix("net."): tensor for name, tensor in weights.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _names_by_index(network: nn.Module, optimizer: Optimizer) -> dict[int, str]:
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {index: name_of[id(parameter)] for index, parameter in enumerate(parameters)}
