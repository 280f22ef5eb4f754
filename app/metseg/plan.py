"""A plan: all the science of one inference run, readable in one YAML file.

The defaults are the method of Erdur et al. 2023 (arXiv 2310.02829); where the paper is silent, the authors' earlier
AURORA tool, or BraTS Toolkit for fusion. Operational choices (device, paths, what to do on an error) are command-line
options and may not change a voxel, the device excepted.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metseg.domain import Modality
from metseg.errors import UsageError
from metseg.labels import REGIONS, RegionName

SUBTRACTION: Final = "sub"
ChannelName = Literal["t1n", "t1c", "t2w", "t2f", "sub"]
"""An input channel: a modality, or `sub`, the squared difference of the scaled t1c and t1n."""


class Section(BaseModel):
    """Base of every part of a plan: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IntensityPlan(Section):
    """Percentile scaling to [0, 1], per channel, over all voxels, background included (Erdur et al., section 2.2)."""

    lower_percentile: float = Field(0.1, ge=0, lt=100)
    upper_percentile: float = Field(99.9, gt=0, le=100)


class WindowPlan(Section):
    """The sliding window (Erdur et al., section 2.6; weighting and padding after AURORA).

    Attributes:
        size: voxels along x, y, z of the 1 mm RAS grid; each divisible by 8.
        overlap: share of a window that the next one covers again.
        extent: `fixed` = windows of `size`; `trimmed` = each side is cut to the brain's box, rounded up to a multiple
            of 8; `whole` = one window as large as the brain's box, `size` and `overlap` unused.
    """

    size: tuple[int, int, int] = (192, 192, 32)
    overlap: float = Field(0.75, ge=0, lt=1)
    extent: Literal["fixed", "trimmed", "whole"] = "fixed"

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if any(side <= 0 or side % 8 for side in self.size):
            raise ValueError(f"window sides must be positive multiples of 8, found {self.size}")
        return self


class TtaPlan(Section):
    """Test-time augmentation.

    Attributes:
        variant: `aurora` = 13 passes: 1 plain + 4 x (noise; noise and flip x; noise and flip y); `flips` = the 4 flips
            of x and y, without noise; `none` = 1 plain pass. Flips are of the sagittal and coronal planes, never of z.
        noise_std_max: each noise's standard deviation is drawn from U(0, noise_std_max), on intensities in [0, 1].
        seed: joins the hash of the voxels as the noise's seed.
    """

    variant: Literal["aurora", "flips", "none"] = "aurora"
    noise_std_max: float = Field(0.001, ge=0)
    seed: int = Field(2023, ge=0)


class FusionPlan(Section):
    """Fusion of the members (Erdur et al., section 2.7; variants in `metseg.fusion`).

    Attributes:
        method: `simple` as BraTS Toolkit computes it; `simple_langerak` as Langerak et al. 2010 wrote it; `majority`;
            `mean` of probabilities; `maximum` per region (of probabilities when `maximum_of` is so, else of masks).
        max_iterations: SIMPLE repeats at most so often.
        min_change_voxels: SIMPLE stops when the foreground voxel count changes by less.
        langerak_alpha: members under mean - alpha * standard deviation leave (`simple_langerak`).
        added_by_maximum: names of members that don't vote: what they segment joins the others' result by voxel-wise
            maximum (the small-lesion model, Erdur et al., section 2.5).
    """

    method: Literal["simple", "simple_langerak", "majority", "mean", "maximum"] = "simple"
    max_iterations: int = Field(25, ge=1)
    min_change_voxels: int = Field(25, ge=0)
    langerak_alpha: float = Field(1.0, ge=0)
    maximum_of: Literal["probabilities", "masks"] = "probabilities"
    added_by_maximum: tuple[str, ...] = ()


