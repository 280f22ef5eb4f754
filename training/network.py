"""The network as training runs it: with or without the VAE branch, and arranged for the processor it runs on."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from metseg.labels import REGIONS
from metseg.network.segresnet import build_segresnet, build_segresnet_vae
from training.recipe import Recipe


class TrainingNetwork(nn.Module):
    """SegResNetVAE, or SegResNet where the recipe gives the VAE branch no weight.

    Args:
        recipe: of the run.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        channels = {"in_channels": len(recipe.data.channels), "out_channels": len(REGIONS)}
        self.has_vae = recipe.loss.vae_weight > 0
        if self.has_vae:
            self.net = build_segresnet_vae(recipe.network, **channels, input_image_size=recipe.crops.size)
            # The branch uses a fixed standard deviation: this layer gets no gradient, which DDP would wait for.
            for parameter in self.net.vae_fc2.parameters():  # type: ignore[union-attr] - a module
                parameter.requires_grad_(requires_grad=False)
            # MONAI flattens with `view`, which channels-last tensors refuse.
            self.net.vae_down.register_forward_hook(_contiguous)  # type: ignore[union-attr] - a module
        else:
            self.net = build_segresnet(recipe.network, **channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (batch, 3, x, y, z) and, in training with the branch, the VAE loss of this batch."""
        result = self.net(images)
        if self.has_vae:
            logits, vae_loss = result
            return logits, vae_loss
        return result, None


def _contiguous(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return output.contiguous()


class _SingleChannelGroupNorm(nn.GroupNorm):
    """GroupNorm with one channel a group, through batch norm's kernel, sample by sample.

    The same numbers to rounding. torch's GroupNorm on channels-last tensors of 8 channels takes about five times as
    long on a CPU (benchmarks/training.py).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        parts = [
            functional.batch_norm(sample, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for sample in input.split(1)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def arrange_for_cpu(network: nn.Module) -> nn.Module:
    """Channels-last weights and the quicker norm; parameters keep their names and values."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm) and module.num_groups == module.num_channels:
            module.__class__ = _SingleChannelGroupNorm
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return] - stubs lack it
