"""The sections of a recipe.

The defaults are the settings of Erdur et al. 2023 (arXiv 2310.02829). What the paper leaves open is a field too, with
the reason for its value beside it.
"""

from typing import Annotated, Any, ClassVar, Final, Literal, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from metseg.plan.document import Section
from metseg.plan.plan import ChannelName, IntensityPlan, IntensityPlans, Spacing, WindowPlan, modalities_of
from metseg.plan.radiosurgery import RegistrationPlan
from metseg.systems import MODALITIES, OWN_GRID, SOURCE_MODALITY, Modality

SIZE_STREAM = 1
"""Keeps the crop sizes' random numbers apart from the crops' own."""

DROP_STREAM = 2
"""The same for what a crop lacks."""


DROPPABLE: Final[tuple[Modality, ...]] = tuple(
    name for name in (*MODALITIES, *sorted(OWN_GRID)) if name != SOURCE_MODALITY
)
"""Images that a case may lack: every one but the source image; in the order in which keys name them."""

ROUNDING: Final = 1e-9
"""Of sums of shares."""


class DataRecipe(Section):
    """Which volumes training sees.

    Attributes:
        channels: the network's input, in order; `sub` is the squared difference of t1c and t1n.
        spacing_mm: of the grid that everything is brought to, as in inference.
        frame: voxels of that grid in plane, as in inference.
        intensity: scaling, as in inference.
        registration: of the CT, as in inference.
        missing_t2w: the paper's data always had t2w, later challenges' don't: `refuse` = an error, `drop` = the case
            is left out, `t2f` = the other T2 contrast stands in, `zeros` = an empty channel.
        drop_channels: share of the crops that lack these images, as a patient may: {"t2w": 0.1, "t1n+t2w": 0.05}; all
            others have what their case has. A missing image is 0, as is `sub` without t1n, and no augmentation touches
            it. The channels has-t1n, has-t2w and has-t2f tell the network. Training cases may lack these images too.
        visits: of a training case in each epoch, by the beginning of its ID: {"BraTS-GLI": 4}; the longest that fits
            counts, and 1 where none does. For a few cases beside many of another kind.
        max_lesion_voxels: the small-lesion model's tau: WT components larger than this leave the label, and cases left
            without lesion are dropped (Erdur et al., section 2.5); None keeps every lesion.
    """

    channels: tuple[ChannelName, ...] = ("t1n", "t1c", "t2w", "t2f")
    spacing_mm: Spacing = 1.0
    frame: tuple[int, int] | None = None
    intensity: IntensityPlans = IntensityPlan()
    registration: RegistrationPlan | None = None
    missing_t2w: Literal["refuse", "drop", "t2f", "zeros"] = "refuse"
    drop_channels: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    visits: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    max_lesion_voxels: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _droppable(self) -> Self:
        droppable = set(DROPPABLE) & modalities_of(self.channels)
        for key in self.drop_channels:
            names = key.split("+")
            if not set(names) <= droppable or names != [name for name in DROPPABLE if name in names]:
                raise ValueError(
                    f"drop_channels must name images that the network reads, in the order "
                    f"{'+'.join(name for name in DROPPABLE if name in droppable)}, found {key!r}"
                )
        if sum(self.drop_channels.values()) > 1 + ROUNDING:
            raise ValueError(f"drop_channels must not exceed 1 together, found {sum(self.drop_channels.values()):g}")
        if self.drop_channels and self.missing_t2w in {"drop", "t2f"}:
            raise ValueError(f"missing_t2w {self.missing_t2w} contradicts drop_channels, which says what stands in: 0")
        return self

    @property
    def optional(self) -> tuple[Modality, ...]:
        """The images that the network learns to do without, in the order of DROPPABLE."""
        dropped = {name for key in self.drop_channels for name in key.split("+")}
        return tuple(name for name in DROPPABLE if name in dropped)

    def draw_missing(self, seed: int, epoch: int, place: int, number: int) -> frozenset[Modality]:
        """The images that a crop must do without; see `training.data.batches.Slot` for its place."""
        if not self.drop_channels:
            return frozenset()
        drawn = np.random.default_rng([seed, DROP_STREAM, epoch, place, number]).random()
        for key, share in self.drop_channels.items():
            drawn -= share
            if drawn < 0:
                return frozenset(name for name in DROPPABLE if name in key.split("+"))
        return frozenset()

    def count_visits(self, case_id: str) -> int:
        """How often an epoch visits a training case."""
        fitting = [start for start in self.visits if case_id.startswith(start)]
        return self.visits[max(fitting, key=len)] if fitting else 1


