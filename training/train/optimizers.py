"""The optimiser that a recipe names, and its rate step by step."""

import math

import torch
from torch import nn

from training.recipe_sections import OptimizerRecipe, RmsPropRecipe
from training.train.rmsprop import build_rmsprop


def build_optimizer(network: nn.Module, recipe: OptimizerRecipe | RmsPropRecipe) -> torch.optim.Optimizer:
    """Builds the optimiser of a network's parameters that are trained."""
    if isinstance(recipe, RmsPropRecipe):
        return build_rmsprop(network, recipe)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay)


def learning_rate(recipe: OptimizerRecipe | RmsPropRecipe, step: int, share_done: float, *, epochs: int = 1) -> float:
    """The rate of a step, counted from 0.

    Args:
        recipe: schedule and its figures.
        step: steps done.
        share_done: of the whole run, 0..1.
        epochs: of the whole run.
    """
    rate = recipe.learning_rate
    if isinstance(recipe, RmsPropRecipe):
        return rate * 0.5 ** sum(share_done * epochs >= epoch - 1e-9 for epoch in recipe.halved_at_epochs)
    if recipe.schedule == "cosine":
        falling = 0.5 * (1 + math.cos(math.pi * min(share_done, 1.0)))
        rate *= recipe.final_share + (1 - recipe.final_share) * falling
    if step < recipe.warmup_steps:
        rate *= (step + 1) / recipe.warmup_steps
    return rate
