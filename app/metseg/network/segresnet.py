"""SegResNet and its training form SegResNetVAE (Myronenko 2018; Erdur et al. 2023, section 2.3)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from metseg.plan.networks import SegResNetPlan

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

VAE_PREFIX = "vae"
"""Parameters whose name starts so belong to the VAE branch, which frozen weights leave out."""

VAE_LATENT = 256
"""Width of the VAE's latent vector (Erdur et al., section 2.3)."""

CUBE: Final = (3, 3, 3)
"""Kernel of most convolutions."""

MATPLOTLIB: Final = "matplotlib"


def build_segresnet(plan: SegResNetPlan, *, in_channels: int, out_channels: int) -> "nn.Module":
    """Builds the network that inference runs.

    Returns:
        (batch, in_channels, x, y, z) to logits (batch, out_channels, x, y, z); sides divisible by 8.
    """
    with _without_matplotlib():
        from monai.networks.nets.segresnet import SegResNet  # noqa: PLC0415 - heavy

    return SegResNet(**_arguments(plan, in_channels, out_channels))


def build_segresnet_vae(
    plan: SegResNetPlan, *, in_channels: int, out_channels: int, input_image_size: tuple[int, int, int]
) -> "nn.Module":
    """Builds the network that training runs: SegResNet with the VAE branch beside its decoder.

    Without its `vae*` parameters its state loads strictly into `build_segresnet`'s network, with bitwise equal logits.

    Args:
        plan: the architecture.
        in_channels: input channels.
        out_channels: output channels.
        input_image_size: every training input has exactly this size; each side divisible by 16.

    Returns:
        (batch, in_channels, *input_image_size) to (logits, VAE loss); the VAE loss is None in eval mode.
    """
    with _without_matplotlib():
        from monai.networks.nets.segresnet import SegResNetVAE  # noqa: PLC0415 - heavy

    return SegResNetVAE(
        input_image_size=input_image_size,
        vae_nz=VAE_LATENT,
        **_arguments(plan, in_channels, out_channels),
    )


def segresnet_shapes(plan: SegResNetPlan, *, in_channels: int, out_channels: int) -> dict[str, tuple[int, ...]]:
    """Shapes of `build_segresnet`'s parameters by name, without MONAI, whose import takes two seconds.

    Raises:
        ValueError: fewer filters than groups, or filters that the groups don't divide.
    """
    filters = plan.init_filters
    if filters % plan.norm_groups:
        raise ValueError(f"{filters} filters can't be divided into {plan.norm_groups} groups")
    shapes: dict[str, tuple[int, ...]] = {"convInit.conv.weight": (filters, in_channels, *CUBE)}
    for level, blocks in enumerate(plan.blocks_down):
        wide = filters * 2**level
        if level:
            shapes[f"down_layers.{level}.0.conv.weight"] = (wide, wide // 2, *CUBE)
        for block in range(1, blocks + 1):
            shapes |= _block_shapes(f"down_layers.{level}.{block}", wide)
    for level, blocks in enumerate(plan.blocks_up):
        wide = filters * 2 ** (len(plan.blocks_up) - level)
        shapes[f"up_samples.{level}.0.conv.weight"] = (wide // 2, wide, 1, 1, 1)
        for block in range(blocks):
            shapes |= _block_shapes(f"up_layers.{level}.{block}", wide // 2)
    return shapes | {
        "conv_final.0.weight": (filters,),
        "conv_final.0.bias": (filters,),
        "conv_final.2.conv.weight": (out_channels, filters, 1, 1, 1),
        "conv_final.2.conv.bias": (out_channels,),
    }


def _block_shapes(name: str, wide: int) -> dict[str, tuple[int, ...]]:
    norms = {f"{name}.norm{number}.{part}": (wide,) for number in (1, 2) for part in ("weight", "bias")}
    return norms | {f"{name}.conv{number}.conv.weight": (wide, wide, *CUBE) for number in (1, 2)}


def _arguments(plan: SegResNetPlan, in_channels: int, out_channels: int) -> dict[str, Any]:
    """What both networks have in common."""
    return {
        "spatial_dims": 3,
        "init_filters": plan.init_filters,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "act": plan.activation,
        "norm": ("group", {"num_groups": plan.norm_groups}),
        "blocks_down": plan.blocks_down,
        "blocks_up": plan.blocks_up,
    }


@contextmanager
def _without_matplotlib() -> Iterator[None]:
    """Lets MONAI be imported as where matplotlib is not installed.

    MONAI imports matplotlib for plots that nothing here draws. matplotlib refuses to be imported where no folder can be
    written to: in a read-only container without `/tmp`.
    """
    if MATPLOTLIB in sys.modules:
        yield
        return
    sys.modules[MATPLOTLIB] = cast("ModuleType", None)  # documented: `import` then raises ModuleNotFoundError
    try:
        yield
    finally:
        del sys.modules[MATPLOTLIB]
