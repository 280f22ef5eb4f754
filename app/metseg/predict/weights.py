"""A member's weights: hashed before they are used, loaded whole or not at all, nothing executed."""

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from metseg.errors import WeightsError
from metseg.plan.bundle import describe_member, read_metadata
from metseg.plan.plan import MemberPlan

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_WEIGHTS_BYTES: Final = 2 * 2**30
"""A larger member is refused before it is read; the paper's take 19 MB."""

SHOWN_METADATA: Final = 400
"""Characters of a metadata value in a message."""


def verify_weights(path: Path, sha256: str) -> bytes:
    """Reads a weights file and compares its hash.

    Args:
        path: the file.
        sha256: what the document that names it expects.

    Returns:
        The file's bytes, so that what was hashed is what is loaded.

    Raises:
        WeightsError: missing, unreadable, or altered.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_WEIGHTS_BYTES:  # a pipe would wait for ever
            kind = f"{status.st_size} bytes long" if stat.S_ISREG(status.st_mode) else "no regular file"
            raise WeightsError(
                f"weights {path}: {kind}, expected a file of at most {MAX_WEIGHTS_BYTES} bytes",
                hint="The bundle is damaged: copy it again.",
            )
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"weights {path}: can't be read: {error.strerror}", hint="The bundle is incomplete: copy it again."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"weights {path}: SHA-256 is {found}, the plan expects {sha256}",
            hint="The file was altered or belongs to another plan: copy the bundle again.",
        )
    return content


def load_member(folder: Path, member: MemberPlan) -> "nn.Module":
    """A member's network as torch's module: `build_module` with `load_parameters`.

    Raises:
        WeightsError: as `load_parameters`.
    """
    return build_module(member, load_parameters(folder, member))


def build_module(member: MemberPlan, parameters: "Mapping[str, Tensor]") -> "nn.Module":
    """Builds a member's network with its parameters.

    Returns:
        The network in eval mode, float32, on the CPU, without gradients.
    """
    import torch  # noqa: PLC0415 - heavy

    from metseg.network import build_network  # noqa: PLC0415

    with torch.device("meta"):
        network = build_network(member.network, in_channels=len(member.channels), out_channels=len(member.regions))
    return _assign(network, parameters)


def load_parameters(folder: Path, member: MemberPlan) -> "dict[str, Tensor]":
    """Reads a member's parameters, all or none.

    Returns:
        By the names that torch's module has for them and in its order, float32, finite.

    Raises:
        WeightsError: hash, metadata, keys, shapes or values don't fit the plan.
    """
    path = folder / member.weights
    content = verify_weights(path, member.sha256)
    found = read_metadata(content, path)
    for key, expected in describe_member(member).items():
        if found.get(key) != expected:
            stated = found.get(key, "not stated")[:SHOWN_METADATA]
            raise WeightsError(
                f"weights {path}: {key} is {stated}, the plan expects {expected}",
                hint="The plan and the weights come from different runs: freeze them together.",
            )
    return _read_parameters(content, path, _expected_shapes(member, path))


def fill_network(network: "nn.Module", content: bytes, path: Path) -> "nn.Module":
    """Gives a network its weights, strictly.

    Args:
        network: of the right architecture; its parameters may lie on no device (`meta`).
        content: a safetensors file, of any floating-point type.
        path: where it comes from, for messages.

    Returns:
        The same network in eval mode, in its own floating-point type, on the CPU, without gradients.

    Raises:
        WeightsError: keys, shapes or values don't fit the network.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return _assign(network, _read_parameters(content, path, shapes))


def _read_parameters(content: bytes, path: Path, expected: Mapping[str, tuple[int, ...]]) -> "dict[str, Tensor]":
    import torch  # noqa: PLC0415 - heavy
    from safetensors.torch import load  # noqa: PLC0415

    try:
        state = load(content)
    except (
        Exception
    ) as error:  # the parser's own error, and whatever torch says to a shape or type that it doesn't know
        raise WeightsError(f"weights {path}: not a safetensors file: {str(error)[:SHOWN_METADATA]}") from error
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != found:
        differing = sorted(set(expected.items()) ^ set(found.items()))
        name, _ = differing[0]
        raise WeightsError(
            f"weights {path}: {len({key for key, _ in differing})} tensors don't fit the network, first {name}: "
            f"found {found.get(name, 'none')}, expected {expected.get(name, 'none')}",
            hint="The plan's network section must be the one that the weights were trained with.",
        )
    if not all(tensor.is_floating_point() for tensor in state.values()):
        raise WeightsError(f"weights {path}: hold tensors that are not floating-point", hint="Freeze again.")
    state = {name: state[name].float() for name in expected}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise WeightsError(f"weights {path}: hold values that are not finite", hint="Train or freeze again.")
    return state


def _assign(network: "nn.Module", parameters: "Mapping[str, Tensor]") -> "nn.Module":
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    state = {name: tensor.to(types[name]) for name, tensor in parameters.items()}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def _expected_shapes(member: MemberPlan, path: Path) -> Mapping[str, tuple[int, ...]]:
    from metseg.network import parameter_shapes  # noqa: PLC0415

    try:
        return parameter_shapes(member.network, in_channels=len(member.channels), out_channels=len(member.regions))
    except (ValueError, RuntimeError, TypeError, ArithmeticError, LookupError) as error:
        raise WeightsError(
            f"weights {path}: the plan's network can't be built: {str(error)[:SHOWN_METADATA]}",
            hint="The plan's network section must be the one that the weights were trained with.",
        ) from error