class SplitRecipe(Section):
    """Shares of patients (never of timepoints) for training and validation; the rest is for testing."""

    train: float = Field(0.8, gt=0, le=1)
    validation: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(2023, ge=0)

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.train + self.validation > 1 + ROUNDING:
            raise ValueError(f"train and validation must not exceed 1 together, found {self.train + self.validation:g}")
        return self


class CropRecipe(Section):
    """The crops that the network is trained on.

    Attributes:
        size: voxels along x, y, z; with the VAE branch each side divides by 16.
        other_sizes: each step draws one size for all its crops, from `size` and these with equal chances; what is named
            twice comes up twice as often. Group norm sees the whole window: a network trained on one size alone gives
            other maps in windows of another. None in the paper; none with the VAE branch, whose layers know the size.
        per_case: crops drawn from a case each time it is visited.
        domain: crops are drawn uniformly inside the whole `volume` (the paper's MONAI transform) or inside the
            `brain`'s box, which wastes fewer of them on background.
        lesion_probability: chance that a crop holds a voxel of a lesion, chosen uniformly among the lesions of
            `lesion_region`, at a uniformly drawn place inside it. The paper draws crops uniformly: 0.
        lesion_region: whose components count as lesions for that. A network of one region has only that one, whatever
            is named here.
        false_positive_probability: chance that a crop holds a voxel of what an earlier model took for a lesion
            (`train --predictions`), chosen uniformly among these components of the case; None for none.
        context: voxels around a crop that the network reads and does not answer for (DeepMedic's 42); None for none.
    """

    size: tuple[int, int, int] = (192, 192, 32)
    other_sizes: tuple[tuple[int, int, int], ...] = ()
    per_case: int = Field(2, ge=1)
    domain: Literal["volume", "brain"] = "volume"
    lesion_probability: float = Field(0.0, ge=0, le=1)
    lesion_region: str = "TC"
    false_positive_probability: float | None = Field(None, gt=0, le=1)
    context: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        for size in (self.size, *self.other_sizes):
            if any(side <= 0 or (side % 8 and not self.context) for side in size):
                raise ValueError(f"crop sides must be positive multiples of 8, found {size}")
        return self

    @model_validator(mode="after")
    def _shares(self) -> Self:
        together = self.lesion_probability + (self.false_positive_probability or 0)
        if together > 1:
            raise ValueError(
                f"lesion_probability and false_positive_probability must not exceed 1 together, found {together:g}"
            )
        return self

    @property
    def read_size(self) -> tuple[int, int, int]:
        """What the network reads: the crop with its context."""
        x, y, z = (side + 2 * (self.context or 0) for side in self.size)
        return x, y, z

    def draw_size(self, step: int, seed: int) -> "CropRecipe":
        """The crops of one step: the same with the size that the step draws."""
        if not self.other_sizes:
            return self
        sizes = (self.size, *self.other_sizes)
        drawn = np.random.default_rng([seed, SIZE_STREAM, step]).integers(len(sizes))
        return self.model_copy(update={"size": sizes[int(drawn)], "other_sizes": ()})


