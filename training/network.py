"""The network as training runs it: with or without the VAE branch."""

from typing import Any

from torch import Tensor, nn

from metseg.network import build_network
from metseg.network.segresnet import build_segresnet_vae
from metseg.plan.networks import SegResNetPlan
from training.losses import Outputs
from training.recipe import Recipe


class TrainingNetwork(nn.Module):
    """SegResNetVAE, or, where the recipe gives the VAE branch no weight, the network that inference runs.

    Args:
        recipe: of the run.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        channels = {"in_channels": len(recipe.data.channels), "out_channels": len(recipe.regions)}
        self.has_vae = recipe.loss.vae_weight > 0
        if self.has_vae and isinstance(recipe.network, SegResNetPlan):
            net: Any = build_segresnet_vae(recipe.network, **channels, input_image_size=recipe.crops.size)
            # The branch uses a fixed standard deviation: this layer gets no gradient, which DDP would wait for.
            for parameter in net.vae_fc2.parameters():
                parameter.requires_grad = False
        else:
            net = build_network(recipe.network, **channels)
        self.net = net

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Outputs:
        """Logits and, in training with the VAE branch, what its loss needs.

        Args:
            images: shape (batch, channels, x, y, z).
            noise: standard normal, shape (batch, VAE_LATENT): drawn by the caller for each sample by itself, so that
                the loss does not depend on how a batch is divided. Needed in training with the branch only.
        """
        if not (self.has_vae and self.training):
            result = self.net(images)
            return Outputs(result[0] if self.has_vae else result)
        encoded, skipped = self.net.encode(images)
        skipped.reverse()
        logits = self.net.decode(encoded, skipped)
        reconstruction, latent = self._reconstruct(encoded, noise)
        return Outputs(logits, reconstruction, latent)

    def _reconstruct(self, encoded: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """SegResNetVAE's own branch layer by layer, with the noise given (MONAI draws it inside)."""
        if noise is None:
            raise ValueError("the VAE branch needs noise in training")
        net: Any = self.net
        latent = net.vae_fc1(net.vae_down(encoded).flatten(1))
        picture = net.act_mod(net.vae_fc3(latent + net.vae_default_std * noise.to(latent.dtype)))
        picture = net.vae_fc_up_sample(picture.reshape(-1, net.smallest_filters, *net.fc_insize))
        for up, layer in zip(net.up_samples, net.up_layers, strict=True):
            picture = layer(up(picture))
        return net.vae_conv_final(picture), latent
