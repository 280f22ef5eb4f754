"""The two networks of the brain extraction, with checked weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metseg.plan.brain_weights import ConvertedWeights, brain_folder, load_brain_plan
from metseg.predict.weights import fill_network, verify_weights

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class BrainNetworks:
    """Both networks, in eval mode on the CPU.

    Attributes:
        locate: finds the brain in the field of view.
        segment: segments it in its box.
        package: name and version of the package that their weights come from.
    """

    locate: "nn.Module"
    segment: "nn.Module"
    package: str


def load_brain_networks(folder: Path | None = None) -> BrainNetworks:
    """Reads the networks' weights, whose hashes `brain.yaml` states.

    Args:
        folder: of the weights; None for the bundled ones.

    Raises:
        WeightsError: the folder is incomplete or altered.
    """
    folder = folder or brain_folder()
    plan = load_brain_plan(folder)
    return BrainNetworks(_load(folder, plan.locate), _load(folder, plan.segment), plan.package)


def _load(folder: Path, weights: ConvertedWeights) -> "nn.Module":
    from metseg.network.linknet import LinkNet3d  # noqa: PLC0415 - heavy

    path = folder / weights.weights
    return fill_network(LinkNet3d(), verify_weights(path, weights.sha256), path)
