"""A trained network's weights in a wider one that computes the same: training goes on from there, not from scratch.

Net2WiderNet of Chen, Goodfellow and Shlens 2016 (Net2Net, arXiv 1511.05641, section 3.1), for every layer at once: each
filter stands several times in the wider network, side by side, and what reads it divides its weights among the copies.
Copies fall into the group of GroupNorm that the one was in, whose mean and variance they do not change.
"""

import torch
from torch import Tensor

SHARES = (0.5, 1.5)
"""Of a weight, for each copy of what it reads, before they are made to sum to 1: unequal, so that copies part."""


def widen(tensor: Tensor, shape: torch.Size, *, even: bool = False) -> Tensor | None:
    """One tensor of a network as it is in the wider one.

    Args:
        tensor: kernel (filters, inputs, x, y, z), matrix (filters, inputs), or a figure for each filter.
        shape: of the same tensor in the wider network.
        even: copies share what they read evenly, and nothing is drawn: for what is not trained on.

    Returns:
        The wider tensor, `tensor` itself where the shapes are equal; None where no whole number of copies gives
        `shape`. Uneven shares are drawn from torch's generator.
    """
    if tensor.shape == shape:
        return tensor
    if tensor.dim() != len(shape) or tensor.shape[2:] != shape[2:]:
        return None
    if any(new % old for new, old in zip(shape[:2], tensor.shape[:2], strict=True)):
        return None
    filters = tensor.repeat_interleave(shape[0] // tensor.shape[0], dim=0)
    if tensor.dim() == 1:
        return filters
    copies = shape[1] // tensor.shape[1]
    shares = torch.ones(*filters.shape[:2], copies, *shape[2:])
    if not even:
        shares.uniform_(*SHARES)
    shares /= shares.sum(2, keepdim=True)
    return (filters.unsqueeze(2) * shares).reshape(shape)
