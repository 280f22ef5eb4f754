"""The VAE term that regularises the encoder (Myronenko 2018, section 2.3; Erdur et al. 2023, section 2.3)."""

from torch import Tensor, nn


class VaeLoss(nn.Module):
    """Squared error of the reconstructed input + the KL term with a fixed standard deviation, each a mean, 1:1.

    With the deviation fixed, as in MONAI's SegResNetVAE, the Kullback-Leibler divergence from N(0, 1) is the mean of
    the latent means' squares, up to a constant factor.
    """

    def per_sample(self, images: Tensor, reconstruction: Tensor, latent: Tensor) -> Tensor:
        """The loss of each sample.

        Args:
            images: the network's input, shape (batch, channels, x, y, z).
            reconstruction: same shape.
            latent: means of the latent vector, shape (batch, latent).

        Returns:
            Shape (batch,), float32.
        """
        error = (reconstruction.float() - images.float()).square().flatten(1).mean(1)
        return error + latent.float().square().mean(1)

    def forward(self, images: Tensor, reconstruction: Tensor, latent: Tensor) -> Tensor:
        """Mean of `per_sample` over the batch, a scalar."""
        return self.per_sample(images, reconstruction, latent).mean()
