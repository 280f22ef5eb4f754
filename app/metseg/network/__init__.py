"""The networks, as small builders with literal hyper-parameters; training imports them from here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from metseg.plan.networks import DeepMedicPlan, NetworkPlan, SegResNetPlan, UNet3dPlan

if TYPE_CHECKING:
    from torch import nn


def build_network(plan: NetworkPlan, *, in_channels: int, out_channels: int) -> "nn.Module":
    """Builds the network that a plan's member describes, with untrained parameters.

    Raises:
        ValueError: DeepMedic is to have more than its one output, the log-odds of metastasis.
    """
    match plan:
        case SegResNetPlan():
            from metseg.network.segresnet import build_segresnet  # noqa: PLC0415 - heavy

            return build_segresnet(plan, in_channels=in_channels, out_channels=out_channels)
        case UNet3dPlan():
            from metseg.network.unet3d import UNet3d  # noqa: PLC0415 - heavy

            return UNet3d(plan, in_channels=in_channels, out_channels=out_channels)
        case DeepMedicPlan():
            from metseg.network.deepmedic import DeepMedic  # noqa: PLC0415 - heavy

            if out_channels != 1:
                raise ValueError(f"DeepMedic has one output, not {out_channels}")
            return DeepMedic(plan, in_channels=in_channels)


def parameter_shapes(plan: NetworkPlan, *, in_channels: int, out_channels: int) -> Mapping[str, tuple[int, ...]]:
    """The parameters of `build_network`'s module by name: the shape of each. MONAI is not loaded for it.

    Raises:
        ValueError: as `build_network`.
    """
    import torch  # noqa: PLC0415 - heavy

    if isinstance(plan, SegResNetPlan):
        from metseg.network.segresnet import segresnet_shapes  # noqa: PLC0415

        return segresnet_shapes(plan, in_channels=in_channels, out_channels=out_channels)
    with torch.device("meta"):
        network = build_network(plan, in_channels=in_channels, out_channels=out_channels)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