class AugmentationRecipe(Section):
    """Random changes of a crop. The first five fields are the paper's Table 1; the others are off in its recipes.

    Attributes:
        flip_probability: of a flip along each of `flip_axes`.
        flip_axes: the paper flips axis 0 only; the brain is nearly symmetric in no other.
        affine_probability: of one rotation, scaling and shift together.
        rotation_degrees: largest rotation about each axis (x, y, z). The paper gives no ranges, and MONAI's default is
            the identity: these are about what co-registration and head position leave open.
        scaling: largest relative change of size.
        noise_probability: of Gaussian noise.
        noise_std_max: its standard deviation is drawn from U(0, noise_std_max), as MONAI does with the paper's 0.1.
        gamma_probability: per modality, of x ** exp(u), u from U(-gamma_log_max, gamma_log_max).
        contrast_probability: per modality, of stretching around the mean by exp(u), u from U(-log_max, log_max).
        brightness_probability: per modality, of adding U(-max, max) to everything that is not background.
        blur_probability: per modality, of a Gaussian blur with a standard deviation from U(0, blur_std_max) voxels.
        coarse_probability: per modality, of thick slices: down along z by up to `coarse_factor_max` and up again.
        bias_probability: per modality, of a smooth multiplicative field of at most exp(bias_log_max).
    """

    flip_probability: float = Field(0.5, ge=0, le=1)
    flip_axes: tuple[Literal[0, 1, 2], ...] = (0,)
    affine_probability: float = Field(0.5, ge=0, le=1)
    rotation_degrees: tuple[float, float, float] = (5.0, 5.0, 10.0)
    scaling: float = Field(0.1, ge=0, lt=1)
    noise_probability: float = Field(0.5, ge=0, le=1)
    noise_std_max: float = Field(0.1, ge=0)
    gamma_probability: float = Field(0.0, ge=0, le=1)
    gamma_log_max: float = Field(0.4, ge=0)
    contrast_probability: float = Field(0.0, ge=0, le=1)
    contrast_log_max: float = Field(0.3, ge=0)
    brightness_probability: float = Field(0.0, ge=0, le=1)
    brightness_max: float = Field(0.1, ge=0)
    blur_probability: float = Field(0.0, ge=0, le=1)
    blur_std_max: float = Field(1.0, ge=0)
    coarse_probability: float = Field(0.0, ge=0, le=1)
    coarse_factor_max: float = Field(4.0, ge=1)
    bias_probability: float = Field(0.0, ge=0, le=1)
    bias_log_max: float = Field(0.25, ge=0)


class LossRecipe(Section):
    """The loss: `dice_ce_weight` * DiceCE + `blob_weight` * blob[Dice] + `vae_weight` * VAE (Erdur et al., equation 1).

    Attributes:
        dice_ce_weight: 1 without blob loss, 2 with it (equation 1).
        blob_weight: 0 or 1 in the paper.
        vae_weight: of the VAE branch's reconstruction and KL terms (Myronenko 2018); 0 leaves the branch out.
        dice_smoothing: above and below in DiceCE's Dice.
        dice_where_present: regions whose Dice counts in crops that hold them alone: rare ones, such as RC.
        blob_smoothing: above and below in the blob loss's Dice.
    """

    kind: ClassVar[str] = "dice_ce"
    reads_volumes: ClassVar[bool] = False
    dice_ce_weight: float = Field(1.0, gt=0)
    blob_weight: float = Field(0.0, ge=0)
    vae_weight: float = Field(0.1, ge=0)
    dice_smoothing: float = Field(1e-5, ge=0)
    dice_where_present: tuple[str, ...] = ()
    blob_smoothing: float = Field(1e-5, gt=0)


class SingleLossRecipe(Section):
    """A loss of one term (Hu et al. 2019, sections 2.2 and 2.3).

    Attributes:
        kind: `volume_aware` Dice; `dice`, the same with all weights 1; `cross_entropy` per voxel (DeepMedic's).
        constant_voxels: lambda of constant reweighting, in voxels (0.72 mm3 in the paper: 500, 1000, 2500, 5000); None
            reweights by the batch's largest tumour. Of `volume_aware` alone.
        smoothing: e of the two Dice losses.
    """

    kind: Literal["volume_aware", "dice", "cross_entropy"]
    constant_voxels: float | None = Field(None, gt=0)
    smoothing: float = Field(1e-5, gt=0)
    vae_weight: ClassVar[float] = 0.0
    reads_volumes: ClassVar[bool] = True

    @model_validator(mode="after")
    def _constant_of_volume_aware(self) -> Self:
        if self.constant_voxels is not None and self.kind != "volume_aware":
            raise ValueError(f"loss.constant_voxels belongs to kind volume_aware, found {self.kind}")
        return self