class PostprocessPlan(Section):
    """Rules applied once, after fusion, in this order; volumes in mm3 = voxels at 1 mm (Erdur et al., section 2.8).

    A component is removed (or relabelled) when it is strictly smaller than its threshold; 0 switches a rule off.
    """

    min_wt_mm3: int = Field(25, ge=0)
    min_netc_mm3: int = Field(20, ge=0)
    min_snfh_mm3: int = Field(20, ge=0)
    min_et_mm3: int = Field(10, ge=0)


class SegResNetPlan(Section):
    """MONAI's SegResNet, the segmentation part of SegResNetVAE (Erdur et al., section 2.3; Myronenko 2018)."""

    architecture: Literal["segresnet"] = "segresnet"
    init_filters: int = Field(16, gt=0, multiple_of=8)
    blocks_down: tuple[int, ...] = (1, 2, 2, 4)
    blocks_up: tuple[int, ...] = (1, 1, 1)
    norm_groups: int = Field(8, gt=0)
    activation: Literal["mish"] = "mish"


class MemberPlan(Section):
    """One model of the ensemble.

    Attributes:
        name: how logs and reports call it.
        weights: safetensors file, relative to the bundle's folder.
        sha256: of that file.
        channels: the network's input channels, in order.
        regions: the network's output channels, in order.
        network: its architecture.
    """

    name: str = Field(min_length=1)
    weights: str = Field(pattern=r"^[^/\\]+\.safetensors$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    channels: tuple[ChannelName, ...] = ("t1n", "t1c", "t2w", "t2f")
    regions: tuple[RegionName, ...] = REGIONS
    network: SegResNetPlan = SegResNetPlan()

    @model_validator(mode="after")
    def _known_regions(self) -> Self:
        if self.regions != REGIONS:
            raise ValueError(f"regions of member {self.name!r} must be {list(REGIONS)}, found {list(self.regions)}")
        return self

    @property
    def modalities(self) -> frozenset[Modality]:
        """The images that this member can't do without."""
        return frozenset(
            modality
            for channel in self.channels
            for modality in (("t1c", "t1n") if channel == SUBTRACTION else (channel,))
        )


class Plan(Section):
    """All the science of one inference run."""

    name: str = Field(min_length=1)
    description: str = ""
    spacing_mm: float = Field(1.0, gt=0)
    intensity: IntensityPlan = IntensityPlan()
    window: WindowPlan = WindowPlan()
    tta: TtaPlan = TtaPlan()
    threshold: float = Field(0.5, gt=0, lt=1)
    fusion: FusionPlan = FusionPlan()
    postprocess: PostprocessPlan = PostprocessPlan()
    members: Annotated[tuple[MemberPlan, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _unique_members(self) -> Self:
        names = [member.name for member in self.members]
        if len(set(names)) != len(names):
            raise ValueError(f"members must have different names, found {names}")
        added = self.fusion.added_by_maximum
        if not set(added) < set(names):
            raise ValueError(f"fusion.added_by_maximum must name some of the members {names}, not all: found {added}")
        return self

    @property
    def modalities(self) -> frozenset[Modality]:
        """Every image that some member reads."""
        return frozenset().union(*(member.modalities for member in self.members))

    @property
    def required_modalities(self) -> frozenset[Modality]:
        """The images without which no member can run."""
        return frozenset.intersection(*(member.modalities for member in self.members))

    @property
    def sha256(self) -> str:
        """Hash of the plan's content, independent of how its YAML is laid out."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def load_plan(path: Path) -> Plan:
    """Reads a plan.

    Args:
        path: a YAML file.

    Raises:
        UsageError: the file is missing, is not YAML, or breaks the schema; every broken key is named.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"plan {path}: can't be read: {error.strerror}", hint="Name an existing plan.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"plan {path}: not YAML: {error}") from error
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'plan'}: {item['msg']} (found {item['input']!r:.80})"
            for item in error.errors()
        )
        raise UsageError(f"plan {path}: {problems}", hint="docs/plans.md lists every key with its range.") from error
