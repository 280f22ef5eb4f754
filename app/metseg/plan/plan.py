"""A plan: all the science of one inference run, readable in one YAML file.

The defaults are the method of Erdur et al. 2023 (arXiv 2310.02829); where the paper is silent, the authors' earlier
AURORA tool, or BraTS Toolkit for fusion. Operational choices (device, paths, what to do on an error) are command-line
options and may not change a voxel, the device excepted.
"""

from collections.abc import Iterable, Mapping
from math import lcm
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, cast

from pydantic import Discriminator, Field, PlainSerializer, PlainValidator, Tag, TypeAdapter, model_validator

from metseg.labels import BRATS_REGIONS, MAX_LABEL, Region, Regions
from metseg.plan.document import Section, document_sha256, read_document
from metseg.plan.networks import NetworkPlan, SegResNetPlan
from metseg.plan.radiosurgery import RadiosurgeryIntensityPlan, RegistrationPlan
from metseg.systems import OWN_GRID, SOURCE_MODALITY, Modality, System, system_of_regions

SUBTRACTION: Final = "sub"
ChannelName = Literal["t1n", "t1c", "t2w", "t2f", "sub", "ct", "has-t1n", "has-t2w", "has-t2f"]
"""An input channel: a modality; `sub`, the squared difference of the scaled t1c and t1n; or one of `PRESENCE`."""

PRESENCE: Final[Mapping[ChannelName, Modality]] = {"has-t1n": "t1n", "has-t2w": "t2w", "has-t2f": "t2f"}
"""Channels that are 1 everywhere where the case has an image, and 0 everywhere where it lacks it."""


class IntensityPlan(Section):
    """Percentile scaling to [0, 1], per channel (Erdur et al., section 2.2).

    Attributes:
        lower_percentile: becomes 0.
        upper_percentile: becomes 1.
        percentiles_over: `volume` = all voxels, background included, as the paper; `brain` = the voxels where some
            image of the case is not 0, so that the empty margin around the brain does not matter.
    """

    kind: ClassVar[str] = "percentiles"
    registers: ClassVar[bool] = False
    scan_window_hu: ClassVar[None] = None
    lower_percentile: float = Field(0.1, ge=0, lt=100)
    upper_percentile: float = Field(99.9, gt=0, le=100)
    percentiles_over: Literal["volume", "brain"] = "volume"

    @property
    def depends_on_margin(self) -> bool:
        """Whether the empty margin around the brain changes what the networks read."""
        return self.percentiles_over == "volume"


def _intensity_kind(section: Any) -> str:
    """The first plans had percentiles alone and did not name them."""
    named = section.get("kind") if isinstance(section, Mapping) else getattr(section, "kind", None)
    return "percentiles" if named is None else str(named)


IntensityPlans = Annotated[
    Annotated[IntensityPlan, Tag("percentiles")] | Annotated[RadiosurgeryIntensityPlan, Tag("radiosurgery")],
    Discriminator(_intensity_kind),
]
"""How images become what a network reads; without `kind`, percentile scaling."""

Millimetres = Annotated[float, Field(gt=0)]
Spacing = Millimetres | tuple[Millimetres, Millimetres, Millimetres]
"""Voxel sides: one for all axes, or one each along x, y, z of the network's RAS grid."""


def expand_sides(spacing_mm: Spacing) -> tuple[float, float, float]:
    """Voxel sides along x, y, z in mm, however they were written."""
    return spacing_mm if isinstance(spacing_mm, tuple) else (spacing_mm, spacing_mm, spacing_mm)


class RegionSection(Section):
    """One region of a plan: its name, and the labels of a label map that belong to it."""

    name: str = Field(min_length=1)
    labels: tuple[Annotated[int, Field(gt=0, le=MAX_LABEL)], ...] = Field(min_length=1)


def modalities_of(channels: Iterable[ChannelName]) -> frozenset[Modality]:
    """The images that channels are made from; a presence channel is made from none."""
    found: set[Modality] = set()
    for channel in channels:
        if channel == SUBTRACTION:
            found |= {"t1c", "t1n"}
        elif channel not in PRESENCE:
            found.add(cast("Modality", channel))
    return frozenset(found)


def _as_regions(value: object) -> Regions:
    if isinstance(value, Regions):
        return value
    sections = TypeAdapter(tuple[RegionSection, ...]).validate_python(value)
    return Regions(tuple(Region(section.name, section.labels) for section in sections))


