"""RMSProp with Nesterov momentum and the two penalties that DeepMedic was trained with; torch's has neither."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.recipe_sections import RmsPropRecipe

SMALLEST_KERNEL_RANK = 5
"""A 3-D convolution's weights have five axes; norms, slopes and biases fewer."""


class RmsProp(Optimizer):
    """Divides each gradient by the root of the moving mean of its squares.

    With g the gradient, its penalties included, and v the moving mean of g squared, the velocity is
    m <- nesterov * m - rate * g / (sqrt(v) + epsilon), and the step nesterov * m - rate * g / (sqrt(v) + epsilon)
    (Sutskever et al. 2013, the form that looks ahead); without momentum the step is the second part alone.

    Args:
        groups: of parameters, each with its `l1` and `l2`.
        recipe: everything else.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], recipe: RmsPropRecipe) -> None:
        defaults = {"lr": recipe.learning_rate, "l1": 0.0, "l2": 0.0}
        super().__init__(list(groups), defaults)
        self.recipe = recipe

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 - torch's signature
        """One step; parameters without a gradient stay."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        recipe, state = self.recipe, self.state[parameter]
        gradient = parameter.grad
        assert gradient is not None  # noqa: S101 - for the type checker: `step` looked
        if group["l1"]:
            gradient = gradient + group["l1"] * parameter.sign()
        if group["l2"]:
            gradient = gradient + 2 * group["l2"] * parameter
        if "mean_square" not in state:
            state["mean_square"] = torch.zeros_like(parameter)
        mean_square: Tensor = state["mean_square"]
        mean_square.mul_(recipe.rho).addcmul_(gradient, gradient, value=1 - recipe.rho)
        move = gradient / (mean_square.sqrt() + recipe.epsilon) * -group["lr"]
        if recipe.nesterov:
            if "velocity" not in state:
                state["velocity"] = torch.zeros_like(parameter)
            velocity: Tensor = state["velocity"]
            velocity.mul_(recipe.nesterov).add_(move)
            move = move + recipe.nesterov * velocity
        parameter.add_(move)


def build_rmsprop(network: nn.Module, recipe: RmsPropRecipe) -> RmsProp:
    """The optimiser of a network: penalties on the convolutions' weights alone."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    kernels = [parameter for parameter in trained if parameter.ndim >= SMALLEST_KERNEL_RANK]
    others = [parameter for parameter in trained if parameter.ndim < SMALLEST_KERNEL_RANK]
    groups: list[dict[str, Any]] = [{"params": kernels, "l1": recipe.l1, "l2": recipe.l2}, {"params": others}]
    return RmsProp([group for group in groups if group["params"]], recipe)