class OptimizerRecipe(Section):
    """AdamW and what surrounds it.

    Attributes:
        learning_rate: the highest.
        weight_decay: decoupled.
        betas: of AdamW (its defaults; the paper names none).
        schedule: `constant` as the paper implies; `cosine` falls to `final_share` of the rate at the end of the run,
            which is `epochs`, or the time limit where that comes first.
        warmup_steps: the rate grows linearly so long.
        final_share: of the learning rate at the end of `cosine`.
        clip_norm: largest gradient norm; the paper names none, 0 switches clipping off. It only acts on outliers.
        ema_decay: of the moving average of the weights, which validation and freezing then use; None for none.
    """

    kind: ClassVar[str] = "adamw"
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    final_share: float = Field(0.01, ge=0, le=1)
    clip_norm: float = Field(1.0, ge=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)


class RmsPropRecipe(Section):
    """RMSProp, as both networks of Hu et al. 2019 were trained with.

    Attributes:
        kind: tells it from AdamW.
        learning_rate: at the beginning.
        rho: of the moving mean of squared gradients.
        epsilon: added to its root.
        nesterov: momentum that looks ahead (DeepMedic: 0.6); 0 for none.
        l1: factor on the sum of the absolute values of the convolutions' weights (DeepMedic: 1e-6).
        l2: of the sum of their squares (DeepMedic: 1e-4).
        halved_at_epochs: the rate is halved when these epochs have passed (DeepMedic: 17, 22, 27, 30, 33 of 35); under
            a time limit at the same shares of the run.
        clip_norm: largest gradient norm; 0 switches clipping off. The paper names none; it acts on outliers only.
    """

    kind: Literal["rmsprop"]
    learning_rate: float = Field(1e-3, gt=0)
    rho: float = Field(0.9, gt=0, lt=1)
    epsilon: float = Field(1e-4, gt=0)
    nesterov: float = Field(0.0, ge=0, lt=1)
    l1: float = Field(0.0, ge=0)
    l2: float = Field(0.0, ge=0)
    halved_at_epochs: tuple[int, ...] = ()
    clip_norm: float = Field(0.0, ge=0)
    ema_decay: ClassVar[float | None] = None


def _kind_or(default: str) -> Discriminator:
    """Sections that were alone at first do not name their kind."""

    def find_kind(section: Any) -> str:
        named = section.get("kind") if isinstance(section, dict) else getattr(section, "kind", None)
        return "first" if named in {None, default} else "other"

    return Discriminator(find_kind)


LossRecipes = Annotated[
    Annotated[LossRecipe, Tag("first")] | Annotated[SingleLossRecipe, Tag("other")], _kind_or(LossRecipe.kind)
]
"""Either of the losses; without `kind`, that of Erdur et al."""

OptimizerRecipes = Annotated[
    Annotated[OptimizerRecipe, Tag("first")] | Annotated[RmsPropRecipe, Tag("other")], _kind_or(OptimizerRecipe.kind)
]
"""Either of the optimisers; without `kind`, AdamW."""


class ValidationRecipe(Section):
    """How a run watches itself.

    Attributes:
        every_epochs: between two validations; the last step is always followed by one.
        times: in place of `every_epochs`: so many validations, evenly over the run's steps or hours; None for none.
        max_cases: only so many validation cases, the first by ID; None for all.
        window: the sliding window; validation uses no test-time augmentation.
        threshold: on the probabilities.
        protocol: of the lesion-wise score that chooses the best checkpoint.
    """

    every_epochs: int = Field(5, ge=1)
    times: int | None = Field(None, ge=1)
    max_cases: int | None = Field(None, ge=1)
    window: WindowPlan = WindowPlan(overlap=0.5)
    threshold: float = Field(0.5, gt=0, lt=1)
    protocol: Literal["brats2023", "brats2026"] = "brats2023"
