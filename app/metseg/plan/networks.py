"""The architectures that a plan's member may have: one section each, told apart by `architecture`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from metseg.plan.document import Section

PATHWAY_LAYERS = 8
"""Convolutions of each of DeepMedic's pathways: what its receptive fields and its tiles are computed from."""


HALVING = (2, 2, 1)
"""Of the U-Net's poolings and up-convolutions: slices are 2 mm thick, pixels 0.6 mm wide."""

MAX_LEVELS = 8
"""Levels of an encoder: a seventh halving leaves one voxel of 128."""

Blocks = Annotated[int, Field(gt=0, le=32)]
"""Residual blocks of a level."""

Multiples = tuple[int, int, int]
"""What the sides of a network's input divide by."""


class SegResNetPlan(Section):
    """MONAI's SegResNet, the segmentation part of SegResNetVAE (Erdur et al., section 2.3; Myronenko 2018)."""

    architecture: Literal["segresnet"] = "segresnet"
    init_filters: int = Field(16, gt=0, multiple_of=8)
    blocks_down: tuple[Blocks, ...] = Field((1, 2, 2, 4), max_length=MAX_LEVELS)
    blocks_up: tuple[Blocks, ...] = Field((1, 1, 1), max_length=MAX_LEVELS)
    norm_groups: int = Field(8, gt=0)
    activation: Literal["mish"] = "mish"
    outputs: ClassVar[range] = range(1, 256)
    runs_in_tiles: ClassVar[bool] = False

    @property
    def width(self) -> int:
        """Channels of the first layer, which take most of the memory."""
        return self.init_filters

    @property
    def side_multiples(self) -> Multiples:
        """It halves its input three times."""
        return 8, 8, 8


class UNet3dPlan(Section):
    """The 3D U-Net of Hu et al. 2019 (section 2.3), which halves its input in plane only.

    Attributes:
        filters: width of each level, the finest first; both convolutions of a level are so wide.
    """

    architecture: Literal["unet3d"] = "unet3d"
    filters: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        (32, 64, 128, 256, 512), min_length=2, max_length=MAX_LEVELS
    )

    outputs: ClassVar[range] = range(1, 256)
    runs_in_tiles: ClassVar[bool] = False

    @property
    def width(self) -> int:
        """Channels of the first layer, which take most of the memory."""
        return self.filters[0]

    @property
    def side_multiples(self) -> Multiples:
        """It halves in plane, once for each level but the finest."""
        x, y, z = (factor ** (len(self.filters) - 1) for factor in HALVING)
        return x, y, z


class DeepMedicPlan(Section):
    """DeepMedic with three pathways (Kamnitsas et al. 2017, as Hu et al. 2019, section 2.3, set it up).

    Attributes:
        pathway_features: width of each of a pathway's eight convolutions.
        joint_features: width of the two layers that see all pathways.
        dropout: in training, before each of these two and before the classifier.
    """

    architecture: Literal["deepmedic"] = "deepmedic"
    pathway_features: tuple[Annotated[int, Field(gt=0)], ...] = (30, 30, 40, 40, 40, 40, 50, 50)
    joint_features: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] = (250, 250)
    dropout: tuple[float, float, float] = (0.0, 0.5, 0.5)
    outputs: ClassVar[range] = range(1, 2)
    runs_in_tiles: ClassVar[bool] = True

    @property
    def width(self) -> int:
        """Channels of a pathway's first layer."""
        return self.pathway_features[0]

    @property
    def side_multiples(self) -> Multiples:
        """Any: it is run over tiles of its own (`metseg.predict.tiles`)."""
        return 1, 1, 1

    @model_validator(mode="after")
    def _eight_layers_that_never_narrow(self) -> Self:
        if len(self.pathway_features) != PATHWAY_LAYERS:
            raise ValueError(f"a pathway has {PATHWAY_LAYERS} layers, found {len(self.pathway_features)} widths")
        wide = (*self.pathway_features, 3 * self.pathway_features[-1], *self.joint_features)
        if list(self.pathway_features) != sorted(self.pathway_features) or wide[-1] < wide[-3]:
            raise ValueError(f"residual connections only widen: no layer may be narrower than the last, found {wide}")
        if not all(0 <= share < 1 for share in self.dropout):
            raise ValueError(f"dropout lies in [0, 1), found {self.dropout}")
        return self


def _find_architecture(section: Any) -> str:
    """The first bundles had one architecture and files need not name it."""
    if isinstance(section, Mapping):
        return str(section.get("architecture", "segresnet"))
    return str(getattr(section, "architecture", "segresnet"))


NetworkPlan = Annotated[
    Annotated[SegResNetPlan, Tag("segresnet")]
    | Annotated[UNet3dPlan, Tag("unet3d")]
    | Annotated[DeepMedicPlan, Tag("deepmedic")],
    Discriminator(_find_architecture),
]
"""Any of the architectures; without `architecture` it is a SegResNet.

Each section says the same of its network: `outputs` (how many it may have), `side_multiples`, `width`, and
`runs_in_tiles` (over tiles of its own instead of the plan's windows, `metseg.predict.tiles`).
"""