def _in_first_member(content: Mapping[str, Any], key: str) -> Any:
    """A value of the first member of a plan's content, checked or not; None where there is none."""
    members = content.get("members")
    first = members[0] if isinstance(members, list | tuple) and members else None
    return first.get(key) if isinstance(first, Mapping) else getattr(first, key, None)


PlanRegions = Annotated[
    Regions,
    PlainValidator(_as_regions),
    PlainSerializer(lambda regions: [{"name": region.name, "labels": list(region.labels)} for region in regions]),
]
"""In YAML a list of `RegionSection`, or of the names that the system knows."""


class WindowPlan(Section):
    """The sliding window (Erdur et al., section 2.6; weighting and padding after AURORA).

    Attributes:
        size: voxels along x, y, z of the 1 mm RAS grid; each divisible by 8.
        overlap: share of a window that the next one covers again.
        extent: `fixed` = windows of `size` over the brain's box; `volume` = windows of `size` where a scan of the whole
            volume puts them, without those that see no brain; `trimmed` = each side is cut to the brain's box, rounded
            up to a multiple of 8; `whole` = one window as large as the brain's box, `size` and `overlap` unused.
    """

    size: tuple[int, int, int] = (192, 192, 32)
    overlap: float = Field(0.75, ge=0, lt=1)
    extent: Literal["fixed", "volume", "trimmed", "whole"] = "fixed"

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
    """Fusion of the members (Erdur et al., section 2.7; variants in `metseg.decide.fusion`).

    Attributes:
        method: `simple` as BraTS Toolkit computes it; `simple_langerak` as Langerak et al. 2010 wrote it; `majority`;
            `mean` of probabilities; `maximum` per region (of probabilities when `maximum_of` is so, else of masks).
        max_iterations: SIMPLE repeats at most so often.
        min_change_voxels: SIMPLE stops when the foreground voxel count changes by less.
        langerak_alpha: members under mean - alpha * standard deviation leave (`simple_langerak`).
        added_by_maximum: names of members that don't vote: what they segment joins the others' result by voxel-wise
            maximum (the small-lesion model, Erdur et al., section 2.5).
        confirmed_below_mm3: what the others segment stays only where one of these finds something in it too, if it is a
            26-connected WT component smaller than this; None asks for no confirmation, as the paper.
    """

    method: Literal["simple", "simple_langerak", "majority", "mean", "maximum"] = "simple"
    max_iterations: int = Field(25, ge=1)
    min_change_voxels: int = Field(25, ge=0)
    langerak_alpha: float = Field(1.0, ge=0)
    maximum_of: Literal["probabilities", "masks"] = "probabilities"
    added_by_maximum: tuple[str, ...] = ()
    confirmed_below_mm3: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _somebody_confirms(self) -> Self:
        if self.confirmed_below_mm3 is not None and not self.added_by_maximum:
            raise ValueError("confirmed_below_mm3 needs members in added_by_maximum, who confirm: found none")
        return self


class PostprocessPlan(Section):
    """Rules applied once, after fusion, in this order; volumes in mm3 = voxels at 1 mm (Erdur et al., section 2.8).

    A component is removed (or relabelled) when it is strictly smaller than its threshold; 0 switches a rule off.

    Attributes:
        min_wt_mm3: whole-tumour components smaller than this are removed.
        min_further_core_mm3: tumour-core components smaller than this become SNFH where the same whole-tumour component
            holds a larger core. Not in the paper: None, or 0, switches it off.
        min_netc_mm3: NETC components smaller than this become ET.
        min_further_et_share: ET components smaller than this share of the largest ET component of the same tumour core
            become NETC. Not in the paper: None, or 0, switches it off.
        min_snfh_mm3: SNFH components smaller than this are removed.
        min_et_mm3: ET components smaller than this are removed.
        min_disjoint_mm3: components of a disjoint region, such as RC, smaller than this are removed. Not in the paper.
    """

    min_wt_mm3: int = Field(25, ge=0)
    min_further_core_mm3: int | None = Field(None, ge=0)
    min_netc_mm3: int = Field(20, ge=0)
    min_further_et_share: float | None = Field(None, ge=0, lt=1)
    min_snfh_mm3: int = Field(20, ge=0)
    min_et_mm3: int = Field(10, ge=0)
    min_disjoint_mm3: int = Field(0, ge=0)


class MemberPlan(Section):
    """One model of the ensemble.

    Attributes:
        name: how logs and reports call it.
        weights: safetensors file, relative to the bundle's folder.
        sha256: of that file.
        channels: the network's input channels, in order.
        optional: images that the network was trained to do without: their channels, and `sub` without t1n, are then 0.
            The source image is never one of them.
        regions: the network's output channels, in order.
        network: its architecture.
        window: its own sliding window; None for the plan's. Group norm sees all of a window, so a network trained on
            small blocks (the small-lesion model) works in windows of their size.
        spacing_mm: of its own grid, whose voxels its window counts; None for the plan's. Its logits are brought to the
            plan's grid before the threshold (`metseg.predict.between_grids`).
    """

    name: str = Field(min_length=1)
    weights: str = Field(pattern=r"^[^/\\]+\.safetensors$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    channels: tuple[ChannelName, ...] = ("t1n", "t1c", "t2w", "t2f")
    optional: tuple[Modality, ...] = ()
    regions: tuple[str, ...] = BRATS_REGIONS.names
    network: NetworkPlan = SegResNetPlan()
    window: WindowPlan | None = None
    spacing_mm: Spacing | None = None

    @model_validator(mode="after")
    def _outputs(self) -> Self:
        if len(self.regions) not in self.network.outputs:
            expected = self.network.outputs[-1] if len(self.network.outputs) == 1 else "another number"
            raise ValueError(f"member {self.name!r}: its network has {expected} output, found {list(self.regions)}")
        return self

    @model_validator(mode="after")
    def _optional_is_read(self) -> Self:
        possible = self.modalities - {SOURCE_MODALITY}
        if not set(self.optional) <= possible:
            raise ValueError(
                f"member {self.name!r}: optional must name images that it reads, {SOURCE_MODALITY} excepted: some of "
                f"{sorted(possible)}, found {list(self.optional)}"
            )
        return self

    @property
    def modalities(self) -> frozenset[Modality]:
        """Every image that this member reads."""
        return modalities_of(self.channels)

    @property
    def required_modalities(self) -> frozenset[Modality]:
        """The images that this member can't do without."""
        return self.modalities - set(self.optional)


class Plan(Section):
    """All the science of one inference run.

    Attributes:
        name: how logs and reports call it.
        description: for people.
        regions: what label maps show, in channel order, with the labels of each (`metseg.labels.Regions`). A plan that
            lists their names alone has those that its system declares, one that lists nothing those of its first
            member. A voting member predicts all of them and may predict more; one that is added by maximum may leave
            out disjoint ones.
        spacing_mm: of the network's grid.
        frame: voxels of that grid along x and y, about the images' own centre; None covers the images' field of view.
        intensity: how images become what the networks read.
        brain_share: mean share of the brain among the voxels of the members' training cases; None where unknown.
        registration: how a CT is brought to the source image; needed where a member reads one.
        window: the sliding window of every member that has none of its own; DeepMedic's are tiles
            (`metseg.predict.tiles`).
        tta: test-time augmentation.
        threshold: on probabilities.
        fusion: of the members.
        postprocess: rules at the end.
        members: the models.
    """

    name: str = Field(min_length=1)
    description: str = ""
    regions: PlanRegions
    spacing_mm: Spacing = 1.0
    frame: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    intensity: IntensityPlans = IntensityPlan()
    brain_share: float | None = Field(None, gt=0, le=1)
    registration: RegistrationPlan | None = None
    window: WindowPlan = WindowPlan()
    tta: TtaPlan = TtaPlan()
    threshold: float = Field(0.5, gt=0, lt=1)
    fusion: FusionPlan = FusionPlan()
    postprocess: PostprocessPlan = PostprocessPlan()
    members: Annotated[tuple[MemberPlan, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _listed_regions(cls, content: object) -> object:
        if not isinstance(content, Mapping):
            return content
        listed = content.get("regions")
        named = isinstance(listed, list | tuple) and all(isinstance(name, str) for name in listed)
        if listed is not None and not named:
            return content
        names = listed or _in_first_member(content, "regions") or BRATS_REGIONS.names
        if not isinstance(names, list | tuple):
            return {**content, "regions": BRATS_REGIONS}
        try:
            return {**content, "regions": system_of_regions(names).regions_named(names)}
        except (ValueError, TypeError) as error:
            whose = "" if listed else f" of member {_in_first_member(content, 'name')!r}"
            raise ValueError(f"regions{whose}: {error}") from error

    @model_validator(mode="after")
    def _unique_members(self) -> Self:
        names = [member.name for member in self.members]
        if len(set(names)) != len(names):
            raise ValueError(f"members must have different names, found {names}")
        added = self.fusion.added_by_maximum
        if not set(added) < set(names):
            raise ValueError(f"fusion.added_by_maximum must name some of the members {names}, not all: found {added}")
        return self

    @model_validator(mode="after")
    def _one_system(self) -> Self:
        """Parts that only make sense together: a plan of one system must not be mistaken for another's."""
        for member in self.members:
            is_added = member.name in self.fusion.added_by_maximum
            needed = [region.name for region in (self.regions.nested if is_added else self.regions)]
            if not set(needed) <= set(member.regions):
                raise ValueError(
                    f"member {member.name!r} must predict the plan's {', '.join(needed)}, found {list(member.regions)}"
                )
        rules = self.postprocess
        of_parts = (
            rules.min_further_core_mm3,
            rules.min_netc_mm3,
            rules.min_further_et_share,
            rules.min_snfh_mm3,
            rules.min_et_mm3,
        )
        if not self.system.has_parts and any(of_parts):
            raise ValueError(
                f"{self.system.whole} have no parts: postprocess.min_further_core_mm3, min_netc_mm3, "
                "min_further_et_share, min_snfh_mm3, min_et_mm3 must be 0"
            )
        registered = self.modalities & OWN_GRID
        if bool(registered) != (self.registration is not None):
            raise ValueError(
                f"a member reads {' or '.join(sorted(OWN_GRID))} if and only if the plan has a registration section"
            )
        if registered and not self.intensity.registers:
            raise ValueError(f"{', '.join(sorted(registered))} needs intensity.kind: radiosurgery")
        if self.intensity.registers and not self.system.is_registered:
            raise ValueError(
                f"regions of member {self.members[0].name!r}: {list(self.regions.names)} are not those of cases that "
                f"intensity.kind {self.intensity.kind} prepares"
            )
        for window in (self.window, *map(self.choose_window, self.members)):
            if any(side % multiple for side, multiple in zip(window.size, self.side_multiples, strict=True)):
                raise ValueError(f"window sides must divide by {self.side_multiples}, found {window.size}")
        if self.tta.variant != "none" and any(item.network.runs_in_tiles for item in self.members):
            raise ValueError("DeepMedic is run without test-time augmentation: tta.variant must be none")
        return self

    @model_validator(mode="after")
    def _own_grids(self) -> Self:
        """Where images are registered, the grid is that of the frame, for all members."""
        named = [item.name for item in self.members if item.spacing_mm is not None]
        if named and (self.intensity.registers or self.frame is not None):
            raise ValueError(
                f"a frame or an intensity of kind {self.intensity.kind} leaves no member a spacing_mm of its own: "
                f"found {named}"
            )
        return self

    def choose_window(self, member: MemberPlan) -> WindowPlan:
        """The window that a member works in."""
        return member.window or self.window

    def choose_spacing(self, member: MemberPlan) -> Spacing:
        """Voxel side of the grid that a member works on."""
        return self.spacing_mm if member.spacing_mm is None else member.spacing_mm

    @property
    def own_spacings(self) -> tuple[Spacing, ...]:
        """Of the grids that members have for themselves, each once."""
        return tuple(dict.fromkeys(item.spacing_mm for item in self.members if item.spacing_mm is not None))

    @property
    def side_multiples(self) -> tuple[int, int, int]:
        """What the sides of a window divide by, for every member."""
        x, y, z = (lcm(*sides) for sides in zip(*(item.network.side_multiples for item in self.members), strict=True))
        return x, y, z

    @property
    def system(self) -> System:
        """What its cases and label maps are."""
        return system_of_regions(self.regions.names)

    @property
    def expected_brain_share(self) -> float | None:
        """Of the voxels of a case; None where the margin around the brain does not matter, or nothing is known."""
        if not self.intensity.depends_on_margin:
            return None
        return self.brain_share or self.system.brain_share

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of a voxel of the network's grid."""
        x, y, z = self.sides_mm
        return x * y * z

    @property
    def sides_mm(self) -> tuple[float, float, float]:
        """Sides of such a voxel along x, y, z."""
        return expand_sides(self.spacing_mm)

    @property
    def modalities(self) -> frozenset[Modality]:
        """Every image that some member reads."""
        return frozenset().union(*(member.modalities for member in self.members))

    @property
    def required_modalities(self) -> frozenset[Modality]:
        """The images without which no member can run."""
        return frozenset.intersection(*(member.required_modalities for member in self.members))

    @property
    def sha256(self) -> str:
        """Hash of what the plan states; see `document_sha256`."""
        return document_sha256(self)


def load_plan(path: Path) -> Plan:
    """Reads a plan.

    Args:
        path: a YAML file.

    Raises:
        UsageError: the file is missing, is not YAML, or breaks the schema; every broken key is named.
    """
    return read_document(path, Plan, what="plan", hint="docs/plans.md lists every key with its range.")
